"""The shared forms: what circulates in several spellings is read alike, and conversations take turns."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.errors import RowError
from chimed.records import Preference, Turn
from chimed.sources import readers
from chimed.sources.archives import RawFile
from chimed.sources.forms import alpaca, reward, sharegpt, triple
from chimed.sources.spec import Row, Source

PAIR = Preference((Turn("user", "头晕怎么办？"),), "先量血压。", "不知道。")
SAID = [{"from": "human", "value": "头晕怎么办？"}]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "头晕怎么办？", "response_chosen": "先量血压。", "response_rejected": "不知道。"},
        {"prompt": "头晕怎么办？", "chosen": "先量血压。", "rejected": "不知道。"},
        {
            "prompt": [{"role": "user", "content": "头晕怎么办？"}],
            "chosen": [{"role": "user", "content": "头晕怎么办？"}, {"role": "assistant", "content": "先量血压。"}],
            "rejected": [{"role": "user", "content": "头晕怎么办？"}, {"role": "assistant", "content": "不知道。"}],
        },
        {"conversations": SAID, "chosen": "先量血压。", "rejected": "不知道。"},
        {
            "conversations": SAID,
            "chosen": {"from": "gpt", "value": "先量血压。"},
            "rejected": {"from": "gpt", "value": "不知道。"},
        },
        {"instruction": "头晕怎么办？", "input": "", "output": ["先量血压。", "不知道。"]},
    ],
)
def test_every_form_of_a_pair_reads_alike(row: Row) -> None:
    assert reward(row) == (PAIR,)


def test_a_ranking_gives_a_pair_for_each_two_neighbours() -> None:
    row = {"instruction": "头晕怎么办？", "input": "", "output": ["先量血压。", "躺下。", " ", "不知道。"]}
    pairs = reward(row)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("先量血压。", "躺下。"), ("躺下。", "不知道。")]
    assert {pair.prompt for pair in pairs} == {PAIR.prompt}


def test_what_went_before_stays_before() -> None:
    row = {"system": "你是医生。", "history": [["一", "二"]], "question": "三", "response_chosen": "四"}
    assert [turn.content for turn in reward({**row, "response_rejected": "五"})[0].prompt] == [
        "你是医生。",
        "一",
        "二",
        "三",
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "一", "good": "二"}, "unknown-columns"),
        ({"instruction": "一", "output": ["二"]}, "no-answer"),
        ({"instruction": "一", "output": ["二", "", None]}, "no-answer"),
        ({"conversations": [{"from": "gpt", "value": "一"}], "chosen": "二", "rejected": "三"}, "no-question"),
        ({"prompt": "一", "chosen": "https://example.com/1", "rejected": "三"}, "answer-is-url"),
    ],
)
def test_a_pair_that_is_none_is_rejected(row: Row, reason: str) -> None:
    with pytest.raises(RowError) as reject:
        reward(row)
    assert reject.value.reason == reason


def test_an_unknown_form_says_what_was_found_and_expected() -> None:
    with pytest.raises(RowError, match="found q, a; expected instruction, input, output"):
        alpaca({"q": "一", "a": "二"})


def test_system_turns_before_the_first_question_are_one() -> None:
    said = [("system", "你是医生。"), ("gpt", "您好"), ("system", "请简短。"), ("human", "牙疼"), ("gpt", "多久了？")]
    turns = sharegpt({"conversations": [{"from": who, "value": text} for who, text in said]}).turns
    assert [turn.content for turn in turns] == ["你是医生。\n请简短。", "牙疼", "多久了？"]


WORD = st.sampled_from(["", " ", "咳嗽", "三天了", "多喝水"])


@given(st.lists(st.tuples(st.sampled_from(["human", "gpt", "system"]), WORD), max_size=8))
@settings(max_examples=60, deadline=None)
def test_conversations_take_turns_and_end_with_the_assistant(said: list[tuple[str, str]]) -> None:
    try:
        turns = sharegpt({"conversations": [{"from": who, "value": text} for who, text in said]}).turns
    except RowError as reject:
        assert reject.reason == "no-answer"
        return
    assert turns[-1].role == "assistant"
    assert all(one.role != other.role for one, other in pairwise(turns))
    assert all(turn.content.strip() for turn in turns)


def test_a_relation_is_renamed_only_where_it_means_the_same() -> None:
    names = {"临床表现": "症状", "同义词": "别名"}
    assert triple({"head": "流感@@疾病", "relation": "临床表现", "tail": "发热@@症状"}, names).relation == "症状"
    assert triple({"head": "青霉素@@药物", "relation": "临床表现", "tail": "皮疹@@症状"}, names).relation == "临床表现"
    alias = triple({"head": "布洛芬@@药物", "relation": "同义词", "tail": "芬必得@@药物"}, names)
    assert (alias.relation, alias.head_type) == ("别名", "药物")


def test_blocks_begin_where_their_pattern_matches(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\nid=1\n甲\n\n乙\nid=x\nid=2\n\n", encoding="utf-8")
    source = Source("a", "", "", "", {}, lambda row: (), ("dialogue",), ("sft",), text="blocks", opens=r"id=\d+")
    file = RawFile("a.txt", path, "", "train", path.stat().st_size)
    found = [
        (number, row["text"]) for number, row in readers.rows(source, readers.Slice(file)) if isinstance(row, dict)
    ]
    assert found == [(1, "id=1\n甲\n\n乙\nid=x"), (2, "id=2\n")]
