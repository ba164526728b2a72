"""Documents and questions made of hand-written facts of two sources."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from chimed import graph, phrases
from chimed.records import Fact, Record, to_table
from chimed.sources.relations import RELATIONS, fact


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
    rows: dict[str, dict[str, str]] = {row["title"]: row for row in graph.documents(table(facts)).to_pylist()}
    return rows[head]


def answers(facts: Iterable[tuple[str, Fact]]) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in graph.questions(table(facts)).to_pylist()}


def test_a_document_merges_the_sources_of_an_entity() -> None:
    found = document(WHOOPING, "百日咳")
    assert (found["id"], found["source"]) == ("a-kg/graph#百日咳", "a-kg")
    for said in ("急性呼吸道传染病。", "鸡鸣样吸气声", "98%", "多见于小儿", "呼吸道传播"):
        assert said in found["text"]
    assert found["text"].count("阵发性咳嗽") == 1
    assert len(graph.documents(table(WHOOPING))) == 2


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


def test_long_lists_are_told_in_sentences_and_cut_with_a_note() -> None:
    many = [("k", fact("哮喘", "症状", f"症状{number:02d}号")) for number in range(50)]
    text = document(many, "哮喘")["text"]
    assert all(sentence.count("、") < graph.PER_SENTENCE for sentence in text.split("。"))
    assert text.count("号") == graph.PER_SENTENCE * graph.SENTENCES
    assert text.endswith("以上列出36项，资料中共有50项。")
    assert "以上" not in document(many[:36], "哮喘")["text"]


def test_prose_is_a_paragraph_and_answers_as_it_stands() -> None:
    prose = "(一)发病原因\n遗传与环境。\n(二)机制\n气道炎症。"
    facts = [("k", fact("哮喘", "病因", prose)), ("k", fact("哮喘", "科室", "呼吸内科"))]
    assert answers(facts)["k/graph#哮喘#病因"] == prose
    lines = document(facts, "哮喘")["text"].split("\n")
    assert "(一)发病原因" in lines
    assert any("呼吸内科" in line and "气道" not in line for line in lines)


def test_relations_of_a_foreign_graph_have_generic_wordings() -> None:
    facts = [
        ("mine", Fact("当归", "归经", "肝经", "中药", "经络")),
        ("mine", Fact("当归", "归经", "心经。", "中药", "经络")),
        ("mine", Fact("当归", "炮制", "洗净，切片，晒干。", "中药", "text")),
    ]
    rows = {row["relation"]: row for row in graph.questions(table(facts)).to_pylist()}
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
    whole = graph.documents(facts), graph.questions(facts)
    monkeypatch.setattr(graph, "SLICE", 1)
    assert graph.documents(facts).equals(whole[0])
    assert graph.questions(facts).equals(whole[1])


def test_nothing_gives_nothing() -> None:
    assert graph.documents(table([])).schema == graph.DOCUMENTS
    assert graph.questions(table([])).schema == graph.QUESTIONS


def test_openings_of_a_real_graph_vary(raw: Path) -> None:
    import json

    from chimed.sources.xywy_kg import SOURCE

    facts: list[tuple[str, Fact]] = []
    for path in sorted((raw / "xywy-kg").glob("medical_1*.json")):
        for row in json.loads(path.read_text("utf-8")).values():
            if isinstance(row, dict) and row.get("gaishu_info"):
                facts += [("xywy-kg", body) for body in SOURCE.parse(row) if isinstance(body, Fact)]
    documents = graph.documents(table(facts))
    assert pc.count_distinct(documents["id"]).as_py() == len(documents)
    openings = Counter(row["text"].replace(row["title"], "@")[:5] for row in documents.to_pylist())
    assert openings.most_common(1)[0][1] <= 0.10 * len(documents)
    asked = Counter(row["question"].replace(row["title"], "@") for row in graph.questions(table(facts)).to_pylist())
    assert len(asked) >= 3 * len(RELATIONS) * 0.8
