"""The frame: shots really are in the prompt, drawn by the seed, and passages keep to their budget."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.errors import DataError
from qilin.evaluate import prompt
from qilin.evaluate.exam import Item

ASKED = Item("c/1", "c", "test", "首选药物是", ("阿司匹林", "青霉素", "地高辛"), "B")
POOL = [Item(f"c/v{n}", "c", "validation", f"问题{n}号", ("甲", "乙"), "AB"[n % 2]) for n in range(20)]
OPEN = Item("h/1", "h", "test", "头痛怎么办？", (), "多休息")


def test_shots_are_solved_turns_before_the_question() -> None:
    shots = prompt.draw(POOL, 3, [ASKED], seed=1)
    turns = prompt.messages(ASKED, shots)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3 + ["user"]
    for place, shot in enumerate(shots):
        assert shot.question in turns[2 * place]["content"]
        assert turns[2 * place + 1]["content"] == shot.answer
    assert ASKED.question in turns[-1]["content"]
    assert "A. 阿司匹林\nB. 青霉素\nC. 地高辛" in turns[-1]["content"]
    text = prompt.plain(turns)
    assert all(f"答案：{shot.answer}\n\n" in text for shot in shots)
    assert text.endswith("\n答案：")


def test_draw_hangs_on_seed_and_ids_alone() -> None:
    first = prompt.draw(POOL, 5, [ASKED], seed=1)
    assert first == prompt.draw(POOL[::-1], 5, [ASKED], seed=1)
    assert first[:2] == prompt.draw(POOL, 2, [ASKED], seed=1)
    assert first != prompt.draw(POOL, 5, [ASKED], seed=2)


def test_draw_leaves_out_what_is_asked_and_open_questions() -> None:
    drawn = prompt.draw([*POOL, OPEN], 19, [POOL[3]], seed=1)
    assert POOL[3] not in drawn
    assert OPEN not in drawn
    with pytest.raises(DataError, match="holds 19"):
        prompt.draw([*POOL, OPEN], 20, [POOL[3]], seed=1)


def test_passages_stand_in_the_question_with_their_numbers() -> None:
    shown = prompt.passages([("p/7", "题", "文一"), ("p/2", "", "文二")], 100)
    last = prompt.messages(ASKED, POOL[:1], shown)[-1]["content"]
    assert "[1] 题\n文一" in last
    assert "[2] 文二" in last
    assert last.endswith(prompt.messages(ASKED)[-1]["content"])


def test_an_open_question_is_asked_in_its_own_words_after_its_history() -> None:
    item = Item("h/1", "h", "test", "多久？", (), "一周", history=({"role": "user", "content": "头痛"},))
    assert [turn["content"] for turn in prompt.messages(item)] == ["头痛", "多久？"]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.text("甲乙 \n", max_size=8), st.text("甲乙丙 \n", max_size=30)), max_size=6),
    st.integers(0, 100),
)
def test_passages_keep_to_the_budget(texts: list[tuple[str, str]], budget: int) -> None:
    found = prompt.passages([(str(n), title, text) for n, (title, text) in enumerate(texts)], budget)
    assert sum(len(passage.block) for passage in found) <= budget
    assert [passage.number for passage in found] == list(range(1, len(found) + 1))
    assert [passage.id for passage in found] == [str(n) for n in range(len(found))]
    for passage, (_, text) in zip(found, texts, strict=False):
        assert passage.text
        assert text.strip().startswith(passage.text)
    for passage, (_, text) in zip(found[:-1], texts, strict=False):
        assert passage.text == text.strip()


def test_a_title_is_not_shown_twice() -> None:
    first, second = prompt.passages([("a", "百日咳", "百日咳多见于小儿。"), ("b", "感冒", "多喝水。")], 100)
    assert (first.block, second.block) == ("百日咳多见于小儿。", "感冒\n多喝水。")


def test_dump_is_json() -> None:
    assert json.loads(prompt.dump(prompt.messages(ASKED))) == prompt.messages(ASKED)
    assert len(prompt.digest()) == 64
