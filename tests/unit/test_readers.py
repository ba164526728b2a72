"""Every oddity of a raw file ends as rows, a counted reject, or one sentence."""

import bz2
import gzip
import json
import tracemalloc
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chimed.errors import SourceError
from chimed.sources.readers import Slice, find, form, rows, slices
from chimed.sources.spec import Row, Source
from tests.unit.reading import QUESTIONS, detail, lines, put, read, source


def table(data: list[Row], name: str, tmp_path: Path) -> bytes:
    path = tmp_path / name
    if name.endswith("xlsx"):
        book = openpyxl.Workbook()
        for row in [list(data[0]), *[list(row.values()) for row in data]]:
            book.active.append(row)
        book.save(path)
    elif name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(data), path)
    else:
        new = pa.ipc.new_stream if name.endswith("stream") else pa.ipc.new_file
        with new(path, pa.Table.from_pylist(data).schema) as out:
            out.write_table(pa.Table.from_pylist(data))
    return path.read_bytes()


class TestFormsByContent:
    """The name of a file may lie."""

    @pytest.mark.parametrize(
        ("name", "data", "expected"),
        [
            ("a.json", lines(*QUESTIONS), "json-lines"),
            ("a.bak", lines(*QUESTIONS), "json-lines"),
            ("a.txt", json.dumps(QUESTIONS).encode(), "json"),
            ("a.json", json.dumps({"1": QUESTIONS[0], "2": QUESTIONS[1]}).encode(), "json"),
            ("a.csv", json.dumps(QUESTIONS[0], indent=1).encode(), "json"),
            ("a.jsonl", b'{"a": 1}\n{"a": 2\n{"a": 3\n', "json-lines"),
            ("a.txt", b"id,label\n51,0", "csv"),
            ("a.xlsx", "q,a\n头痛,休息\n".encode(), "csv"),
            ("a.txt", b"question_id,ans_id\n51,76\n52,77\n", "csv"),
            ("a.txt", b"id\tlabel\n51\t0\n", "csv"),
            ("a.tsv", "问\t答\n头痛\t休息\n".encode(), "csv"),
            ("a.txt", "头痛怎么办？,休息。\n发热,多喝水。\n".encode(), "text"),
            ("a.txt", "方名\t桂枝汤\n方名\t四逆汤\n".encode(), "text"),
            ("a.txt", "[1] 张三等. 头痛的治疗.\n".encode(), "text"),
            ("a.txt", "[注意]本方有毒\n".encode(), "text"),
            ("a.txt", "{注意} 本方有毒\n".encode(), "text"),
            ("a.txt", '["本草"]云：甘草味甘\n'.encode(), "text"),
            ("a.txt", "水痘由病毒引起，多见于儿童。\n".encode(), "text"),
            ("a.txt", b"%PDF-1.7 \xff", "foreign"),
            ("a.csv", b"x" * 257 + b"ustar" + b"\0" * 300, "foreign"),
            ("a.txt", b"", "empty"),
        ],
    )
    def test_text(self, tmp_path: Path, name: str, data: bytes, expected: str) -> None:
        assert form(source(), put(tmp_path, name, data)) == expected

    @pytest.mark.parametrize(
        ("made", "name", "expected"),
        [
            ("a.parquet", "a.csv", "parquet"),
            ("a.xlsx", "a.json", "xlsx"),
            ("a.file", "a.arrow", "arrow"),
            ("a.stream", "data-00000-of-00001.arrow", "arrow-stream"),
        ],
    )
    def test_binary(self, tmp_path: Path, made: str, name: str, expected: str) -> None:
        file = put(tmp_path, name, table(QUESTIONS, made, tmp_path))
        assert form(source(), file) == expected
        assert list(rows(source(), Slice(file))) == list(enumerate(QUESTIONS, 1))


class TestLineEnds:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("last", [True, False])
    def test_of_every_kind(self, tmp_path: Path, end: str, last: bool) -> None:
        tail = end if last else ""
        for name, text in {
            "a.txt": end.join(["头痛", "发热"]) + tail,
            "a.csv": end.join(["text,name", "头痛,a", "发热,a"]) + tail,
            "a.jsonl": end.join(['{"text":"头痛","name":"a"}', '{"text":"发热","name":"a"}']) + tail,
        }.items():
            expected = [(1, {"text": "头痛", "name": "a"}), (2, {"text": "发热", "name": "a"})]
            assert read(tmp_path, name, text.encode()) == expected

    def test_separators_that_are_no_line_ends(self, tmp_path: Path) -> None:
        text = "头痛\u2028发热\x0b咳嗽\x85"
        assert read(tmp_path, "a.txt", text.encode()) == [(1, {"text": text, "name": "a"})]
        assert read(tmp_path, "a.csv", f"q,a\n{text},1\n".encode()) == [(1, {"q": text, "a": "1"})]

    def test_blank_lines_keep_their_numbers(self, tmp_path: Path) -> None:
        assert [n for n, _ in read(tmp_path, "a.txt", "\n头痛\n \n\n发热\n".encode())] == [2, 5]
        assert [n for n, _ in read(tmp_path, "a.jsonl", b'{"a":1}\n\n{"a":2}\n')] == [1, 3]

    def test_paragraphs_and_files(self, tmp_path: Path) -> None:
        text = "\n一、病原学\r\n水痘病毒\n\n \n二、流行病学\n"
        found = read(tmp_path, "指南.txt", text.encode(), text="paragraphs")
        assert found == [
            (1, {"text": "一、病原学\n水痘病毒", "name": "指南"}),
            (2, {"text": "二、流行病学", "name": "指南"}),
        ]
        found = read(tmp_path, "指南.txt", text.encode(), text="file")
        assert found == [(1, {"text": text.replace("\r\n", "\n"), "name": "指南"})]
        bad = "一\n".encode() + b"\xff\n\n" + "二".encode()
        assert read(tmp_path, "a.txt", bad, text="paragraphs")[0] == (1, "bad-encoding")
        assert read(tmp_path, "a.txt", bad, text="file") == [(1, "bad-encoding")]


