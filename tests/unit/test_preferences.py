"""Preference pairs from hand-written exam items, balance by length, and what gives chosen answers away in real ones."""

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chimed.dedup import exact_keys
from chimed.phrases import EXAM_ANSWER
from chimed.preferences import balanced, exam_pairs, ratio
from chimed.records import Exam, Record, to_table
from chimed.stages import COLUMNS

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "preference_giveaway.py"
ITEM = Exam("休克最常见的原因是", ("出血", "感染。", "缺氧", "过敏反应"), "B", "感染最常见（B对）。")


def table(*items: Exam) -> pa.Table:
    return to_table("exam", [Record("made", f"up.csv#{number}", "train", item) for number, item in enumerate(items)])


def pairs(*items: Exam) -> list[dict[str, Any]]:
    made = exam_pairs(table(*items))
    made.validate(full=True)
    assert made.schema == COLUMNS["dpo"]
    found: list[dict[str, Any]] = made.to_pylist()
    return found


def said(pair: dict[str, Any], side: str) -> str:
    (turn,) = pair[side]
    return str(turn["content"])


def named(answer: str) -> set[str]:
    """The letters that an answer names."""
    return {part[-1] for part in answer.split(". ")[:-1]}


def test_a_pair() -> None:
    (pair,) = pairs(ITEM)
    assert (pair["id"], pair["source"], pair["kind"]) == ("made/up.csv#0#pair", "made", "exam")
    assert [turn["role"] for side in ("prompt", "chosen", "rejected") for turn in pair[side]] == [
        "user",
        "assistant",
        "assistant",
    ]
    asked, chosen, rejected = (said(pair, side) for side in ("prompt", "chosen", "rejected"))
    assert "单项选择题" in asked and ITEM.question in asked
    lines = {line[3:]: line[0] for line in asked.split("\n") if line[1:3] == ". "}
    assert sorted(lines) == sorted(ITEM.options) and sorted(lines.values()) == list("ABCD")
    assert chosen.endswith(f"{lines['感染。']}. 感染。")
    assert any(rejected.endswith(f"{lines[wrong]}. {wrong}。") for wrong in ITEM.options if wrong != "感染。")
    assert chosen.partition(". ")[0][:-1] == rejected.partition(". ")[0][:-1]


def test_no_explanation_on_either_side() -> None:
    (pair,) = pairs(ITEM)
    assert "解析" not in said(pair, "prompt") and "理由" not in said(pair, "prompt")
    assert all("最常见" not in said(pair, side) for side in ("chosen", "rejected"))


def test_several_answers() -> None:
    for pair in pairs(*[Exam("可见于", ("甲证", "乙证", "丙证", "丁证", "戊证"), "ACE")] * 30):
        assert "多项选择题" in said(pair, "prompt")
        chosen, rejected = named(said(pair, "chosen")), named(said(pair, "rejected"))
        assert len(chosen) == len(rejected) == 3 and len(chosen & rejected) == 2


@pytest.mark.parametrize(
    "item",
    [
        Exam("可见于", ("甲", "乙", "丙"), "ABC"),
        Exam("可见于", ("甲", "乙", "以上都对"), "C"),
        Exam("可见于", ("甲", "乙", "丙", "以上均不是"), "A"),
        Exam("可见于", ("甲", "乙", "两者均有", "两者均无"), "C"),
        Exam("可见于", ("甲", "乙", "丙", "A+B", "A、B和C"), "D"),
        Exam("可见于", ("感染", "感染。", "出血"), "A"),
        Exam("可见于", ("5 mg", "5mg", "出血"), "C"),
    ],
)
def test_items_without_a_pair(item: Exam) -> None:
    assert pairs(item) == []
    assert [pair["id"] for pair in pairs(item, ITEM)] == ["made/up.csv#1#pair"]


