"""What passages were worth, against counts made by hand."""

from typing import Any

import pytest

from qilin.evaluate.exam import Item
from qilin.evaluate.grounding import cites, grounding
from qilin.evaluate.prompt import Passage
from qilin.evaluate.questions import Asked
from qilin.evaluate.stats import wilson

SHOWN = (Passage("p/1@0", 1, "", "甲"), Passage("p/2@0", 2, "", "乙"))


def asked(number: int, hit: bool | None, passages: tuple[Passage, ...] = SHOWN) -> Asked:
    options = () if hit is None else ("甲甲", "乙乙")
    return Asked(Item(f"c/{number}", "c", "test", "?", options, "A"), "c/test", "rag", 0, "[]", passages, hit)


def interval(k: int, n: int) -> dict[str, Any]:
    found = wilson(k, n)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def test_accuracy_is_told_for_hits_and_misses_with_the_closed_book_beside_it() -> None:
    own = [asked(0, True), asked(1, True), asked(2, True), asked(3, False), asked(4, False, ())]
    right = {"rag": [True, True, False, True, False], "closed": [True, False, False, False, True]}
    found = grounding(own, ["letters"], lambda arm, method: right[arm], [])
    assert found["hits"] == interval(3, 5)
    assert (found["n"], found["shown"], found["each"]) == (5, 4, 8 / 5)
    assert found["accuracy"]["letters"] == {
        "hit": {"accuracy": interval(2, 3), "closed": interval(1, 3)},
        "miss": {"accuracy": interval(1, 2), "closed": interval(1, 2)},
    }
    assert (found["replies"], found["cited"], found["unknown"]) == (0, None, None)


def test_a_part_without_items_and_an_arm_that_was_not_run_are_none() -> None:
    right = {"rag": [True], "closed": []}
    found = grounding([asked(0, True)], ["sets"], lambda arm, method: right[arm], [])
    assert found["accuracy"]["sets"] == {"hit": {"accuracy": interval(1, 1), "closed": None}, "miss": None}


def test_citations_count_where_passages_were_shown_and_a_reply_came() -> None:
    own = [asked(0, None), asked(1, None), asked(2, None), asked(3, None), asked(4, None, ())]
    replies = [
        {"reply": "见[2]"},
        {"reply": "见[1]和[7]"},
        {"reply": "多喝水"},
        {"failure": "too long"},
        {"reply": "[1]"},
    ]
    found = grounding(own, ["generation"], lambda arm, method: [], replies)
    assert found["replies"] == 3
    assert found["cited"] == interval(2, 3)
    assert found["unknown"] == interval(1, 3)
    assert found["hits"] is None
    assert found["accuracy"] == {}


@pytest.mark.parametrize(
    ("passages", "answer", "said"),
    [
        (SHOWN, {"reply": "据[2][9]"}, {"cited": ["p/2@0"], "unknown": [9]}),
        (SHOWN, {"failure": "no answer"}, {}),
        (SHOWN, {"scores": {"A": -1.0}}, {}),
        ((), {"reply": "据[1]"}, {}),
    ],
)
def test_items_say_what_a_reply_cites(
    passages: tuple[Passage, ...], answer: dict[str, Any], said: dict[str, Any]
) -> None:
    assert cites(asked(0, None, passages), answer) == said
