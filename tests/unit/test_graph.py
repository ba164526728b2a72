"""Documents, questions and corrupted facts made of hand-written facts, and some of a real graph."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import reduce
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed import graph, phrases
from chimed.errors import RowError
from chimed.graph import corrupt, merge, paths
from chimed.graph.sections import PER_SENTENCE, SENTENCES
from chimed.graph.sets import Numbers, Ranges
from chimed.graph.truth import keys
from chimed.records import Fact, Record, to_table
from chimed.sources.relations import RELATIONS, fact
from chimed.sources.xywy_kg import SOURCE
from tests.unit import graphs


def table(facts: Iterable[tuple[str, Fact]]) -> pa.Table:
    """Facts of sources, numbered in order, as the build hands them on."""
    records = [Record(source, f"up.txt#{number}", "train", body) for number, (source, body) in enumerate(facts)]
    return to_table("fact", records).append_column("source", pa.array([r.source for r in records], pa.string()))


WHOOPING = [
    ("b-kg", fact("百日咳", "概述", "百日咳是百日咳杆菌所致的急性呼吸道传染病。")),
    ("b-kg", fact("百日咳", "症状", "阵发性咳嗽")),
    ("b-kg", fact("百日咳", "症状", "鸡鸣样吸气声")),
    ("b-kg", fact("百日咳", "医保", "否")),
    ("b-kg", fact("百日咳", "治愈率", "98%")),
    ("b-kg", fact("百日咳", "易感人群", "多见于小儿")),
    ("a-kg", fact("百日咳", "症状", "阵发性咳嗽")),
    ("a-kg", fact("百日咳", "传染方式", "呼吸道传播")),
    ("a-kg", fact("哮喘", "医保", "是")),
]


def document(facts: Iterable[tuple[str, Fact]], head: str) -> dict[str, str]:
    rows: dict[str, dict[str, str]] = {row["title"]: row for row in graphs.documents(table(facts)).to_pylist()}
    return rows[head]


def answers(facts: Iterable[tuple[str, Fact]]) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in graphs.questions(table(facts)).to_pylist()}


def test_a_document_merges_the_sources_of_an_entity() -> None:
    found = document(WHOOPING, "百日咳")
    assert (found["id"], found["source"]) == ("a-kg/graph#百日咳", "a-kg")
    for said in ("急性呼吸道传染病。", "鸡鸣样吸气声", "98%", "多见于小儿", "呼吸道传播"):
        assert said in found["text"]
    assert found["text"].count("阵发性咳嗽") == 1
    assert len(graphs.documents(table(WHOOPING))) == 2


def test_yes_and_no_become_sentences() -> None:
    told = answers(WHOOPING)
    assert told["b-kg/graph#百日咳#医保"].startswith("百日咳不")
    assert "不" not in told["a-kg/graph#哮喘#医保"]
    assert answers([("k", fact("流感", "传染方式", "无传染性"))]).popitem()[1] in ("流感没有传染性。", "流感不会传染。")
    assert answers([("k", fact("流感", "易感人群", "无特定人群"))]).popitem()[1].startswith("流感")


def test_where_sources_contradict_each_other_one_speaks() -> None:
    facts = [("a", fact("哮喘", "医保", "否")), ("b", fact("哮喘", "医保", "是")), ("a", fact("哮喘", "医保", "是"))]
    assert next(iter(answers(facts).values())).startswith("哮喘不")
    facts = [("a", fact("哮喘", "治愈率", "80%")), ("b", fact("哮喘", "治愈率", "20%"))]
    assert "20%" not in document(facts, "哮喘")["text"]


def test_of_two_values_of_one_source_one_speaks() -> None:
    facts = [("k", fact("哮喘", "治愈率", "20%")), ("k", fact("哮喘", "治愈率", "70%"))]
    assert "70%" not in document(facts, "哮喘")["text"]
    assert "20%" in answers(facts)["k/graph#哮喘#治愈率"]


def test_an_abbreviation_that_one_head_alone_claims_shares_its_document() -> None:
    facts = [
        ("k", fact("先天性心脏病", "别名", "先心病")),
        ("k", fact("先天性心脏病", "科室", "心外科")),
        ("k", fact("先心病", "症状", "气促")),
    ]
    assert "气促" in document(facts, "先天性心脏病")["text"]
    assert len(graphs.documents(table(facts))) == 1
    claimed_twice = [*facts, ("k", fact("室间隔缺损", "别名", "先心病"))]
    assert len(graphs.documents(table(claimed_twice))) == 3


@pytest.mark.parametrize(
    ("head", "alias"),
    [
        ("原发性肝癌", "肝癌"),
        ("急性胃炎", "急性腐蚀性胃炎"),
        ("垂体危象与垂体卒中", "垂体危象"),
        ("夜盲症", "维生素A缺乏病"),
    ],
)
def test_parts_and_kinds_of_a_disease_stay_apart(head: str, alias: str) -> None:
    facts = [("k", fact(head, "别名", alias)), ("k", fact(alias, "科室", "内科"))]
    assert len(graphs.documents(table(facts))) == 2


def test_the_name_that_goes_stays_as_an_alias() -> None:
    facts = [
        ("k", fact("先心病", "别名", "先天性心脏病")),
        ("k", fact("先天性心脏病", "科室", "心外科")),
        ("k", fact("先天性心脏病", "症状", "气促")),
    ]
    assert "先心病" in document(facts, "先天性心脏病")["text"]


def test_long_lists_are_told_in_sentences_and_cut_with_a_note() -> None:
    many = [("k", fact("哮喘", "症状", f"症状{number:02d}号")) for number in range(50)]
    text = document(many, "哮喘")["text"]
    assert all(sentence.count("、") < PER_SENTENCE for sentence in text.split("。"))
    assert text.count("号") == PER_SENTENCE * SENTENCES
    assert text.endswith("以上列出36项，资料中共有50项。")
    assert "以上" not in document(many[:36], "哮喘")["text"]


def test_prose_is_a_paragraph_and_answers_as_it_stands() -> None:
    prose = "(一)发病原因\n遗传与环境。\n(二)机制\n气道炎症。"
    facts = [("k", fact("哮喘", "病因", prose)), ("k", fact("哮喘", "科室", "呼吸内科"))]
    assert answers(facts)["k/graph#哮喘#病因"] == prose
    lines = document(facts, "哮喘")["text"].split("\n")
    assert "(一)发病原因" in lines
    assert any("呼吸内科" in line and "气道" not in line for line in lines)


def test_a_relation_of_several_patterns_can_have_prose() -> None:
    assert answers([("mine", Fact("当归", "归经", "归心、肝、脾", "中药", "text"))]).popitem()[1] == "归心、肝、脾"
    assert document([("mine", Fact("当归", "归经", "归心、肝、脾", "中药", "text"))], "当归")["text"].endswith("脾")


def test_relations_of_a_foreign_graph_have_generic_wordings() -> None:
    facts = [
        ("mine", Fact("当归", "归经", "肝经", "中药", "经络")),
        ("mine", Fact("当归", "归经", "心经。", "中药", "经络")),
        ("mine", Fact("当归", "炮制", "洗净，切片，晒干。", "中药", "text")),
    ]
    rows = {row["relation"]: row for row in graphs.questions(table(facts)).to_pylist()}
    assert "当归" in rows["归经"]["question"] and "归经" in rows["归经"]["question"]
    assert rows["归经"]["answer"].endswith("肝经、心经。")
    assert rows["炮制"]["answer"] == "洗净，切片，晒干。"


def test_every_relation_has_wordings_of_its_kind() -> None:
    assert set(phrases.WORDINGS) == set(RELATIONS)
    told = {name for group in phrases.PARAGRAPHS.values() for name in group}
    assert told == set(RELATIONS)
    for name, wording in phrases.WORDINGS.items():
        assert (RELATIONS[name].tail == "text") == (wording.form != "list")
        assert wording.told[-1][0] == "" and len(wording.asked) >= 3
        for template in (*wording.asked, *(sentence for _, sentences in wording.told for sentence in sentences)):
            assert template == "{tails}" or "{head}" in template


def test_slices_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = table(WHOOPING)
    whole = graphs.documents(facts), graphs.questions(facts)
    monkeypatch.setattr(merge, "SLICE", 1)
    assert graphs.documents(facts).equals(whole[0])
    assert graphs.questions(facts).equals(whole[1])


def test_nothing_gives_nothing() -> None:
    assert graphs.documents(table([])).schema == graph.DOCUMENTS
    assert graphs.questions(table([])).schema == graph.QUESTIONS


# Diseases of three departments, with symptoms of their own.
FIELDS = {"皮肤科": "皮疹", "眼科": "视力", "骨科": "关节"}
DISEASES = [
    ("k", body)
    for field, word in FIELDS.items()
    for number in range(8)
    for body in (
        fact(f"{field[0]}病{number}号", "科室", field),
        *(fact(f"{field[0]}病{number}号", "症状", f"{word}{sign}") for sign in (f"甲{number}", f"乙{number % 4}")),
    )
]


def test_corrupted_facts_are_false_and_of_one_make() -> None:
    known = {(body.head, body.tail) for _, body in DISEASES}
    pairs = graphs.corrupted(table(DISEASES)).to_pylist()
    assert {row["relation"] for row in pairs} == {"科室", "症状"}
    for row in pairs:
        assert row["id"] == f"k/graph#{row['title']}#{row['relation']}#corrupted"
        tails = {body.tail for _, body in DISEASES if body.relation == row["relation"]}
        true, false = ({tail for tail in tails if tail in row[reply]} for reply in ("chosen", "rejected"))
        assert all((row["title"], tail) in known for tail in true)
        assert not any((row["title"], tail) in known for tail in false)
        assert len(true) == len(false) > 0
        frames = [
            reduce(lambda text, tail: text.replace(tail, ""), tails, row[reply]) for reply in ("chosen", "rejected")
        ]
        assert frames[0] == frames[1]
        assert len(row["chosen"]) == len(row["rejected"])


def test_tails_are_false_as_often_as_true() -> None:
    pairs = graphs.corrupted(table(DISEASES)).to_pylist()
    for tail in FIELDS:
        true, false = (sum(tail in row[reply] for row in pairs) for reply in ("chosen", "rejected"))
        assert abs(true - false) <= 2


def test_heads_without_a_department_neither_get_false_replies_nor_take_them_from_others() -> None:
    """Their facts, of the same tails and many times as many, change no pair."""
    signs = sorted({body.tail for _, body in DISEASES if body.relation == "症状"})
    bare = [
        ("k", fact(f"{kind}候", "症状", tail)) for kind in ("甲", "乙", "丙", "丁") for tail in [*signs, f"{kind}象"]
    ]
    alone, beside = (graphs.corrupted(table(facts)).to_pylist() for facts in (DISEASES, [*DISEASES, *bare]))
    assert beside == alone


def test_what_any_source_or_kin_knows_is_never_false() -> None:
    everything = [("other", fact("皮病0号", "并发症", f"视力甲{number}")) for number in range(8)]
    everything += [("other", fact("骨病0号", "别名", "皮病0号"))]
    rows = graphs.corrupted(table([*DISEASES, *everything])).to_pylist()
    told = [row["rejected"] for row in rows if row["title"] == "皮病0号" and row["relation"] == "症状"]
    assert told
    assert not any(word in reply for reply in told for word in ("视力甲", "关节甲0", "关节乙0"))


def test_pairs_hang_on_the_facts_alone() -> None:
    facts = table(DISEASES)
    backwards = facts.take(pa.array(range(len(facts) - 1, -1, -1)))
    assert graphs.corrupted(facts).equals(graphs.corrupted(backwards))


def test_forbidden_food_is_the_wrong_answer_to_what_is_good() -> None:
    facts = [
        ("k", fact("痛风", "宜吃", "黄瓜")),
        ("k", fact("痛风", "忌吃", "啤酒")),
        ("k", fact("痛风", "忌吃", "黄瓜")),
    ]
    pairs = {row["relation"]: row for row in graphs.corrupted(table(facts)).to_pylist()}
    assert not pairs  # 黄瓜 is said to be both
    pairs = {row["relation"]: row for row in graphs.corrupted(table(facts[:2])).to_pylist()}
    assert "黄瓜" in pairs["宜吃"]["chosen"] and "啤酒" in pairs["宜吃"]["rejected"]
    assert "啤酒" in pairs["忌吃"]["chosen"] and "黄瓜" in pairs["忌吃"]["rejected"]


def test_relations_where_absence_proves_nothing_are_not_corrupted() -> None:
    assert not {"治疗方法", "预防措施", "致病因素", "推荐食谱"} & (corrupt.WRONG.keys() | corrupt.OPPOSED.keys())
    assert {*corrupt.WRONG, *corrupt.OPPOSED} <= set(RELATIONS)
    assert keys(pa.array(["阿莫西林胶囊", "注射用阿莫西林"])).to_pylist() == ["阿莫西林"] * 2


def forms(facts: Iterable[tuple[str, Fact]]) -> dict[str, list[dict[str, str]]]:
    rows = graphs.questions(table(facts)).to_pylist()
    return {form: [row for row in rows if row["form"] == form] for form in paths.FORMS}


def test_a_share_of_questions_goes_against_the_arrow_and_over_two_edges() -> None:
    chain = [("k", fact(f"皮病{number}号", "并发症", f"眼病{number}号")) for number in range(8)]
    found = forms([*DISEASES, *chain])
    total = sum(map(len, found.values()))
    assert 0 < len(found["reverse"]) + len(found["signs"]) <= paths.REVERSE_SHARE * total
    assert 0 < len(found["two-hop"]) <= paths.TWO_HOP_SHARE * total
    names = {body.head for _, body in DISEASES}
    for row in found["reverse"]:
        heads = {body.head for _, body in [*DISEASES, *chain] if body.tail == row["title"]}
        assert {name for name in names if name in row["answer"].replace(row["title"], "")} == heads
    for row in found["two-hop"]:
        assert row["title"] in row["question"] and "眼病" in row["question"]


def test_signs_that_another_disease_has_too_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "REVERSE_SHARE", 0.8)
    monkeypatch.setattr(paths, "HEADS", (9, 9))
    shared = [("k", fact(head, "症状", sign)) for head in ("甲病", "乙病") for sign in ("红斑", "瘙痒", "脱屑")]
    assert not forms(shared)["signs"]
    own = [*shared, ("k", fact("乙病", "症状", "水疱")), ("k", fact("乙病", "症状", "乙病面容"))]
    (row,) = forms(own)["signs"]
    assert row["title"] == "乙病" and "水疱" in row["question"] and "乙病" in row["answer"]
    assert "乙病" not in row["question"]


NAMES = ["百日咳", "肺炎", "小儿肺炎", "心", "x", "肺炎（方1）", "阿莫西林片", "儿科", "。", "（）"]
GRAPHS = st.lists(
    st.builds(
        Fact,
        st.sampled_from([*NAMES, "先心病", "先天性心脏病"]),
        st.sampled_from([*RELATIONS, "自拟"]),
        st.sampled_from([*NAMES, "先心病", "先天性心脏病"]),
        st.sampled_from(["疾病", "中药", ""]),
        st.sampled_from(["text", "症状", "科室"]),
    ),
    max_size=60,
)


@settings(max_examples=30, deadline=None)
@given(GRAPHS, st.randoms(use_true_random=False))
def test_texts_hang_on_the_facts_and_not_on_their_order(bodies: list[Fact], chance: Random) -> None:
    facts = table(("k", body) for body in bodies)
    other = facts.take(pa.array(chance.sample(range(len(facts)), len(facts)), pa.int64()))
    for make in (graphs.documents, graphs.questions, graphs.corrupted):
        made = make(facts)
        assert made.equals(make(other))
        assert pc.count_distinct(made["id"]).as_py() == len(made)
    pairs = graphs.corrupted(facts).to_pylist()
    assert all(row["chosen"] != row["rejected"] for row in pairs)


def real_facts(raw: Path) -> list[tuple[str, Fact]]:
    """Some of the facts of xywy-kg."""
    facts: list[tuple[str, Fact]] = []
    for path in sorted((raw / "xywy-kg").glob("medical_1*.json")):
        for row in json.loads(path.read_text("utf-8")).values():
            if isinstance(row, dict) and row.get("gaishu_info"):
                with suppress(RowError):
                    facts += [("xywy-kg", body) for body in SOURCE.parse(row) if isinstance(body, Fact)]
    return facts


def test_corrupted_facts_of_a_real_graph_are_false_in_it(raw: Path) -> None:
    facts = real_facts(raw)
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, body in facts:
        known[body.head, body.relation].add(body.tail)
    pairs = graphs.corrupted(table(facts)).to_pylist()
    assert len(pairs) > 0.5 * len({body.head for _, body in facts})
    for row in pairs[:: len(pairs) // 500]:
        true = known[row["title"], row["relation"]]
        # A tail of one character can stand in any word.
        assert not any(tail in row["rejected"].replace(row["title"], "") for tail in true if len(tail) > 1), row
        assert any(tail in row["chosen"] for tail in true)
    lengths = [sum(len(row[reply]) for row in pairs) for reply in ("chosen", "rejected")]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)


def test_openings_of_a_real_graph_vary(raw: Path) -> None:
    facts = real_facts(raw)
    documents = graphs.documents(table(facts))
    assert pc.count_distinct(documents["id"]).as_py() == len(documents)
    openings = Counter(row["text"].replace(row["title"], "@")[:5] for row in documents.to_pylist())
    assert openings.most_common(1)[0][1] <= 0.10 * len(documents)
    direct = [row for row in graphs.questions(table(facts)).to_pylist() if row["form"] == "direct"]
    asked = {row["question"].replace(row["title"], "@") for row in direct}
    assert len(asked) >= 3 * len({body.relation for _, body in facts})


NUMBERS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**62)), max_size=60).map(
    lambda all_: np.array(all_, int)
)


@given(NUMBERS, NUMBERS)
def test_numbers_are_a_set(known: np.ndarray, asked: np.ndarray) -> None:
    assert Numbers(known).hold(asked).tolist() == np.isin(asked, known).tolist()
    seen, new = set(known.tolist()), []
    for number in asked.tolist():
        new.append(number not in seen)
        seen.add(number)
    assert Numbers(known, len(asked)).add(asked).tolist() == new
    lists = Ranges.of(np.zeros(len(known), int), known % 7, 2)
    one = np.array([any(value * 41 + term in known for value in known % 7) for term in range(41)], bool)
    owners, terms = np.repeat([0, 1], 41), np.tile(np.arange(41), 2)
    assert Numbers(known).link(lists, owners, terms, 41).tolist() == [*one.tolist(), *[False] * 41]
    assert merge.distinct(known).tolist() == sorted(set(known.tolist()))
