"""What each stage makes of hand-written rows of each shape."""

from typing import Any

import pyarrow as pa
import pytest

from chimed import phrases
from chimed.cuts import cut
from chimed.records import SHAPES, Body, Dialogue, Exam, Passage, Preference, Record, Turn, shape_of, to_table
from chimed.sources.relations import fact
from chimed.stages import COLUMNS, STAGES, Stage, render, serves
from tests.unit import graphs

ITEM = Exam(
    "休克最常见的原因是", ("出血", "感染。", "缺氧"), "B", "本题考查休克。感染最常见（B对）。", "急诊科", "临床医学"
)
TALK = Dialogue(
    (
        Turn("system", "你是一名医生。"),
        Turn("user", "我咳嗽三天了，要紧吗？"),
        Turn("assistant", "有没有发热？"),
        Turn("user", "没有。"),
        Turn("assistant", "那先多喝水，观察。"),
        Turn("user", "好的，谢谢医生！"),
        Turn("assistant", "不客气。"),
    ),
    "呼吸内科",
)
ANSWER = "空腹血糖达到7.0毫摩尔每升，或餐后两小时达到11.1，可以诊断为糖尿病。"
PAIR = Dialogue((Turn("user", "血糖多高算糖尿病？"), Turn("assistant", ANSWER)))


def table(*bodies: Body) -> pa.Table:
    rows = [Record("made", f"up.csv#{number}", "train", body) for number, body in enumerate(bodies)]
    return to_table(shape_of(bodies[0]), rows)


def rows(stage: Stage, *bodies: Body, length: int = 512) -> list[dict[str, Any]]:
    rendered = render(stage, shape_of(bodies[0]), table(*bodies), length=length)
    rendered.validate(full=True)
    found: list[dict[str, Any]] = rendered.to_pylist()
    return found


def test_stages_and_shapes() -> None:
    assert tuple(COLUMNS) == STAGES
    for stage in STAGES:
        assert COLUMNS[stage].names[:2] == ["id", "source"]
        assert set(serves(stage)) <= set(SHAPES)
        for shape in set(SHAPES) - set(serves(stage)):
            assert render(stage, shape, pa.table({"id": ["made/1"]})).equals(COLUMNS[stage].empty_table())


def test_a_passage_has_its_title_once() -> None:
    first, second, third = rows(
        "cpt", Passage("咳嗽。", "百日咳"), Passage("百日咳是病。", "百日咳"), Passage("百", "百日")
    )
    assert first == {"id": "made/up.csv#0", "source": "made", "text": "百日咳\n咳嗽。"}
    assert second["text"] == "百日咳是病。"
    assert third["text"] == "百日\n百"


def test_transcripts() -> None:
    lines = rows("cpt", TALK)[0]["text"].split("\n")
    assert lines[0] == "你是一名医生。"
    assert [line.partition("：")[0] for line in lines[1:3]] in (["患者", "医生"], ["病人", "医生"])
    labels = {row["text"].partition("：")[0] for row in rows("cpt", *[PAIR] * 30)}
    assert labels == {"问", "提问", "问题"}
    chat = Dialogue(tuple(Turn(role, "写一首诗") for role in ("user", "assistant") * 2))  # type: ignore[arg-type]
    assert all(row["text"][:2] not in ("患者", "病人") for row in rows("cpt", *[chat] * 9))


def test_an_exam_as_text_and_as_a_conversation() -> None:
    text = rows("cpt", ITEM)[0]["text"]
    assert "A. 出血\nB. 感染。\nC. 缺氧\n" in text
    assert text.endswith("B. 感染。\n本题考查休克。感染最常见（B对）。")
    user, assistant = next(row["messages"] for row in rows("sft", *[ITEM] * 9) if len(row["messages"]) == 2)
    assert (
        user["role"] == "user" and "单项选择题" in user["content"] and "A. 出血\nB. 感染。\nC. 缺氧" in user["content"]
    )
    answer, _, explanation = assistant["content"].partition("\n")
    assert answer.endswith("B. 感染。") and explanation == ITEM.explanation


def test_an_exam_with_several_answers_and_no_explanation() -> None:
    user, assistant = rows("sft", Exam("可见于", ("甲", "乙", "丙"), "AC"))[0]["messages"]
    assert "多项选择题" in user["content"] and "解析" not in user["content"] and "理由" not in user["content"]
    assert assistant["content"].endswith("A. 甲；C. 丙。")
    led = rows("sft", Exam("可见于", ("甲", "乙"), "A", "甲常见。"))[0]["messages"][-1]["content"]
    assert led.endswith("\n解析：甲常见。")


def test_one_explained_exam_in_three_is_asked_for_its_letters_first() -> None:
    found = [row["messages"] for row in rows("sft", *[Exam("可见于", ("甲", "乙", "丙"), "AC", "常见。")] * 300)]
    brief = [turns for turns in found if len(turns) == 4]
    assert 70 < len(brief) < 130
    assert {turns[1]["content"] for turns in brief} == {"AC"}
    assert {turns[2]["content"] for turns in brief} == set(phrases.EXAM_WHY)
    assert all("多项选择题" in turns[0]["content"] and "字母" in turns[0]["content"] for turns in brief)
    assert all(turns[3]["content"].endswith("A. 甲；C. 丙。\n解析：常见。") for turns in brief)
    assert [turn["role"] for turn in brief[0]] == ["user", "assistant", "user", "assistant"]
    assert all(len(turns) == 2 for turns in found if turns not in brief)
    bare = [row["messages"] for row in rows("sft", *[Exam("可见于", ("甲", "乙"), "A")] * 100)]
    assert {len(turns) for turns in bare} == {2}


