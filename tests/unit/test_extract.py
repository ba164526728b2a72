"""Letters read from free replies: a hand-written set with the expected letters, and laws that hold for any reply."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.evaluate.extract import letters

GOLDEN = Path(__file__).resolve().parents[1] / "golden_answers"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for path in sorted(GOLDEN.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()
]
OPTIONS = ["心绞痛", "急性心肌梗死", "主动脉夹层", "肺栓塞", "急性心包炎"]
PIECES = [
    *"ABCDEFab",
    *OPTIONS,
    "答案",
    "选",
    "不",
    "：",
    "、",
    "，",
    "。",
    "\n",
    " ",
    "是",
    "或",
    "项",
    "正确",
    "错误",
    "the answer is ",
    "**",
]
LETTER_SETS = st.sets(st.sampled_from("ABCDE"), min_size=1).map(lambda chosen: "".join(sorted(chosen)))
FRAMES = [
    "{}",
    "答案：{}",
    "正确答案是{}。",
    "患者HIV阳性，CT示占位，故选{}。",
    "**答案：{}**",
    "The answer is {}.",
    "\\boxed{{{}}}",
]


def test_the_golden_set_is_large() -> None:
    assert len(ROWS) >= 120
    assert len({(row["reply"], *row["options"]) for row in ROWS}) == len(ROWS)
    assert sum(row["expected"] is None for row in ROWS) >= 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["reply"][:30])
def test_golden_answers(row: dict[str, Any]) -> None:
    assert letters(row["reply"], row["options"]) == row["expected"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["reply"][:30])
def test_white_space_changes_nothing(row: dict[str, Any]) -> None:
    border = r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])"
    for reply in ("\n\n  " + row["reply"] + " \n", re.sub(border, " ", row["reply"]), row["reply"].replace(" ", "  ")):
        assert letters(reply, row["options"]) == row["expected"]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.integers(2, 5))
@settings(deadline=None, max_examples=300)
def test_never_a_letter_beyond_the_options(reply: str, count: int) -> None:
    found = letters(reply, OPTIONS[:count])
    assert found is None or (found and set(found) <= set("ABCDE"[:count]) and list(found) == sorted(set(found)))


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_text_can_be_read(reply: str) -> None:
    found = letters(reply, OPTIONS)
    assert found is None or set(found) <= set("ABCDE")


@given(LETTER_SETS, st.sampled_from(FRAMES), st.sampled_from(["", "、", ",", "，"]))
@settings(deadline=None, max_examples=150)
def test_what_is_written_is_read(answer: str, frame: str, between: str) -> None:
    assert letters(frame.format(between.join(answer)), OPTIONS) == answer


@given(st.permutations(OPTIONS), st.integers(0, 4))
@settings(deadline=None, max_examples=50)
def test_the_text_of_an_option_is_its_letter(options: list[str], place: int) -> None:
    for frame in ("{}", "{}。", "最可能的诊断是{}。", "答案：{}", "应选{}。"):
        assert letters(frame.format(options[place]), options) == "ABCDE"[place]


def test_items_have_ten_options_at_most() -> None:
    with pytest.raises(ValueError, match="at most 10"):
        letters("A", [str(number) for number in range(11)])
    assert letters("答案：J", [f"选项内容{number}" for number in range(10)]) == "J"
    assert letters("A", []) is None


def test_letters_are_not_sought_in_thoughts() -> None:
    assert letters("<think>答案：A</think>", OPTIONS) is None
    assert letters("<think>答案：A", OPTIONS) is None


@pytest.mark.parametrize(
    "reply", ["不" + "应当" * 40 + "对A", "答案" + "应该" * 40 + "对A", "A" + "可能" * 40, "A或" * 400, "A\n" * 900]
)
def test_replies_that_repeat_themselves_are_read_in_time(reply: str) -> None:
    started = time.process_time()
    letters(reply, OPTIONS)
    assert time.process_time() - started < 5
