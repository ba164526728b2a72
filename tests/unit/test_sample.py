"""The sample corpus holds what PLANTED.json says, and nothing it does not say goes wrong in it."""

import json
from collections import Counter
from functools import cache
from typing import Any

import pytest

from chimed.errors import RowError
from chimed.records import Body, Dialogue, Exam, Fact, Preference, shape_of
from chimed.sources import SAMPLE, discover
from chimed.sources.readers import find, rows, slices

PLANTED: dict[str, Any] = json.loads((SAMPLE / "PLANTED.json").read_text(encoding="utf-8"))
SOURCES = sorted(folder.name for folder in SAMPLE.iterdir() if folder.is_dir())


@cache
def corpus() -> tuple[dict[str, tuple[str, Body]], dict[str, str]]:
    """The records by id with their split, and the rejects by id with their reason."""
    records: dict[str, tuple[str, Body]] = {}
    rejects: dict[str, str] = {}
    for source in map(discover().__getitem__, SOURCES):
        files, unread = find(source, SAMPLE)
        assert not unread, unread
        for file in files:
            for number, row in (numbered for part in slices(source, file) for numbered in rows(source, part)):
                name = f"{source.name}/{file.name}#{number}"
                try:
                    if isinstance(row, RowError):
                        raise row
                    bodies = tuple(source.parse(row))
                except RowError as reject:
                    rejects[name] = reject.reason
                    continue
                for place, body in enumerate(bodies, 1):
                    records[name if len(bodies) == 1 else f"{name}/{place}"] = (file.split, body)
    return records, rejects


def words(body: Body) -> str:
    match body:
        case Dialogue():
            return "".join(turn.content for turn in body.turns).replace("\n", "")
        case Exam():
            return body.question + "".join(body.options)
        case _:
            return str(body)


def jaccard(one: str, other: str) -> float:
    a, b = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (one, other))
    return len(a & b) / len(a | b)


def test_rejects_are_those_planted() -> None:
    assert corpus()[1] == PLANTED["rejects"]


def test_every_shape_is_well_filled() -> None:
    records, _ = corpus()
    counts = Counter(shape_of(body) for _, body in records.values())
    assert counts["exam"] >= 50
    assert counts["dialogue"] >= 45
    assert counts["passage"] >= 10
    assert counts["preference"] >= 12
    heads = {
        source: {body.head for name, (_, body) in records.items() if isinstance(body, Fact) and name.startswith(source)}
        for source in ("xywy-kg", "medkg-triples")
    }
    assert len(heads["xywy-kg"]) >= 12
    assert heads["medkg-triples"] <= heads["xywy-kg"]


@pytest.mark.parametrize("group", PLANTED["exact_duplicates"], ids=lambda group: group[0])
def test_exact_duplicates(group: list[str]) -> None:
    records, _ = corpus()
    bodies = [records[name][1] for name in group]
    if isinstance(bodies[0], Fact):
        assert len({(body.head, body.relation, body.tail) for body in bodies if isinstance(body, Fact)}) == 1
    else:
        assert len({words(body) for body in bodies}) == 1


@pytest.mark.parametrize("pair", PLANTED["near_duplicates"], ids=lambda pair: pair[0])
def test_near_duplicates(pair: list[str]) -> None:
    records, _ = corpus()
    assert 0.8 <= jaccard(*(words(records[name][1]) for name in pair)) < 1


@pytest.mark.parametrize("leak", PLANTED["leaks"], ids=lambda leak: leak["train"])
def test_leaks(leak: dict[str, str]) -> None:
    records, _ = corpus()
    (train, trained), (test, asked) = records[leak["train"]], records[leak["evaluation"]]
    stems = [b.question if isinstance(b, Exam) else words(Dialogue(b.turns[:1])) for b in (trained, asked)]  # type: ignore[union-attr]
    assert (train, test) == ("train", "test")
    assert stems[0] == stems[1]


def test_the_planted_identity_card_has_a_right_checksum() -> None:
    number = "11010519491231002X"
    assert number in words(corpus()[0]["cmexam/train.csv#26"][1])
    weighed = sum(int(digit) * (1 << (17 - i)) % 11 for i, digit in enumerate(number[:17]))
    assert "10X98765432"[weighed % 11] == number[-1]


def test_placeholders_same_replies_and_scripts() -> None:
    records, _ = corpus()
    for name in PLANTED["placeholder_explanations"]:
        body = records[name][1]
        assert isinstance(body, Exam)
        assert body.explanation == ""
    for name in PLANTED["same_replies"]:
        body = records[name][1]
        assert isinstance(body, Preference)
        assert body.chosen == body.rejected
    assert all("血壓" in words(records[name][1]) for name in PLANTED["traditional_script"])
    for name in PLANTED["gb18030_files"]:
        with pytest.raises(UnicodeDecodeError):
            (SAMPLE / name).read_text(encoding="utf-8")


def test_the_sample_is_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 200_000
