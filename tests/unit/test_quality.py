"""Every reason fires on a row made for it, and rows that only look like it are kept."""

import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from chimed import signs
from chimed.quality import REASONS, verdicts
from chimed.records import Body, Dialogue, Exam, Fact, Passage, Preference, Record, Turn, shape_of, to_table

FIVE = ("出血", "感染", "缺氧", "中毒", "外伤")


def qa(question: str, answer: str) -> Dialogue:
    return Dialogue((Turn("user", question), Turn("assistant", answer)))


def exam(**changes: Any) -> Exam:
    return Exam(**{"question": "休克最常见的原因是", "options": FIVE, "answer": "A", **changes})


def pair(chosen: str, rejected: str) -> Preference:
    return Preference((Turn("user", "孩子发烧怎么办？"),), chosen, rejected)


def reasons(*bodies: Body) -> list[str | None]:
    shape = shape_of(bodies[0])
    rows = [Record("made", f"up#{number}", "train", body) for number, body in enumerate(bodies)]
    result: list[str | None] = verdicts(shape, to_table(shape, rows)).to_pylist()
    return result


REJECTED: list[tuple[str, Body]] = [
    ("empty-text", Passage(" \n")),
    ("empty-text", Exam("", FIVE, "A")),
    ("empty-text", exam(options=("出血", " "))),
    ("empty-text", Fact("百日咳", "症状", "")),
    ("placeholder", Passage("暂无相关资料。")),
    ("placeholder", qa("慢性胃炎怎么治疗？", "【暂无】")),
    ("placeholder", qa("无", "注意休息，按时服药，定期复查血压。")),
    ("placeholder", exam(question="请等待更新")),
    ("placeholder", Fact("百日咳", "治愈率", "不详", "疾病", "text")),
    ("answer-is-url", qa("慢性胃炎怎么治疗？", "http://example.org/qa/17.html")),
    ("too-short", Passage("第一章总论")),
    ("too-short", qa("头痛", "休息")),
    ("not-chinese", qa("What is the first sign of shock?", "A fast pulse, most of the time.")),
    ("not-chinese", exam(question="The most common cause of shock is", options=("bleeding", "sepsis"))),
    ("mostly-symbols", Passage("目录………………………………………………………………12")),
    ("repeated-text", Passage("请按时服药。" * 40)),
    ("repeated-text", qa("孩子发烧怎么办？", "好的" * 60)),
    ("answer-repeats-question", qa("孩子发烧怎么办呢？", "孩子发烧，怎么办呢")),
    ("only-courtesy", qa("孩子发烧怎么办呢？", "不客气，祝宝宝早日康复！")),
    ("too-few-options", exam(options=("出血",))),
    ("duplicate-options", exam(options=("出血", "感染", "出 血"))),
    ("answer-not-an-option", exam(answer="F")),
    ("answer-not-an-option", exam(answer="")),
    ("answer-not-an-option", exam(answer="b")),
    ("refers-to-figure", exam(question="胸部平片如图所示，最可能的诊断是")),
    ("refers-to-figure", exam(question="图中所示药材的产地是")),
    ("refers-to-figure", exam(question="超声检查见图1（暂无图），诊断是")),
    ("refers-to-figure", exam(question="某地两年的发病率见下表。两年相比")),
    ("refers-to-figure", exam(question="化学结构为的药物属于")),
    ("refers-to-figure", exam(question="具有如下结构的药物是")),
    ("refers-to-figure", exam(question="下列句子中加点词的意思相同的是")),
    ("refers-to-figure", exam(question="The X-ray of his knee is shown below. 诊断是")),
    ("lost-context", exam(question="该患者首选的降压药是")),
    ("lost-context", exam(question="关于该药用法的说法，正确的是")),
    ("lost-context", exam(question="根据上述信息，错误的是")),
    ("lost-context", exam(question="甘油在该处方中的作用是")),
    ("lost-context", exam(question="患儿应用上述药物后仍喘，可加用")),
    ("machine-reworded", qa("孩子要打哪些针？", "满月时麻醉乙肝疫苗。")),
    ("machine-reworded", qa("我不知晓怎么了，头疼", "再次出现头疼要看神经内科。")),
    ("chosen-equals-rejected", pair("多喝水，观察体温。", "多喝水 观察体温")),
    ("noise-entity", Fact("百日咳", "症状", "发热伴咳嗽、咯...", "疾病", "症状")),
    ("noise-entity", Fact("百日咳", "检查", "结核菌素试验（OT", "疾病", "检查")),
    ("noise-entity", Fact("百日咳", "检查", "查看更多", "疾病", "检查")),
    ("noise-entity", Fact("百日咳", "常用药物", "12", "疾病", "药品")),
    ("noise-entity", Fact("@百日咳@", "科室", "儿科", "疾病", "科室")),
    ("entity-is-url", Fact("百日咳", "常用药物", "见http://example.org/药", "疾病", "药品")),
    ("self-loop", Fact("呼吸衰竭", "症状", "呼吸衰竭", "疾病", "症状")),
    (
        "entity-is-sentence",
        Fact("喉异物", "治疗方法", "严重的需要手术治疗。没有条件的先行气管切开", "疾病", "治疗方法"),
    ),
]


@pytest.mark.parametrize(("reason", "body"), REJECTED)
def test_reason(reason: str, body: Body) -> None:
    assert reasons(body) == [reason]


