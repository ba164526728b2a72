"""JSON of every layout, whole and damaged: what is broken costs only itself."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from chimed.errors import RowError
from chimed.sources import json_rows
from chimed.sources.readers import Slice, rows
from tests.unit.reading import QUESTIONS, detail, put, read, source


def test_json_lines(tmp_path: Path) -> None:
    data = b'{"a":1}\n{"a":2,\n[3]\n{"a":NaN}\n{"a":"\\ud800"}\n{"a":"\xff"}\n"x"\n{"a":6}'
    found = read(tmp_path, "a.jsonl", data)
    assert [row for _, row in found if isinstance(row, str)] == [
        "broken-json", "not-an-object", "bad-encoding", "bad-encoding", "not-an-object",
    ]  # fmt: skip
    assert [n for n, row in found if isinstance(row, dict)] == [1, 4, 8]
    assert "at column 8" in detail(tmp_path, "a.jsonl", b'{"a":1}\n{"a":2,\n{"a":1}\n', "broken-json")


def test_damaged_first_line(tmp_path: Path) -> None:
    found = read(tmp_path, "a.jsonl", b'"a": 1}\n{"a": 2}\n{"a": 3}\n')
    assert found == [(1, "broken-json"), (2, {"a": 2}), (3, {"a": 3})]


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}"])
def test_what_would_exhaust_a_parser(tmp_path: Path, deep: bytes) -> None:
    found = read(tmp_path, "a.jsonl", b'{"a":1}\n' + deep + b'\n{"a":2}\n')
    assert [n for n, row in found if row in ({"a": 1}, {"a": 2})] == [1, 3]
    found = read(tmp_path, "a.json", b'[{"a":1},\n' + deep)
    assert found[0] == (1, {"a": 1})


def test_layouts(tmp_path: Path) -> None:
    one, two = QUESTIONS
    chat = {"id": 1, "conversations": [{"from": "human", "value": "头痛"}, {"from": "gpt", "value": "休息"}]}
    for layout, expected in [
        (QUESTIONS, QUESTIONS),
        ({"1": one, "2": two}, [{**one, "#key": "1"}, {**two, "#key": "2"}]),
        ({"source": "nhc", "entries": QUESTIONS}, [{**row, "#key": "entries"} for row in QUESTIONS]),
        ({"内科": [one], "外科": [two]}, [{**one, "#key": "内科"}, {**two, "#key": "外科"}]),
        (one, [one]),
        (chat, [chat]),
        ([], []),
    ]:
        for indent in (None, 1):
            data = json.dumps(layout, ensure_ascii=False, indent=indent).encode()
            assert [row for _, row in read(tmp_path, "a.json", data)] == (expected or ["empty-file"])


@pytest.mark.parametrize("between", ["\n", ",\n", "", "\n\n"])
def test_objects_one_behind_the_other(tmp_path: Path, between: str) -> None:
    data = between.join(json.dumps(row, ensure_ascii=False, indent=2) for row in [*QUESTIONS, *QUESTIONS]).encode()
    assert read(tmp_path, "a.json", data) == list(enumerate([*QUESTIONS, *QUESTIONS], 1))


def test_a_key_that_stands_twice_gives_both(tmp_path: Path) -> None:
    assert [row for _, row in read(tmp_path, "a.json", b'{"x":{"a":1},"x":{"a":2}}')] == [
        {"a": 1, "#key": "x"}, {"a": 2, "#key": "x"},
    ]  # fmt: skip


def test_a_truncated_array(tmp_path: Path) -> None:
    whole = json.dumps([{"id": i, "t": [{"x": "头痛"}]} for i in range(50)], ensure_ascii=False).encode()
    for cut in (1, 2, 5, 9, 12, 25, 33, 700):
        found = read(tmp_path, "a.json", whole[:-cut])
        kept = [row["id"] for _, row in found if isinstance(row, dict)]
        assert kept == list(range(len(kept)))
        assert len(kept) >= 50 - 1 - cut // 30
        assert [row for _, row in found if isinstance(row, str)] in (["broken-json"], ["bad-encoding"])


@pytest.mark.parametrize(
    "broken",
    [
        b'{"id":"x" "t":1}',
        b'{"id":"x,"t":1}',
        b'{"id":"x","t":',
        b'{"id":x}',
        b'{"id":"x","t":[{"x":1}',
        b"{,}",
        b"nil",
    ],
)
@pytest.mark.parametrize("between", [b",", b",\n  ", b" ,\n"])
def test_a_broken_element_costs_only_itself(tmp_path: Path, broken: bytes, between: bytes) -> None:
    good = [b'{"id":%d,"t":[{"x":"]}"},{"x":2}]}' % i for i in range(6)]
    parts = [*good[:3], broken, *good[3:]]
    found = read(tmp_path, "a.json", b"[" + between.join(parts) + b"]")
    assert [row["id"] for _, row in found if isinstance(row, dict)] == list(range(6))
    assert {row for _, row in found if isinstance(row, str)} == {"broken-json"}
    members = [b'"k%d": ' % i + part for i, part in enumerate(parts)]
    found = read(tmp_path, "b.json", b"{" + between.join(members) + b"}")
    assert [row["id"] for _, row in found if isinstance(row, dict)] == list(range(6))


def test_thousands_of_broken_elements(tmp_path: Path) -> None:
    parts = [b'{"id":%d,"t":"\xe5\xa4\xb4%s}' % (i, b'"' if i % 2 else b"") for i in range(20_000)]
    found = Counter(
        row if isinstance(row, str) else "row"
        for _, row in read(tmp_path, "a.json", b'[{"id":-1},' + b",".join(parts) + b',{"id":-2}]')
    )
    assert found == {"row": 10_002, "broken-json": 10_000}


def test_elements_that_are_no_rows(tmp_path: Path) -> None:
    found = read(tmp_path, "a.json", b'[{"a":1}, 2, "x", null, [3], {"a":NaN}, {"a":"\\ud800"}, {"a":"\xff"}]')
    assert [row for _, row in found if isinstance(row, str)] == ["not-an-object"] * 4 + ["bad-encoding"] * 2


def test_an_element_over_the_limit(tmp_path: Path) -> None:
    huge = b'{"a":"' + b"x" * 40_000_000 + b'"}'
    found = read(tmp_path, "a.json", b'[{"a":1},\n' + huge + b',\n{"a":2}]')
    assert found == [(1, {"a": 1}), (2, "row-too-large"), (3, {"a": 2})]
    found = read(tmp_path, "a.jsonl", b'{"a":1}\n' + huge + b'\n{"a":2}\n')
    assert found == [(1, {"a": 1}), (2, "row-too-large"), (3, {"a": 2})]
    found = read(tmp_path, "a.txt", b"1\n" + huge + b"\n2\n", text="file")
    assert found == [(1, "row-too-large")]


def test_large_arrays_stream(tmp_path: Path) -> None:
    row = json.dumps({"q": "头痛怎么办？" * 20, "t": [{"x": 1}] * 5}, ensure_ascii=False)
    file = put(tmp_path, "a.json", f"[{','.join([row] * 60_000)}]".encode())
    tracemalloc.start()
    assert sum(1 for _ in rows(source(), Slice(file))) == 60_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.size > 25_000_000
    assert peak < 20_000_000


def test_a_first_value_over_the_limit_leaves_those_behind_it() -> None:
    big = b'{"q": "' + "多喝水。".encode() * 8_500_000 + b'"}\n'
    chunks = [big[at : at + (1 << 20)] for at in range(0, len(big), 1 << 20)]
    found = list(json_rows.values(iter([*chunks, b'{"q": "a"}\n{"q": "b"}\n'])))
    assert isinstance(found[0], RowError)
    assert found[0].reason == "row-too-large"
    assert found[1:] == [{"q": "a"}, {"q": "b"}]