def test_all_exam_instructions_are_used() -> None:
    asked = [row["messages"][0]["content"] for row in rows("sft", *[ITEM] * 200)]
    assert len(set(asked)) == len(phrases.EXAM_EXPLAINED) + len(phrases.EXAM_BRIEF)


def test_an_answer_that_is_no_option_cannot_be_rendered() -> None:
    with pytest.raises(ValueError, match="no option"):
        rows("sft", ITEM, Exam("可见于", ("甲", "乙"), "C"))


def test_graph_rows() -> None:
    facts = table(fact("百日咳", "症状", "咳嗽"), fact("百日咳", "科室", "儿科")).append_column(
        "source", [["made"] * 2]
    )
    documents, questions = graphs.documents(facts), graphs.questions(facts)
    text = documents["text"].to_pylist()
    assert render("cpt", "fact", documents)["text"].to_pylist() == text
    assert render("rag", "fact", documents).select(["title", "text"]).to_pylist() == [
        {"title": "百日咳", "text": text[0]}
    ]
    for row, question in zip(render("sft", "fact", questions).to_pylist(), questions.to_pylist(), strict=True):
        assert row["messages"] == [
            {"role": "user", "content": question["question"]},
            {"role": "assistant", "content": question["answer"]},
        ]


def test_preferences_are_conversations() -> None:
    prompt = (Turn("system", "你是医生。"), Turn("user", "发烧怎么办？"))
    assert rows("dpo", Preference(prompt, "多喝水。", "不用管。")) == [
        {
            "id": "made/up.csv#0",
            "source": "made",
            "prompt": [{"role": turn.role, "content": turn.content} for turn in prompt],
            "chosen": [{"role": "assistant", "content": "多喝水。"}],
            "rejected": [{"role": "assistant", "content": "不用管。"}],
            "kind": "given",
        }
    ]


def test_evaluation_items() -> None:
    item = rows("eval", ITEM)[0]
    assert (item["kind"], item["answer"], item["options"]) == ("exam", "B", list(ITEM.options))
    assert (item["messages"], item["department"], item["discipline"]) == ([], "急诊科", "临床医学")
    talk, pair = rows("eval", TALK, PAIR)
    # The last turn only says goodbye: the question is the one before it.
    assert (talk["kind"], talk["question"], talk["answer"]) == ("open", "没有。", "那先多喝水，观察。")
    assert [turn["role"] for turn in talk["messages"]] == ["system", "user", "assistant"]
    assert talk["department"] == "呼吸内科"
    assert (pair["question"], pair["messages"], pair["options"]) == (PAIR.turns[0].content, [], [])
    thanks = Dialogue((Turn("user", "谢谢。"), Turn("assistant", "不客气。")))
    assert rows("eval", thanks)[0]["question"] == "谢谢。"
    for leave in ("非常感谢！我会看看是否有好转，过几天再来。", "好的，我会问医生什么时候复查。", "好"):
        told = Dialogue((*PAIR.turns, Turn("user", leave), *thanks.turns[1:]))
        assert rows("eval", told)[0]["question"] == PAIR.turns[0].content
    more = "谢谢。餐后多久测呢？"
    assert rows("eval", Dialogue((*PAIR.turns, Turn("user", more), *thanks.turns[1:])))[0]["question"] == more


def test_passages_to_retrieve() -> None:
    found = rows("rag", PAIR, TALK, Dialogue((Turn("user", "血糖多高？"), Turn("assistant", "七。"))))
    assert [(row["id"], row["title"], row["text"]) for row in found] == [
        ("made/up.csv#0@0", PAIR.turns[0].content, ANSWER)
    ]
    assert [(row["title"], row["text"]) for row in rows("rag", ITEM, Exam("可见于", ("甲", "乙"), "A"))] == [
        ("", ITEM.explanation)
    ]
    parts = rows("rag", Passage("病程较长，可达数月之久。" * 10, "百日咳"), length=40)
    assert [row["id"] for row in parts] == [f"made/up.csv#0@{number}" for number in range(len(parts))]
    assert [row["part"] for row in parts] == list(range(len(parts)))
    assert all(row["text"].endswith("。") and row["title"] == "百日咳" for row in parts)


CUTS = [
    ("百日咳多见于小儿。他说：“要紧吗？”没有人回答。", 18, ["百日咳多见于小儿。", "他说：“要紧吗？”没有人回答。"]),
    ("第一段不长也不短\n第二段很短。第三句也很短。", 16, ["第一段不长也不短\n", "第二段很短。第三句也很短。"]),
    ("一二三四五六七八九十，一二三四五六七八九十一二三", 20, ["一二三四五六七八九十，", "一二三四五六七八九十一二三"]),
    ("一二三四五六七八九十", 4, ["一二三四", "五六七八", "九十"]),
    ("一二三四五六七八九", 4, ["一二三四", "五六七", "八九"]),
    ("一😀三四", 2, ["一😀", "三四"]),
    ("", 8, [""]),
]


@pytest.mark.parametrize(("text", "length", "parts"), CUTS)
def test_cut(text: str, length: int, parts: list[str]) -> None:
    found, counts = cut(pa.array(["前文。", text, "后文。"]), length)
    assert found.to_pylist()[counts[0] : counts[0] + counts[1]] == parts
