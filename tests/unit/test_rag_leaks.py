"""Passages that hold evaluation items, against sets of strings."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.rag import leaks
from qilin.rag.leaks import GRAM, SHARE, Leak, Leaks

QUESTION = "男，72岁，排尿困难5年，夜尿4～5次，直肠指检可触及前列腺增生，此患者选择哪项治疗方法最佳"
WORDS = ["百日咳多见于小儿", "病程较长可达数月", "痉咳期", "的临床表现", "，", "错误的是", "A", "可用红霉素治疗"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=8).map("".join)


def items(*rows: dict[str, str]) -> pa.Table:
    blank = {"kind": "exam", "question": "", "answer": "", "explanation": ""}
    schema = pa.schema([(name, pa.string()) for name in ("id", *blank)])
    return pa.Table.from_pylist([{"id": f"item/{number}"} | blank | row for number, row in enumerate(rows)], schema)


def find(table: pa.Table, texts: list[str], titles: list[str] | None = None) -> dict[int, Leak]:
    return Leaks([table]).find(pa.array(titles or [""] * len(texts)), pa.array(texts, pa.string()))


def grams(text: str) -> set[str]:
    """The 13-grams of a text of these words."""
    plain = text.lower().replace("，", "")
    return {plain[place : place + GRAM] for place in range(len(plain) - GRAM + 1)}


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=6), st.lists(TEXT, max_size=6))
def test_shares_are_those_of_sets(questions: list[str], passages: list[str]) -> None:
    found = find(items(*({"question": question} for question in questions)), passages)
    for row, passage in enumerate(passages):
        shares = {
            number: len(grams(question) & grams(passage)) / len(grams(question))
            for number, question in enumerate(questions)
            if grams(question)
        }
        best = max(shares.values(), default=0.0)
        if best >= SHARE:
            number = min(number for number, share in shares.items() if share == best)
            assert found[row] == Leak(f"item/{number}", "question", round(best, 4))
        else:
            assert row not in found or found[row].share == 1.0


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXT, min_size=1, max_size=6))
def test_a_passage_is_judged_alone(passages: list[str]) -> None:
    table = items({"question": "百日咳多见于小儿，病程较长可达数月"}, {"question": "痉咳期的临床表现，错误的是"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "_PAIRS", 1)
        together = find(table, passages)
    alone = {row: leak for row, text in enumerate(passages) for leak in find(table, [text]).values()}
    assert together == alone


def test_a_few_changed_characters_do_not_hide_a_question() -> None:
    long = QUESTION + "，血肌酐360，尿常规白细胞20至30个每高倍视野，双肾中度积水，残余尿220毫升"
    changed = long.replace("夜尿4～5次", "夜尿4～6次")
    found = find(items({"question": long}), ["无关的段落。", f"题目：{changed}？"])
    assert list(found) == [1]
    assert SHARE <= found[1].share < 1


def test_half_a_question_is_none() -> None:
    assert not find(items({"question": QUESTION}), [QUESTION[: len(QUESTION) // 2]])


def test_script_width_and_punctuation_do_not_hide_a_question() -> None:
    assert find(items({"question": "高血压患者能否服用党参等补气中药"}), ["高血壓患者、能否服用黨參等補氣中藥？可以。"])


@pytest.mark.parametrize(
    ("row", "title", "text", "leaks_in"),
    [
        ({"kind": "open", "question": "感冒吃什么药"}, "感冒吃什么药？", "对症治疗即可。", True),
        ({"kind": "open", "question": "感冒吃什么药"}, "", "有人问：感冒吃什么药？答：对症治疗。", False),
        ({"kind": "exam", "question": "脾破裂"}, "脾破裂", "多由外伤引起。", False),
        ({"kind": "exam", "question": "脾破裂"}, "", "脾破裂。", True),
        ({"kind": "open", "answer": "骨科"}, "骨科", "治疗骨折可手术。", False),
    ],
)
def test_short_texts(row: dict[str, str], title: str, text: str, leaks_in: bool) -> None:
    assert bool(find(items(row), [text], [title])) is leaks_in


def test_letters_are_no_text_but_reference_answers_and_explanations_are() -> None:
    answer, why = "建议每日测量血压并按时服用降压药物", "前列腺增生伴双肾积水时应先留置导尿保护肾功能"
    table = items({"answer": "B", "explanation": why, "question": QUESTION}, {"kind": "open", "answer": answer})
    found = find(table, ["B", answer, why, f"{why}。{QUESTION}", f"{why}。{answer}"])
    assert {row: (leak.item, leak.what) for row, leak in found.items()} == {
        1: ("item/1", "answer"),
        2: ("item/0", "explanation"),
        3: ("item/0", "question"),
        4: ("item/1", "answer"),
    }


def test_nothing_to_look_for_and_nowhere_to_look() -> None:
    nothing: list[Any] = []
    assert Leaks(nothing).find(pa.array(["a"]), pa.array(["b" * 40])) == {}
    assert find(items({"question": QUESTION}), []) == {}
    assert find(items({"question": ""}), ["", "x"]) == {}