@pytest.mark.parametrize("option", ["维生素A和D", "与阿托品两者并用", "CD4", "AB", "3个月以上", "B超"])
def test_options_that_only_look_as_if_they_spoke_of_others(option: str) -> None:
    assert len(pairs(Exam("可见于", (option, "甲", "乙"), "A"))) == 1


def test_signs_tell_options_apart() -> None:
    assert len(pairs(Exam("为", ("<5", ">5"), "A"))) == 1


def test_an_answer_that_is_no_option_gives_no_pair_in_silence() -> None:
    for answer in ("C", "", "a"):
        with pytest.raises(ValueError, match="no option"):
            pairs(ITEM, Exam("可见于", ("甲", "乙"), answer))


def test_no_letter_is_favoured() -> None:
    made = pairs(*[Exam("可见于", ("甲", "乙", "丙", "丁"), "C")] * 2000)
    for side in ("chosen", "rejected"):
        letters = Counter("".join(sorted(named(said(pair, side)))) for pair in made)
        assert sorted(letters) == list("ABCD")
        assert all(430 < count < 570 for count in letters.values()), letters
    both = Counter("".join(sorted(named(said(p, "chosen")))) + min(named(said(p, "rejected"))) for p in made)
    assert len(both) == 12 and all(120 < count < 215 for count in both.values()), both


def test_the_wrong_option_is_near_in_length_on_either_side() -> None:
    item = Exam("可见于", ("四个字的", "三字的", "这里有五个", "一", "这里有很多很多字"), "A")
    wrong = Counter(said(pair, "rejected").partition(". ")[2] for pair in pairs(*[item] * 2000))
    assert set(wrong) == {"三字的。", "这里有五个。"}
    assert 1400 < wrong["这里有五个。"] < 1600  # three of four


def test_every_wording_of_answers_is_used() -> None:
    made = pairs(*[ITEM] * 100)
    assert len({said(pair, "chosen").partition(". ")[0][:-1] for pair in made}) == len(EXAM_ANSWER)


def keys(count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return exact_keys(pa.array([str(number) for number in range(count)], pa.string()))[:, 0]


def test_balance_drops_what_is_farthest_from_equal_length() -> None:
    chosen = np.array([100, 50, 700, 600, 150, 95])
    rejected = np.full(6, 100)
    assert balanced(chosen, rejected, keys(6)).tolist() == [True, True, False, True, True, True]
    assert ratio(chosen, rejected) == 1.25


def test_balance_keeps_what_is_balanced() -> None:
    chosen = np.array([100, 50, 700])
    assert balanced(chosen, np.full(3, 100), keys(3)).all()


def test_balance_where_it_cannot_be_had() -> None:
    chosen, rejected = np.array([400, 200, 300]), np.full(3, 100)
    assert balanced(chosen, rejected, keys(3)).tolist() == [False, True, False]
    assert balanced(chosen[:0], rejected[:0], keys(0)).tolist() == []


@pytest.fixture(scope="module")
def giveaway() -> dict[str, Any]:
    pytest.importorskip("sklearn")
    return runpy.run_path(str(BENCHMARK))


def test_the_classifier_sees_what_is_given_away(giveaway: dict[str, Any]) -> None:
    made = exam_pairs(
        table(*[Exam("可见于", ("甲证", f"乙{n}", f"丙{n}"), "A") for n in map(chr, range(0x4E00, 0x4E3C))])
    )
    found = giveaway["giveaway"](made)
    assert (found.pairs, found.ratio, found.longer) == (60, 1.0, 0.5)
    assert found.pair > 0.9  # the same option is right each time


@pytest.mark.parametrize("number", [0, 1])
def test_answers_of_real_items_give_nothing_away(giveaway: dict[str, Any], raw: Path, number: int) -> None:
    source, file = giveaway["FILES"][number]
    found = giveaway["giveaway"](giveaway["pairs_of"](raw, source, file))
    assert found.pairs > 5_000
    assert found.pair < 0.56 and found.text < 0.56  # at most .60 is asked for
    assert 0.47 < found.longer < 0.53 and 0.98 < found.ratio < 1.02
