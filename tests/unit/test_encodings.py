"""The encoding of a file is found out; bytes that do not decode cost their row and no other."""

import json
from collections import Counter
from pathlib import Path

import pytest

from chimed.errors import SourceError
from tests.unit.reading import QUESTIONS, detail, lines, read


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "gb18030"])
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_is_found_out(tmp_path: Path, encoding: str, name: str) -> None:
    text = {
        "a.csv": 'q,a\n头痛怎么办？,休息，多喝水。\n发热三天,"建议就医\n查血常规"\n',
        "a.json": json.dumps(QUESTIONS, ensure_ascii=False, indent=1),
        "a.jsonl": lines(*QUESTIONS).decode(),
    }[name]
    assert [row for _, row in read(tmp_path, name, text.encode(encoding))] == QUESTIONS


def test_one_bad_byte_costs_one_row(tmp_path: Path) -> None:
    good = ["水痘由病毒引起，多见于儿童。".encode()] * 100_000
    good[77_776] = "水".encode() + b"\xff\xe5"
    found = read(tmp_path, "a.txt", b"\n".join(good))
    assert len(found) == 100_000
    assert found[77_776] == (77_777, "bad-encoding")
    assert Counter(row for _, row in found if isinstance(row, str)) == {"bad-encoding": 1}
    assert "bytes ff behind 1 characters" in detail(tmp_path, "a.txt", b"\n".join(good), "bad-encoding")


@pytest.mark.parametrize("form_", ["lines", "csv", "json"])
def test_gb18030_behind_megabytes_of_ascii(tmp_path: Path, form_: str) -> None:
    plain, han = "a" * 99, "孕妇发热可以喝姜茶吗"
    texts = [plain] * 15_000 + [han] * 10
    data = {
        "lines": "\n".join(texts),
        "csv": "text\n" + "\n".join(texts),
        "json": json.dumps([{"text": text} for text in texts], ensure_ascii=False),
    }[form_].encode("gb18030")
    found = read(tmp_path, {"lines": "a.txt", "csv": "a.csv", "json": "a.json"}[form_], data)
    assert [row["text"] for _, row in found if isinstance(row, dict)] == texts


@pytest.mark.parametrize("at", range((1 << 20) - 4, (1 << 20) + 3))
def test_a_character_across_chunks(tmp_path: Path, at: int) -> None:
    for encoding in ("gb18030", "utf-8"):
        text = "a" * at + "孕妇发热可以喝姜茶吗"
        assert read(tmp_path, "a.txt", text.encode(encoding)) == [(1, {"text": text, "name": "a"})]


@pytest.mark.parametrize("text", ["血压偏高", "頭痛三日，宜服此湯。", "€ 20 元", "café", "свинья здорова"])
def test_short_files(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, "a.txt", text.encode()) == [(1, {"text": text, "name": "a"})]


def test_what_is_no_known_encoding_is_rejected_not_garbled(tmp_path: Path) -> None:
    big5 = "頭痛三日，宜服此湯。發熱者加黃芩。".encode("big5")
    assert read(tmp_path, "a.txt", big5) == [(1, "bad-encoding")]
    text = big5.decode("big5")
    assert read(tmp_path, "a.txt", big5, encoding="big5") == [(1, {"text": text, "name": "a"})]


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the encoding 'gb2313' is unknown"):
        read(tmp_path, "a.txt", b"x", encoding="gb2313")


def test_latin_letters_do_not_become_chinese(tmp_path: Path) -> None:
    data = b"Meniere's disease\nM\xe9ni\xe8re's disease\nvertigo\n"
    assert [row for _, row in read(tmp_path, "a.txt", data)][1] == "bad-encoding"


def test_bad_bytes_in_gb18030(tmp_path: Path) -> None:
    han = "孕妇发热可以喝姜茶吗".encode("gb18030")
    assert [n for n, row in read(tmp_path, "a.txt", han + b"\n" + han + b"\xff\n" + han) if row == "bad-encoding"] == [
        2
    ]


def test_unpaired_surrogates_in_utf16(tmp_path: Path) -> None:
    data = b"\xff\xfe" + "头痛\n".encode("utf-16-le") + b"\x00\xd8\n\0" + "发热".encode("utf-16-le")
    assert [row if isinstance(row, str) else row["text"] for _, row in read(tmp_path, "a.txt", data)] == [
        "头痛", "bad-encoding", "发热",
    ]  # fmt: skip


def test_nuls(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", b"\0" * 235_102) == [(1, "nul-bytes")]
    assert "235,102" in detail(tmp_path, "a.txt", b"\0" * 235_102, "nul-bytes")
    assert read(tmp_path, "a.txt", b"\0" * 3_000_000) == [(1, "nul-bytes")]
    assert read(tmp_path, "b.txt", b"\0" * 3_000_000 + b"\nab\n") == [
        (1, "nul-bytes"),
        (2, {"text": "ab", "name": "b"}),
    ]
    assert [row for _, row in read(tmp_path, "a.csv", b"q,a\n1,2\n3,\0\n5,6\n")][1] == "nul-bytes"
    assert [row for _, row in read(tmp_path, "a.jsonl", b'{"a":1}\n{"a":"\0"}\n{"a":2}\n')][1] == "nul-bytes"
    assert [row for _, row in read(tmp_path, "a.json", b'[{"a":1},\n{"a":"\0"},\n{"a":2}]')][1] == "nul-bytes"
