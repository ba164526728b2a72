"""What BM25 counts: folding and tokens."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.rag.tokens import fold, joined, tokenizer

LETTERS = st.sampled_from('高血壓压病 aB１²Ｃ，。？\n+-:()"~^*\u3000的é①Ⅱ℃丨𠮷')
TEXTS = st.lists(st.text(LETTERS, max_size=30), max_size=5)


def folded(*texts: str) -> list[str]:
    found: list[str] = fold(pa.array(texts, pa.string())).to_pylist()
    return found


def test_width_case_and_script_do_not_count() -> None:
    assert folded("高血壓，能吃黨參嗎？ ＨｂＡ１ｃ") == folded("高血压 能吃党参吗? hba1c")


def test_blanks_stand_where_something_else_stood() -> None:
    assert folded(" 血压：120/80 mmHg。 ", "？！", "") == ["血压 120 80 mmhg", "", ""]


@settings(deadline=None, max_examples=80)
@given(TEXTS)
def test_folding_again_changes_nothing_and_rows_do_not_meet(texts: list[str]) -> None:
    once = folded(*texts)
    assert folded(*once) == once
    assert [folded(text)[0] for text in texts] == once


@settings(deadline=None, max_examples=80)
@given(TEXTS)
def test_a_token_never_holds_a_blank(texts: list[str]) -> None:
    cut = tokenizer("bigrams")
    for text in folded(*texts):
        tokens = cut(text)
        assert all(token and not token.isspace() and " " not in token for token in tokens)
        assert set("".join(tokens)) == set(text.replace(" ", ""))


def test_a_run_of_characters_gives_each_and_each_pair() -> None:
    assert tokenizer("bigrams")("百日咳 多") == ["百", "日", "咳", "百日", "日咳", "多"]
    assert tokenizer("bigrams")("ph7 4的hba1c") == ["ph7", "4", "的", "hba1c"]


def test_words_are_those_of_the_dictionary() -> None:
    pytest.importorskip("rjieba", reason="words need the extra eval")
    assert tokenizer("rjieba")("高血压 患者能吃党参吗") == ["高血压", "患者", "能", "吃", "党参", "吗"]


def test_a_title_that_opens_the_text_is_not_said_twice() -> None:
    titles, texts = ["感冒", "感冒", "", "感冒"], ["多喝水", "感冒多喝水", "多喝水", ""]
    expected = ["感冒\n多喝水", "感冒多喝水", "多喝水", "感冒\n"]
    assert joined(pa.array(titles), pa.array(texts)).to_pylist() == expected
