"""What is asked: copies among passages are passed over, and a hit is what its definition says."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.errors import RecipeError
from qilin.evaluate.exam import Item
from qilin.evaluate.prompt import Passage
from qilin.evaluate.questions import candidates, distinct, held
from qilin.evaluate.recipe import load_recipe

ITEM = Item("c/1", "c", "test", "首选药物是", ("阿司匹林", "青霉素G", "地高辛", "铁"), "B")
LONG = "基因治疗的技术要点在基因治疗的诸多策略中研究最多，最成熟并应用于临床试验的是基因增强的策略。"


def shown(*texts: str, title: str = "") -> list[Passage]:
    return [Passage(f"p@{number}", number, title, text) for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("answer", "texts", "hit"),
    [
        ("B", ["可用青霉素Ｇ治疗"], True),  # width does not count
        ("B", ["可用青 霉素 g 治疗"], True),  # nor case and blanks
        ("B", ["可用青黴素G治療"], True),  # nor script
        ("B", ["可用青霉素V治疗"], False),
        ("B", [], False),
        ("AC", ["阿司匹林", "地高辛"], False),  # one passage has to hold all
        ("AC", ["阿司匹林与地高辛"], True),
        ("D", ["缺铁时补铁"], False),  # one character stands anywhere
        ("AD", ["阿司匹林和铁"], False),
    ],
)
def test_a_hit_is_a_passage_that_holds_every_right_option(answer: str, texts: list[str], hit: bool) -> None:
    item = Item(ITEM.id, ITEM.source, ITEM.split, ITEM.question, ITEM.options, answer)
    assert held(item, shown(*texts)) is hit


def test_a_title_can_hold_an_option_but_none_runs_over_into_the_text() -> None:
    assert held(ITEM, shown("用于感染。", title="青霉素G"))
    assert not held(ITEM, shown("素G用于感染。", title="青霉"))


def test_copies_under_other_titles_are_passed_over() -> None:
    texts = [LONG, LONG.replace("，", ","), f"{LONG}（表1）", "头痛多由感冒引起。", LONG[5:40]]
    assert distinct(texts, 5) == [0, 3]
    assert distinct(texts, 1) == [0]
    assert distinct(["药", "药", "。", "！"], 4) == [0, 2]


def test_a_text_that_says_more_than_those_before_it_is_taken() -> None:
    assert distinct([LONG[:20], LONG], 2) == [0, 1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("甲乙丙丁，戊己", max_size=25), max_size=8), st.integers(1, 8))
def test_what_is_passed_over_says_nothing_new(texts: list[str], most: int) -> None:
    taken = distinct(texts, most)
    assert len(taken) <= most
    assert taken == sorted(set(taken))
    assert taken[:1] == ([0] if texts else [])
    again = distinct([texts[place] for place in taken], most)
    assert again == list(range(len(taken)))
    everything = distinct(texts, len(texts) or 1)
    assert everything[: len(taken)] == taken


@pytest.mark.parametrize(("method", "count"), [("letters", 4), ("sets", 15), ("generation", 0)])
def test_candidates_are_all_there_is_to_say(method: str, count: int) -> None:
    found = candidates(ITEM, method)  # type: ignore[arg-type]
    assert len(set(found)) == len(found) == count
    assert all(set(chosen) <= set("ABCD") for chosen in found)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("0", "data.rows: input should be greater than 0, found 0"),
        ("[1]", "data.rows: input should be a valid integer, found [1]"),
        ("{cmexam/test: 0}", "data.rows.cmexam/test: input should be greater than 0, found 0"),
        ("{cmmlu/test: 9}", "data.rows: cmmlu/test is none of data.sets"),
    ],
)
def test_rows_are_a_number_or_one_a_set(tmp_path: Path, rows: str, fault: str) -> None:
    recipe = "{stage: eval, baseline: random, output_dir: x, data: {path: o, sets: [cmexam/test], rows: %s}}"
    (tmp_path / "eval.yaml").write_text(recipe % rows, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "eval.yaml")
    assert caught.value.faults == (fault,)
    (tmp_path / "eval.yaml").write_text(recipe % "{cmexam/test: 9}", encoding="utf-8")
    assert load_recipe(tmp_path / "eval.yaml").data.rows == {"cmexam/test": 9}
