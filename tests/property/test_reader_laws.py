"""Laws of the readers: what was written is read back, however it is packed, encoded, cut or damaged."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chimed.errors import RowError, SourceError
from chimed.sources.json_rows import values
from chimed.sources.lines import runs
from chimed.sources.readers import Slice, find, rows, slices
from chimed.sources.spec import Row, Source

SOURCE = Source(
    name="s",
    title="S",
    homepage="",
    license="",
    files={"**": "train"},
    parse=lambda _: (),
    shapes=("passage",),
    stages=("cpt",),
)
HAN = "的一是患者头痛发热三天血压高能吃党参吗，。？！“”（）、"
cells = st.text(alphabet=HAN + "abc 019,;|\t\"'{}[]:\\€é", max_size=12)
tables = st.lists(st.fixed_dictionaries({"q": cells, "a": cells, "栏": cells}), min_size=1, max_size=12)
ends = st.sampled_from(["\n", "\r\n", "\r"])
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"])
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}
laws = settings(deadline=None, max_examples=60)
# Enough of what Chinese text is made of to tell its encoding, as any real file has.
ANCHOR = {"q": "患者头痛发热三天，能吃党参吗？", "a": "建议就医，查血常规。", "栏": "内科"}


def read(name: str, data: bytes, size: int = 0) -> list[tuple[int, Row | str]]:
    """All rows of a file with these bytes, in slices of `size` bytes if given; a reject as its reason."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s" / name
        path.parent.mkdir()
        path.write_bytes(data)
        (file,) = find(SOURCE, Path(folder))[0]
        parts = slices(SOURCE, file, size) if size else [Slice(file)]
        found = [item for part in parts for item in rows(SOURCE, part)]
    return [(number, row.reason if isinstance(row, RowError) else row) for number, row in found]


def as_csv(table: list[Row], delimiter: str, end: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(table[0]), delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def as_json(table: list[Row], layout: str, indent: int | None) -> str:
    if layout == "lines":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    if layout == "behind each other":
        return "\n".join(json.dumps(row, ensure_ascii=False, indent=indent or 1) for row in table)
    return json.dumps(table, ensure_ascii=False, indent=indent)


@laws
@given(tables, st.sampled_from(",\t;|"), ends, encodings, st.sampled_from(list(PACKERS)))
def test_csv_is_read_back(table: list[Row], delimiter: str, end: str, encoding: str, packer: str) -> None:
    data = as_csv([ANCHOR, *table], delimiter, end).encode(encoding)
    assert read(f"a.csv{packer}", PACKERS[packer](data)) == list(enumerate([ANCHOR, *table], 1))


@laws
@given(
    tables,
    st.sampled_from(["lines", "behind each other", "array"]),
    st.sampled_from([None, 0, 2]),
    ends,
    encodings,
    st.sampled_from(list(PACKERS)),
)
def test_json_is_read_back(
    table: list[Row], layout: str, indent: int | None, end: str, encoding: str, packer: str
) -> None:
    data = as_json([ANCHOR, *table], layout, indent).replace("\n", end).encode(encoding)
    assert read(f"a.json{packer}", PACKERS[packer](data)) == list(enumerate([ANCHOR, *table], 1))


@settings(deadline=None, max_examples=15)
@given(tables)
def test_binary_tables_are_read_back(table: list[Row]) -> None:
    full = [ANCHOR, *table]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(full), out)
    assert read("a.parquet", out.getvalue()) == list(enumerate(full, 1))
    out, book = io.BytesIO(), openpyxl.Workbook()
    for row in [list(ANCHOR), *[[row[name] for name in ANCHOR] for row in full]]:
        book.active.append(row)
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s"
    book.save(out)
    expected = [(number, row) for number, row in enumerate(full, 1) if any(row.values())]
    assert read("a.xlsx", out.getvalue()) == expected


@laws
@given(st.lists(cells, min_size=1, max_size=30), ends, encodings, st.booleans())
def test_text_lines_are_read_back(lines: list[str], end: str, encoding: str, last: bool) -> None:
    full = [*ANCHOR.values(), *lines]
    data = (end.join(full) + (end if last else "")).encode(encoding)
    expected = [(number, {"text": line, "name": "a"}) for number, line in enumerate(full, 1) if line.strip()]
    assert read("a.txt", data) == expected


