"""Repeats in files: what stays, what is named, that nothing else changes, and what is refused."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chimed import repeats, textfiles
from chimed.errors import BuildError, SourceError
from chimed.repeats import Counts, dedup

LONG = "百日咳是由百日咳杆菌所致的急性呼吸道传染病，病程可以拖延二三月以上，所以称为百日咳"
OTHER = "痛风发作时关节红肿热痛，多在夜间，平时少吃动物内脏与海鲜，多喝水，按时复查血尿酸"
NEAR = LONG + "症"


def run(out: Path, *files: Path, column: str = "text", workers: int = 1) -> Counts:
    return dedup(files, out, column=column, threshold=0.8, workers=workers)


def lines(path: Path, *rows: object, end: str = "\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + end)
    return path


def removed(out: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(out / "removed.parquet").to_pylist()]


def test_first_row_of_the_first_file_stays(tmp_path: Path) -> None:
    one = tmp_path / "one.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3], "text": [LONG, OTHER, LONG + "。"]}), one)
    two = lines(tmp_path / "two.jsonl", {"text": NEAR, "n": 4}, {"text": OTHER}, {"text": "感冒"})
    found = run(tmp_path / "out", one, two)
    assert (found.rows, found.equal, found.near, found.kept) == (6, 2, 1, 3)
    assert found.files == {"one.parquet": {"rows": 3, "kept": 2}, "two.jsonl": {"rows": 3, "kept": 1}}
    assert pq.read_table(tmp_path / "out/kept/one.parquet").to_pydict() == {"n": [1, 2], "text": [LONG, OTHER]}
    assert (tmp_path / "out/kept/two.jsonl").read_text() == json.dumps({"text": "感冒"}) + "\n"
    share = 35 / 36
    assert len(LONG.replace("，", "")) - 4 == 35
    assert removed(tmp_path / "out") == [
        ("one.parquet", 3, "one.parquet", 1, 1.0),
        ("two.jsonl", 1, "one.parquet", 1, share),
        ("two.jsonl", 2, "one.parquet", 2, 1.0),
    ]
    assert json.loads((tmp_path / "out/dedup.json").read_text())["kept"] == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dedup.json", "kept", "removed.parquet"]


def test_an_equal_row_names_the_row_that_stays_in_the_end(tmp_path: Path) -> None:
    run(tmp_path / "out", lines(tmp_path / "a.jsonl", {"text": LONG}, {"text": NEAR}, {"text": NEAR}))
    assert [(row, by, alike < 1) for _, row, _, by, alike in removed(tmp_path / "out")] == [(2, 1, True), (3, 1, True)]


def test_rows_without_text_stay_and_are_counted(tmp_path: Path) -> None:
    rows = [
        {"text": None},
        {"text": None},
        {"text": ""},
        {"text": "，。"},
        {"other": 1},
        "",
        '{"text": ',
        "7",
        {"text": 7},
    ]
    path = lines(tmp_path / "a.jsonl", {"text": LONG}, *rows, {"text": LONG})
    found = run(tmp_path / "out", path)
    assert (found.rows, found.empty, found.unreadable, found.kept) == (11, 6, 3, 10)
    assert found.faults == ["a.jsonl:8", "a.jsonl:9", "a.jsonl:10"]
    assert (tmp_path / "out/kept/a.jsonl").read_text().splitlines() == path.read_text().splitlines()[:-1]
    assert "6 without text, 3 unreadable (a.jsonl:8; " in str(found)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_kept_lines_are_copied_byte_by_byte(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf"
        b'{"b":1.50, "text":"\\u611f\\u5192"}\r\n  {"text":"x", "n":1e5}\n{"text":"\xe6\x84\x9f\xe5\x86\x92"}'
        + end.encode()
    )
    found = run(tmp_path / "out", path)
    assert (found.rows, found.equal) == (3, 1)
    assert (tmp_path / "out/kept/a.jsonl").read_bytes() == path.read_bytes()[: path.read_bytes().rindex(b"{")]


def test_neither_batches_nor_workers_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{LONG[n % 7 :]}{n % 50}号病人{OTHER[: n % 30]}" for n in range(900)]
    one = tmp_path / "one.parquet"
    pq.write_table(pa.table({"text": texts[:450]}), one, row_group_size=100)
    two = lines(tmp_path / "two.jsonl", *({"text": text} for text in texts[450:]))
    run(tmp_path / "a", one, two)
    monkeypatch.setattr(textfiles, "BATCH", 1000)
    monkeypatch.setattr(textfiles, "GROUP", 1000)
    run(tmp_path / "b", one, two, workers=3)
    assert removed(tmp_path / "a") == removed(tmp_path / "b")
    assert len(removed(tmp_path / "a")) > 100
    assert (tmp_path / "a/kept/two.jsonl").read_bytes() == (tmp_path / "b/kept/two.jsonl").read_bytes()
    kept = [pq.read_table(tmp_path / out / "kept/one.parquet") for out in "ab"]
    assert kept[0].equals(kept[1])


def test_a_large_row_group_is_not_held_as_a_whole(tmp_path: Path) -> None:
    texts = [random.Random(number).randbytes(8192).hex() for number in range(3000)]  # as they hardly compress
    path = tmp_path / "one.parquet"
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False)
    del texts
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in textfiles.opened(path, "text").batches())
    assert path.stat().st_size > 40e6
    assert most < 40e6


@pytest.mark.parametrize("held", [0, 3_000])
def test_texts_on_disk_are_compared_as_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    rows = [{"text": f"{text}{number % 7}"} for number in range(60) for text in (LONG, OTHER)]
    file = lines(tmp_path / "some.jsonl", *rows)
    monkeypatch.setattr(textfiles, "BATCH", 600)
    run(tmp_path / "memory", file)
    monkeypatch.setattr(repeats, "HELD", held)
    spilled: list[Path] = []
    new_file = pa.ipc.new_file
    monkeypatch.setattr(pa.ipc, "new_file", lambda path, schema: spilled.append(path) or new_file(path, schema))
    run(tmp_path / "disk", file)
    assert [path.name for path in spilled] == ["texts.arrow"]
    assert removed(tmp_path / "disk") == removed(tmp_path / "memory") != []


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_keeps_types_metadata_and_compression(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": pa.array([LONG, LONG, None], pa.string()).cast(kind), "x": [[1], [2], [3]]})
    pq.write_table(table.replace_schema_metadata({"k": "v"}), path, compression="zstd")
    run(tmp_path / "out", path)
    kept = pq.ParquetFile(tmp_path / "out/kept/a.parquet")
    assert kept.schema_arrow.equals(pq.ParquetFile(path).schema_arrow, check_metadata=True)
    assert kept.read()["x"].to_pylist() == [[1], [3]]
    assert kept.metadata.row_group(0).column(0).compression == "ZSTD"


def test_files_of_several_folders_keep_what_differs(tmp_path: Path) -> None:
    files = [lines(tmp_path / name / "a.jsonl", {"text": LONG}) for name in ("x", "y")]
    run(tmp_path / "out", *files)
    assert removed(tmp_path / "out") == [("y/a.jsonl", 1, "x/a.jsonl", 1, 1.0)]
    assert (tmp_path / "out/kept/y/a.jsonl").read_bytes() == b""


def test_files_without_rows(tmp_path: Path) -> None:
    one = tmp_path / "one.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), one)
    found = run(tmp_path / "out", one, lines(tmp_path / "two.jsonl", end=""))
    assert (found.rows, found.kept) == (0, 0)
    assert pq.read_table(tmp_path / "out/kept/one.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 and then something else", "not a whole Parquet file"),
        (b"\x89PNG\r\n\x1a\n", "neither Parquet nor JSON lines"),
        (b'[{"text": "a"}]', "neither Parquet nor JSON lines"),
        (b'{"question": "a", "answer": "b"}\n', "no column 'text'; it has question, answer"),
    ],
)
def test_unfit_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        run(tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_unfit_parquet_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1], "name": ["a"]}), path)
    with pytest.raises(SourceError, match="'text' holds int64"):
        run(tmp_path / "out", path)
    with pytest.raises(SourceError, match="no column 'body'; it has text, name"):
        run(tmp_path / "out", path, column="body")
    with pytest.raises(SourceError, match="No such file"):
        run(tmp_path / "out", tmp_path / "none")
    with pytest.raises(SourceError, match="given twice"):
        run(tmp_path / "out", path, path, column="name")


def test_a_damaged_page_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{LONG}{n}" for n in range(500)]}), path, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[200:1200] = bytes(1000)
    path.write_bytes(raw)
    with pytest.raises(SourceError, match="damaged Parquet file"):
        run(tmp_path / "out", path)


def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": LONG})
    decide = repeats._decide

    def slow(*args: object) -> object:
        path.write_text(path.read_text() * 2)
        return decide(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(repeats, "_decide", slow)
    with pytest.raises(SourceError, match="changed while it was read"):
        run(tmp_path / "out", path)
    assert not (tmp_path / "out/dedup.json").exists()


def test_only_an_earlier_result_is_replaced(tmp_path: Path) -> None:
    path, out = lines(tmp_path / "a.jsonl", {"text": LONG}, {"text": LONG}), tmp_path / "out"
    run(out, path)
    (out / "kept/old").touch()
    assert run(out, path).kept == 1
    assert [p.name for p in (out / "kept").iterdir()] == ["a.jsonl"]
    with pytest.raises(BuildError, match="cannot lie in the output folder"):
        run(out, out / "kept/a.jsonl")
    (out / "mine.txt").touch()
    with pytest.raises(BuildError, match=r"holds something else \(mine\.txt\)"):
        run(out, path)
    with pytest.raises(BuildError, match="it is a file"):
        run(path, lines(tmp_path / "b.jsonl", {"text": LONG}))