class TestCsv:
    def test_quotes(self, tmp_path: Path) -> None:
        data = 'q,a\n"头痛, ""剧烈""\n三天",休息\n发热,5" 针头\n'.encode()
        assert read(tmp_path, "a.csv", data) == [
            (1, {"q": '头痛, "剧烈"\n三天', "a": "休息"}),
            (2, {"q": "发热", "a": '5" 针头'}),
        ]

    @pytest.mark.parametrize("between", [",", "\t", ";", "|"])
    def test_delimiters(self, tmp_path: Path, between: str) -> None:
        data = f"q{between}a\n头痛{between}休息\n".encode()
        assert read(tmp_path, "a.csv", data) == [(1, {"q": "头痛", "a": "休息"})]

    def test_header(self, tmp_path: Path) -> None:
        assert read(tmp_path, "a.csv", b"\xef\xbb\xbfq, a,,,\n1,2,,,\n3,4\n5,6,,7,\n") == [
            (1, {"q": "1", "a": "2"}), (2, {"q": "3", "a": "4"}), (3, "wrong-column-count"),
        ]  # fmt: skip
        assert read(tmp_path, "a.csv", b",q\n0,1\n") == [(1, {"#1": "0", "q": "1"})]
        with pytest.raises(SourceError, match=r"a\.csv: the header has 'q' more than once"):
            read(tmp_path, "a.csv", b"q,a,q\n1,2,3\n")

    def test_cells_that_are_not_there(self, tmp_path: Path) -> None:
        found = read(tmp_path, "a.csv", b"q,a\n1\n1,2\n1,2,3\n\n4,\n")
        assert found == [
            (1, "wrong-column-count"), (2, {"q": "1", "a": "2"}), (3, "wrong-column-count"), (4, {"q": "4", "a": ""}),
        ]  # fmt: skip
        assert "found 3 cells, the header has 2" in detail(tmp_path, "a.csv", b"q,a\n1,2,3\n", "wrong-column-count")

    def test_a_quote_never_closed(self, tmp_path: Path) -> None:
        data = b'q,a\n1,2\n3,"4\n5,6\n7,8\n'
        assert read(tmp_path, "a.csv", data) == [(1, {"q": "1", "a": "2"}), (2, "unclosed-quote")]
        assert "row 2" in detail(tmp_path, "a.csv", data, "unclosed-quote")
        assert read(tmp_path, "a.csv", b'q,a\n1,"2"') == [(1, {"q": "1", "a": "2"})]

    def test_a_stray_carriage_return(self, tmp_path: Path) -> None:
        assert [row for _, row in read(tmp_path, "a.csv", b"q,a\n1\r1,2\n3,4\n")] == [
            "broken-csv",
            {"q": "3", "a": "4"},
        ]

    @pytest.mark.parametrize("field", ["one line", "many lines"])
    def test_a_field_beyond_memory(self, tmp_path: Path, field: str) -> None:
        body = b"x" * 100_000_000 if field == "one line" else b"xxxxxxxxx\n" * 4_000_000
        data = b'q,a\n1,2\n3,"' + body + b'"\n5,6\n'
        file = put(tmp_path, "a.csv", data)
        del data, body
        tracemalloc.start()
        found = Counter(getattr(row, "reason", "row") for _, row in rows(source(), Slice(file)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == {"row": 2, "field-too-large": 1}
        assert peak < 150_000_000


class TestSpreadsheets:
    def test_cells_and_sheets(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        for row in (["q", "n", "d", None], ["头痛", 3, date(2024, 5, 1), None], [], [None, 2.5, True], ["", None]):
            book.active.append(row)
        book.create_sheet("second").append(["q"])
        book["second"].append(["发热"])
        book.create_sheet("empty")
        book.save(tmp_path / "made.xlsx")
        assert read(tmp_path, "a.xlsx", (tmp_path / "made.xlsx").read_bytes()) == [
            (1, {"q": "头痛", "n": 3, "d": "2024-05-01T00:00:00"}),
            (3, {"q": "", "n": 2.5, "d": True}),
            (5, {"q": "发热"}),
        ]

    @pytest.mark.parametrize("made", ["a.xlsx", "a.parquet", "a.file", "a.stream"])
    @pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
    def test_cut_files_give_one_reject(self, tmp_path: Path, made: str, keep: float) -> None:
        data = table(QUESTIONS * 50, made, tmp_path)
        found = read(tmp_path, made, data[: int(len(data) * keep)])
        assert [type(row) for _, row in found if isinstance(row, str)] == [str]


class TestSlices:
    def test_cut_at_line_ends(self, tmp_path: Path) -> None:
        file = put(tmp_path, "a.jsonl", lines(*[{"i": i} for i in range(1000)]))
        parts = slices(source(), file, 1000)
        assert len(parts) > 8
        assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
        assert [item for part in parts for item in rows(source(), part)] == list(rows(source(), Slice(file)))

    @pytest.mark.parametrize(
        ("name", "data", "how"),
        [
            ("a.json", json.dumps(QUESTIONS * 99).encode(), {}),
            ("a.csv", b"q,a\n" + b"1,2\n" * 999, {}),
            ("a.txt", "头痛\n".encode("utf-16") * 999, {}),
            ("a.txt", "头痛\n\n".encode() * 999, {"text": "paragraphs"}),
            ("a.txt.gz", gzip.compress(b"".join(b"%d\n" % i for i in range(99_999))), {}),
            ("a.txt", b"\n" * 999, {}),
            ("a.txt", "\ufeff\u3000\n\n".encode() * 99, {}),
            ("a.txt", bz2.compress(b"".join(b"%d\n" % i for i in range(99_999)))[:5000], {}),
        ],
    )
    def test_what_cannot_be_cut_stays_whole(self, tmp_path: Path, name: str, data: bytes, how: dict[str, Any]) -> None:
        file = put(tmp_path, name, data)
        assert slices(source(**how), file, 100) == [Slice(file)]

    def test_all_slices_are_read_in_the_encoding_of_the_file(self, tmp_path: Path) -> None:
        text = "".join(f"{i} aspirin\n" for i in range(200)) + "孕妇发热可以喝姜茶吗\n头痛\n" * 20 + "联通\n" * 40
        file = put(tmp_path, "a.txt", text.encode("gb18030"))
        found = [row for part in slices(source(), file, 64) for _, row in rows(source(), part)]
        assert [row["text"] for row in found if isinstance(row, dict)] == text.split("\n")[:-1]


class TestDisk:
    def test_empty_files(self, tmp_path: Path) -> None:
        assert read(tmp_path, "a.txt", b"") == [(1, "empty-file")]
        assert read(tmp_path, "a.txt", b"\n\n \n") == [(1, "empty-file")]
        assert read(tmp_path, "a.csv", b"q,a\n") == [(1, "empty-file")]
        assert read(tmp_path, "a.csv", b"\xef\xbb\xbf") == [(1, "empty-file")]

    def test_a_file_that_changes(self, tmp_path: Path) -> None:
        file = put(tmp_path, "a.txt", b"1\n2\n")
        reading = rows(source(), Slice(file))
        next(reading)
        file.path.write_bytes(b"1\n2\n3\n")
        with pytest.raises(SourceError, match="changed while it was read"):
            list(reading)

    def test_a_file_that_is_gone(self, tmp_path: Path) -> None:
        file = put(tmp_path, "a.txt", b"1\n2\n")
        file.path.unlink()
        with pytest.raises(SourceError, match="the file is gone"):
            list(rows(source(), Slice(file)))
        file.path.mkdir()
        with pytest.raises(SourceError, match="a folder stands where a file is expected"):
            list(rows(source(), Slice(file)))


@pytest.mark.parametrize(
    ("name", "count", "rejects"),
    [
        ("huatuo26m", 6000, {}),
        ("xywy-kg", 8792, {}),
        ("medkg-triples", 329_311, {}),
        ("medmcqa", 4183, {}),
        ("explaincpe", 6857, {}),
        ("cmedqa2", 400_000, {}),
        ("disease-kg", 14_325, {"wrong-column-count": 11}),
        ("promptcblue", 19_425, {}),
        ("toyhom", 23_836, {}),
        ("cmexam", 6811 + 2000 + 9, {}),
        ("tcm-classics", 290_351, {"bad-encoding": 2, "nul-bytes": 1}),
    ],
)
def test_real_files(raw: Path, name: str, count: int, rejects: dict[str, int]) -> None:
    real = Source(
        name=name, title=name, homepage="", license="", files={"**": "train"}, parse=lambda _: (),
        shapes=("passage",), stages=("cpt",),
    )  # fmt: skip
    files, unread = find(real, raw)
    found = Counter(getattr(row, "reason", "row") for file in files for _, row in rows(real, Slice(file)))
    assert found == {"row": count, **rejects}
    assert not unread