KEPT: list[Body] = [
    Passage("百日咳是由百日咳杆菌引起的急性呼吸道传染病。"),
    Passage("本病暂无特效疗法，以对症治疗为主。"),
    qa("写一个求和函数", "def total(numbers):\n    return sum(number for number in numbers if number)"),
    qa("以下两句意思相同吗？“胃疼怎么办”“胃痛怎么治”", "是"),
    qa("哪里可以查到药品说明书？", "可以在 https://example.org 查询，也可以问药师。"),
    exam(question="急性心肌梗死的心电图示", options=("ST段抬高", "T波倒置")),
    exam(question="男，60岁，血压160/100mmHg。该患者首选的降压药是"),
    exam(question="某患者服药后头晕，该患者应"),
    exam(question="氟氯西林的化学结构是在苯环上引入"),
    exam(question="各组的血压见下表。\n组 血压\n甲 120\n哪一组最高"),
    exam(question="下表中对应正确的是", options=("症状：咳嗽。药：右美沙芬", "症状：腹泻。药：番泻叶")),
    exam(question="国家基本药物目录的制定部门是"),
    qa("手术能做吗？", "血糖稳定后可以在麻醉下手术，胰岛素照常用，术后再次出现疼痛要复查。"),
    Dialogue((*qa("咳嗽三天了", "有过敏的药吗？").turns, *qa("没有", "先化验血常规。").turns)),
    exam(question="脉会是", options=("太渊", "绝骨")),
    exam(options=("<5%", ">5%")),
    exam(question="前间壁心肌梗死的心电图中可见", answer="BD"),
    pair("多喝水，观察体温。", "不用管。"),
    Fact("百日咳", "治愈率", "98%", "疾病", "text"),
    Fact("百日咳", "概述", "百日咳是传染病。多见于小儿！病程可达数月。", "疾病", "text"),
    Fact("COVID-19", "检查", "PCR", "疾病", "检查"),
]


@pytest.mark.parametrize("body", KEPT)
def test_kept(body: Body) -> None:
    assert reasons(body) == [None]


def test_every_reason_is_tested_and_explained() -> None:
    assert {reason for reason, _ in REJECTED} == set(REASONS)
    assert all(text.endswith(".") and "\n" not in text for text in REASONS.values())


def test_the_first_reason_of_the_list_wins() -> None:
    assert reasons(exam(options=("出血", "出血"), answer="Z", question="如图所示")) == ["duplicate-options"]


def test_a_row_is_judged_alone() -> None:
    for shape in ("passage", "dialogue", "exam", "preference", "fact"):
        bodies = [body for _, body in REJECTED if shape_of(body) == shape]
        bodies += [body for body in KEPT if shape_of(body) == shape]
        assert reasons(*bodies) == [reasons(body)[0] for body in bodies]
        rows = to_table(shape, [Record("made", str(n), "train", body) for n, body in enumerate(bodies)])
        assert verdicts(shape, rows.slice(1)).to_pylist() == reasons(*bodies)[1:]
        assert verdicts(shape, rows.slice(0, 0)).to_pylist() == []


def test_real_graph_loses_little(raw: Path) -> None:
    import json

    from chimed.sources.xywy_kg import SOURCE

    rows = json.loads((raw / "xywy-kg" / "medical_0.json").read_text("utf-8")).values()
    bodies = [body for row in rows if isinstance(row, dict) and row.get("gaishu_info") for body in SOURCE.parse(row)]
    found = reasons(*bodies)
    assert sum(reason is not None for reason in found) < 0.01 * len(found)


def test_a_conversation_says_more_than_courtesy_somewhere() -> None:
    def table(*replies: str) -> Any:
        turns = [turn for reply in replies for turn in qa("体温三十八度三天了怎么办？", reply).turns]
        return to_table("dialogue", [Record("s", "f#1", "train", Dialogue(tuple(turns)))])

    courteous = table("不客气，祝早日康复。")
    assert verdicts("dialogue", courteous).to_pylist() == ["only-courtesy"]
    assert verdicts("dialogue", courteous, trains=False).to_pylist() == [None]
    assert verdicts("dialogue", table("先去医院做血常规检查。", "不客气")).to_pylist() == [None]
    assert verdicts("dialogue", table("可以的。")).to_pylist() == [None]


# Every word of every sign, whole and cut, and what may stand beside it.
WORDS = [word for sign in (*signs.NEVER, *signs.SELDOM) for word in signs.words(sign)]
AROUND = st.sampled_from([*"疫苗降低恢复重反处您好，。乙𠀀a\n", "疫苗", "降低", "恢复", "乙肝"])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.lists(
            st.lists(st.sampled_from(WORDS) | st.sampled_from(WORDS).map(lambda w: w[:-1]) | AROUND).map("".join),
            max_size=3,
        ),
        max_size=4,
    )
)
def test_reworded_is_what_the_signs_say(talks: list[list[str]]) -> None:
    def count(text: str, group: tuple[str, ...]) -> int:
        found = [s for s in group if any(word in text for word in signs.words(s))]
        return sum(re.search(signs.WHERE.get(sign, ""), text) is not None for sign in found)

    texts = ["\n".join(talk) for talk in talks]
    expected = [2 * count(text, signs.NEVER) + count(text, signs.SELDOM) > 1 for text in texts]
    assert signs.reworded(pa.array(talks, pa.list_(pa.string()))).tolist() == expected


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("头痛ab1，。+-=① \u0301", max_size=30), min_size=1, max_size=5))
def test_symbols_are_counted_where_it_matters(texts: list[str]) -> None:
    column = pa.array(texts)
    found = reasons(*(Passage(text) for text in texts))
    signs_of, shown = pc.count_substring_regex(column, signs.SYMBOL), pc.count_substring_regex(column, r"\S")
    for reason, many, all_shown in zip(found, signs_of.to_pylist(), shown.to_pylist(), strict=True):
        first = list(REASONS).index(reason) if reason else len(REASONS)
        assert first <= list(REASONS).index("mostly-symbols") if 2 * many > all_shown else reason != "mostly-symbols"
