"""Citations are read from the forms that models write, and nothing else is taken for one."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.evaluate.prompt import Passage
from qilin.rag.citations import citations, mentions

SHOWN = tuple(Passage(f"book/{number}@0", number, "题", "文") for number in (1, 2, 3))

# reply, the numbers of the passages it cites, the numbers that were never shown
REPLIES: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    # brackets
    ("百日咳多见于小儿[1]。", (1,), ()),
    ("百日咳多见于小儿【1】。", (1,), ()),
    ("百日咳多见于小儿［２］。", (2,), ()),
    ("百日咳多见于小儿〔3〕。", (3,), ()),
    ("应多饮水[2]，注意休息[1]，再饮水[2]。", (2, 1), ()),
    ("应多饮水[1][3]。", (1, 3), ()),
    ("应多饮水[1,2]。", (1, 2), ()),
    ("应多饮水[1，2、3]。", (1, 2, 3), ()),
    ("应多饮水[3;1]。", (3, 1), ()),
    ("应多饮水【1和3】。", (1, 3), ()),
    ("应多饮水[1 2]。", (1, 2), ()),
    ("应多饮水[1-3]。", (1, 2, 3), ()),
    ("应多饮水[1～2]。", (1, 2), ()),
    ("应多饮水[1至3]。", (1, 2, 3), ()),
    ("应多饮水[ 1 ]。", (1,), ()),
    ("应多饮水[^1]，休息[#2]。", (1, 2), ()),
    ("应多饮水\\[1\\]。", (1,), ()),
    ("见[1](https://example.org)。", (1,), ()),
    ("**多喝水**【2】\n- 休息[01]\n", (2, 1), ()),
    # by name
    ("多见于小儿（资料1）。", (1,), ()),
    ("根据资料1，多见于小儿。", (1,), ()),
    ("参考资料 2 指出应多饮水。", (2,), ()),
    ("参考资料：1、2", (1, 2), ()),
    ("参考资料：[3]", (3,), ()),
    ("多饮水（参考资料[1]、[2]）。", (1, 2), ()),
    ("根据资料【2】可知多饮水。", (2,), ()),
    ("资料1和资料3都提到发热。", (1, 3), ()),
    ("见资料1、2和3。", (1, 2, 3), ()),
    ("资料1-3均支持。", (1, 2, 3), ()),
    ("[资料2]支持。", (2,), ()),
    ("[1, 资料3]支持。", (1, 3), ()),
    ("资料一指出多饮水，资料三的说法不同。", (1, 3), ()),
    ("资料一、二均提到发热。", (1, 2), ()),
    ("第一条资料提到发热。", (1,), ()),
    ("第1、3条资料提到发热。", (1, 3), ()),
    ("2号资料提到发热。", (2,), ()),
    ("依据编号1。", (1,), ()),
    ("（编号：2）", (2,), ()),
    ("编号为3的资料提到发热。", (3,), ()),
    ("文献2报道，来源：1", (2, 1), ()),
    ("As Source 1 and 2 say, drink water (ref. 3).", (1, 2, 3), ()),
    ("资料1例如提到发热，资料2类似。", (1, 2), ()),
    ("根据资料1，2型糖尿病应控制饮食。", (1,), ()),
    # numbers that were never shown
    ("多饮水[4]。", (), (4,)),
    ("多饮水[1][7]，休息[9,2]。", (1, 2), (7, 9)),
    ("根据资料8。", (), (8,)),
    ("根据资料5-6。", (), (5, 6)),
    ("多饮水[2-5]。", (2, 3), (5,)),
    ("多饮水[0]。", (), (0,)),
    ("第五条资料提到发热。", (), (5,)),
    # nothing is cited
    ("", (), ()),
    ("答案是B。", (), ()),
    ("应选[A]，不选【B】。", (), ()),
    ("资料A不支持。", (), ()),
    ("见指南[2020]和（2019）。", (), ()),
    ("据文献2018年报道，资料2021。", (), ()),
    ("（1）多饮水；(2)休息；1. 复诊 2、化验", (), ()),
    ("1. 多饮水\n2. 休息\n3. 复诊", (), ()),
    ("血糖[3.9-6.1]mmol/L，心率[60-100]次/分，白细胞[4-10]。", (), ()),
    ("服[5mg]，减[10%]。", (), ()),
    ("临床资料60例，病史资料3份，收集资料2份。", (), ()),
    ("根据3条资料，资料一般，资料一致，资料十分完整，资料三方面。", (), ()),
    ("参考资料：1. 《内科学》第9版", (), ()),
    ("参考资料\n1. 《内科学》\n2. 《外科学》", (), ()),
    ("维生素B12，CO2，T4，第1天，一号病房。", (), ()),
    ("<think>资料1可能有关[2]</think>多饮水[3]。", (3,), ()),
]


@pytest.mark.parametrize(("reply", "cited", "unknown"), REPLIES, ids=[reply[:30] for reply, *_ in REPLIES])
def test_a_reply_cites(reply: str, cited: tuple[int, ...], unknown: tuple[int, ...]) -> None:
    found = citations(reply, SHOWN)
    assert found.cited == tuple(f"book/{number}@0" for number in cited)
    assert found.unknown == unknown


def test_a_year_that_is_a_number_of_a_passage_is_one() -> None:
    assert citations("见[2020]。", [Passage("a/1@0", 2020, "", "文")]).cited == ("a/1@0",)


def test_without_passages_nothing_is_cited() -> None:
    assert citations("见[1]。", ()).unknown == (1,)


def test_a_passage_that_was_shown_twice_is_cited_once() -> None:
    shown = [Passage("a/1@0", 1, "", "文"), Passage("a/1@0", 2, "", "文")]
    assert citations("[2][1]", shown).cited == ("a/1@0",)


def test_mentions_stand_where_the_numbers_are() -> None:
    reply = "多饮水【１，２】，见资料 3；范围[1-3]。"
    found = mentions(reply, {1, 2, 3})
    assert [reply[mention.start : mention.end] for mention in found] == ["１", "２", "3", "1-3"]
    assert [mention.numbers for mention in found] == [(1,), (2,), (3,), (1, 2, 3)]


PIECES = st.sampled_from([*"[]【】（）资料第条号编,，、-~ \n0123456789一二三十ABC年例和", "参考资料", "见", "</think>"])


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=30).map("".join), st.sets(st.integers(0, 12), max_size=4))
def test_whatever_is_cited_stands_in_the_reply(reply: str, shown: set[int]) -> None:
    passages = [Passage(f"a/{number}@0", number, "", "文") for number in sorted(shown)]
    found = citations(reply, passages)
    assert not set(found.unknown) & shown
    assert set(found.cited) <= {passage.id for passage in passages}
    assert len(set(found.cited)) == len(found.cited)
    spans = [(mention.start, mention.end) for mention in mentions(reply, shown)]
    assert all(0 <= start < end <= len(reply) for start, end in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.sampled_from(["[{}]", "【{}】", "（资料{}）", "参考资料 {}，"]),
)
def test_every_form_names_the_same_numbers(numbers: list[int], form: str) -> None:
    reply = "".join(f"多饮水{form.format(number)}。" for number in numbers)
    passages = [Passage(f"a/{number}@0", number, "", "文") for number in range(1, 6)]
    found = citations(reply, passages)
    wanted = dict.fromkeys(numbers)
    assert found.cited == tuple(f"a/{number}@0" for number in wanted if number <= 5)
    assert found.unknown == tuple(number for number in wanted if number > 5)