lined = st.lists(
    st.one_of(
        st.text(alphabet=HAN + "ab \t", max_size=20).map(str.encode),
        st.text(alphabet=HAN, max_size=20).map(lambda text: text.encode("gb18030")),
        st.just(b'{"a": 1}'),
        st.binary(max_size=6),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(lined, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(1, 200), st.sampled_from(["a.txt", "a.jsonl"]))
def test_slices_give_what_the_whole_file_gives(lines: list[bytes], end: bytes, size: int, name: str) -> None:
    data = end.join(lines)
    assert read(name, data, size) == read(name, data)


@laws
@given(tables, st.integers(1, 50), st.sampled_from([None, 1]))
def test_arrays_do_not_depend_on_how_they_arrive(table: list[Row], size: int, indent: int | None) -> None:
    data = as_json(table, "array", indent).encode()
    assert list(values(data[i : i + size] for i in range(0, len(data), size))) == table


damages = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([b"", b"\xff", b"\0", b'"', b"{", b"}", b"\\"])))


@settings(deadline=None, max_examples=150)
@given(tables, damages)
def test_every_line_of_damaged_json_lines_is_a_row_or_a_reject(
    table: list[Row], damage: list[tuple[int, bytes]]
) -> None:
    full = [ANCHOR, ANCHOR, *table, ANCHOR]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in full]
    whole = list(lines)
    for place, byte in damage:
        number = 1 + place % (len(full) - 1)
        at = place % max(len(lines[number]), 1)
        lines[number] = lines[number][:at] + byte + lines[number][at + 1 :]
    found = dict(read("a.jsonl", b"\n".join(lines)))
    assert sorted(found) == [number for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in enumerate(lines, 1):
        if line == whole[number - 1]:
            assert found[number] == full[number - 1]


@settings(deadline=None, max_examples=150)
@given(tables, st.integers(0, 1_000), st.integers(0, 10_000), st.sampled_from([None, 1]))
def test_a_damaged_array_keeps_the_rows_before_the_damage(
    table: list[Row], where: int, place: int, indent: int | None
) -> None:
    full = [ANCHOR, *table, ANCHOR]
    parts = [json.dumps(row, ensure_ascii=False, indent=indent).encode() for row in full]
    hit = 1 + where % (len(full) - 1)
    at = place % len(parts[hit])
    parts[hit] = parts[hit][:at]  # what is cut out of it takes its end along
    found = [row for _, row in read("a.json", b"[" + b",\n".join(parts) + b"]")]
    assert found[:hit] == full[:hit]
    assert any(isinstance(row, str) for row in found) or at == 0


@settings(deadline=None, max_examples=200)
@example(b"\x01\t\x01", "", "a.csv")
@given(
    st.binary(max_size=300),
    st.sampled_from(["", "[", "{", '{"a":', "q,a\n", "PK\x03\x04", "PAR1", "\x1f\x8b", "BZh9", "ARROW1\0\0"]),
    st.sampled_from(["a.txt", "a.csv", "a.json", "a.jsonl", "a.parquet", "a.xlsx"]),
)
def test_any_bytes_end_as_rows_and_rejects(data: bytes, head: str, name: str) -> None:
    try:
        found: list[tuple[int, Any]] = read(name, head.encode("latin-1") + data)
    except SourceError as error:  # what is no fault of one row
        assert re.fullmatch(rf"{re.escape(name)}: the header has '.+' more than once; .+", str(error))
        return
    numbers = [number for number, _ in found]
    assert numbers
    assert numbers == sorted(set(numbers))


@laws
@given(
    st.lists(st.sampled_from(["id=1", " id=2 ", "id=3x", "患者：id=4", "头痛", "", "\u3000"]), max_size=9),
    st.integers(1, 30),
)
def test_blocks_are_those_found_line_by_line(lines: list[str], size: int) -> None:
    found: list[list[str]] = [[]]
    for line in lines[:-1] if lines and not lines[-1] else lines:
        if re.fullmatch(r"\s*id=\d+\s*", line):
            found.append([line])
        elif found[-1] or line.strip():
            found[-1].append(line)
    data = "\n".join(lines).encode()
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    read = [row["text"] if isinstance(row, dict) else row for _, row in runs(chunks, "s", r"id=\d+")]
    assert read == ["\n".join(block) for block in found if block]
