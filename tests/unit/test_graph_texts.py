"""How the texts of a graph read: what was found wrong when fifty documents, questions and pairs of each were read."""

import re
from collections.abc import Iterable

import pyarrow as pa
import pytest

from chimed import phrases
from chimed.graph import paths
from chimed.keys import key_table
from chimed.records import Fact, Record, to_table
from chimed.sources.relations import VARIANT, fact
from tests.unit import graphs


def table(facts: Iterable[Fact]) -> pa.Table:
    rows = to_table("fact", [Record("k", f"up#{number}", "train", body) for number, body in enumerate(facts)])
    return rows.append_column("source", pa.repeat("k", len(rows)))


def texts(facts: Iterable[Fact]) -> dict[str, str]:
    return {row["title"]: row["text"] for row in graphs.documents(table(facts)).to_pylist()}


def told(relation: str, tail: str) -> str:
    (answer,) = graphs.questions(table([fact("湿疹", relation, tail)]))["answer"].to_pylist()
    return str(answer)


def test_names_that_hold_a_comma_are_parted_by_a_semicolon() -> None:
    facts = [fact("湿疹", "预防措施", tail) for tail in ("注意休息，劳逸结合", "少食辛辣")]
    assert "注意休息，劳逸结合；少食辛辣" in texts(facts)["湿疹"]
    assert "甲；乙、丙" in texts(fact("湿疹", "检查", tail) for tail in ("甲", "乙、丙"))["湿疹"]
    assert "红斑、丘疹" in texts(fact("湿疹", "症状", tail) for tail in ("红斑", "丘疹"))["湿疹"]


def test_a_list_of_lists_is_no_answer_to_choose() -> None:
    fields = {"皮肤科": "皮疹", "眼科": "视力"}
    facts = [fact(f"{field[0]}病{n}号", "科室", field) for field in fields for n in range(6)]
    facts += [fact(f"{field[0]}病{n}号", "症状", f"{word}、{n}") for field, word in fields.items() for n in range(6)]
    assert "症状" not in graphs.corrupted(table(facts))["relation"].to_pylist()


def test_an_overview_leads_a_document_and_stands_plain_further_down() -> None:
    heads = [f"病{number}" for number in range(40)]
    facts = [body for head in heads for body in (fact(head, "概述", "是一种病。"), fact(head, "科室", "内科"))]
    lines = [line for text in texts(facts).values() for line in text.split("\n")[1:] if "是一种病" in line]
    assert lines and set(lines) == {"是一种病。"}


def test_what_a_document_lists_under_one_name_is_not_listed_again() -> None:
    facts = [fact("湿疹", relation, "某软膏") for relation in ("常用药物", "推荐药物")]
    facts += [fact("湿疹", relation, "绿豆粥") for relation in ("宜吃", "推荐食谱")]
    facts += [fact("湿疹", "检查", tail) for tail in ("颅脑CT检查", "颅脑CT", "血清砷（As）", "血清砷")]
    text = texts(facts)["湿疹"]
    assert [text.count(name) for name in ("某软膏", "绿豆粥", "颅脑CT", "血清砷")] == [1, 1, 1, 1]
    answers = "".join(graphs.questions(table(facts))["answer"].to_pylist())
    assert answers.count("某软膏") == 2 and answers.count("绿豆粥") == 2


def test_heads_that_only_a_number_of_upstream_tells_apart_are_told_of_and_not_asked_about() -> None:
    heads = [f"补汤（方{number}）" for number in range(6)]
    facts = [fact(head, "组成", f"药{number}", VARIANT) for number, head in enumerate(heads)]
    facts += [fact(f"单方{number}", "组成", f"药{number % 3}", "方剂") for number in range(6)]
    assert set(heads) <= texts(facts).keys()
    for made in (graphs.questions(table(facts)), graphs.corrupted(table(facts))):
        assert not any("（方" in str(row) for row in made.to_pylist())
    assert VARIANT in phrases.UNASKED


def test_no_list_of_heads_claims_to_be_whole() -> None:
    for _, answers in paths._REVERSE.values():
        assert all(re.search("{heads}.{0,3}等|等.{0,4}{heads}", answer) or "{heads}等" in answer for answer in answers)


def test_no_drug_is_inferred_over_two_edges() -> None:
    assert "常用药物" not in paths._TWO_HOP and "推荐药物" not in paths._TWO_HOP


@pytest.mark.parametrize(
    ("relation", "tail", "expected"),
    [
        ("易感人群", "所有人群", "(任何人都可能得湿疹|湿疹可发生于任何人群)。"),
        ("易感人群", "男性多见，儿童少见", "湿疹的发病人群：男性多见，儿童少见。"),
        ("易感人群", "一般发生于成人", "湿疹一般发生于成人。"),
        ("易感人群", "发病年龄为20-40岁", "湿疹的发病年龄为20-40岁。"),
        ("治愈率", "外科手术治愈率约为35%", "湿疹的外科手术治愈率约为35%。"),
        ("治愈率", "无法根治", "湿疹无法根治。"),
        ("治疗周期", "终身治疗", "湿疹需要终身治疗。"),
        ("患病比例", "本病罕见，发病率约为1%", "湿疹罕见，发病率约为1%。"),
    ],
)
def test_values_become_sentences_of_their_kind(relation: str, tail: str, expected: str) -> None:
    assert re.fullmatch(expected, told(relation, tail))


def test_no_tail_of_a_pair_can_be_told_from_the_words_of_its_head() -> None:
    facts = [
        fact(f"{kind}骨{part}", relation, tail)
        for number, kind in enumerate("甲乙丙丁戊己庚辛")
        for part in ("裂", "折")
        for relation, tail in (("别名", f"{kind}骨伤"), ("别名", f"{part}损{number}"), ("组成", f"{kind}骨{part}粉"))
    ]
    pairs = graphs.corrupted(table(facts)).to_pylist()
    assert {row["relation"] for row in pairs} == {"别名"}
    assert not any("骨伤" in row[reply] for row in pairs for reply in ("chosen", "rejected"))


def test_advice_repeats_only_on_the_same_disease() -> None:
    advice = "保持心情舒畅，饮食清淡，多吃新鲜蔬菜和水果，适当锻炼身体，增强体质，注意休息，不要过劳，定期到医院复查。"
    facts = [fact(head, "护理", advice) for head in ("湿疹", "湿 疹", "痔")] + [fact("湿疹", "预防", advice)]
    group = key_table("fact", table(facts), True, None, lambda _: None)["group"].to_pylist()
    assert group[0] == group[1] and len({group[0], *group[2:]}) == 3
