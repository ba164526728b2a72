"""Overlap with an evaluation set: the rule, its numbers against a naive count, and the file of an index."""

import json
import pickle
import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook

from chimed import leakage
from chimed.errors import SourceError
from chimed.keys import evaluation_texts, key_table
from chimed.leakage import GRAM, MIN_GRAMS, RUN, RUN_PART, SHARE, Hits, Index
from chimed.records import SCHEMAS


def han(count: int, seed: int) -> str:
    return "".join(map(chr, random.Random(seed).choices(range(0x4E00, 0x9FA5), k=count)))


QUESTION = "急性肾小球肾炎患者出现水肿的最主要病理生理基础是"
LONG = han(120, 1)


def check(evaluation: list[str], rows: list[str], owner: list[int] | None = None) -> Hits:
    owners = np.arange(len(evaluation)) if owner is None else np.array(owner)
    return Index.build(pa.array(evaluation, pa.string()), owners).check(pa.array(rows, pa.string()))


def test_an_equal_text_leaks_however_short() -> None:
    hits = check(["正确的是", QUESTION], ["正确的是", QUESTION, "下列正确的是", ""])
    assert hits.exact.tolist() == hits.leak.tolist() == [True, True, False, False]
    assert hits.item.tolist() == [0, 1, -1, -1]
    assert hits.share.tolist() == [1, 1, 0, 0]
    assert hits.run.tolist() == [4, len(QUESTION), 0, 0]


def test_a_question_inside_a_row_leaks_unless_it_is_short() -> None:
    hits = check([QUESTION], [f"请回答{QUESTION}什么", QUESTION[:12], QUESTION[4:], f"{QUESTION[:9]}与{QUESTION[15:]}"])
    assert hits.leak.tolist() == [True, False, False, False]
    assert not hits.exact.any()
    short = QUESTION[: GRAM + MIN_GRAMS - 2]
    hits = check([short], [f"请回答{short}什么", short])
    assert hits.share.tolist() == [1, 1]
    assert hits.leak.tolist() == [False, True]
    assert check([QUESTION[: GRAM + MIN_GRAMS - 1]], [f"答{QUESTION}"]).leak.tolist() == [True]


def test_the_english_name_of_a_disease_is_no_question() -> None:
    stem, passage = "microangiopathichemolyticanemia", "微血管病性溶血性贫血microangiopathichemolyticanemia又称"
    assert check([stem], [passage, stem]).leak.tolist() == [False, True]
    question = "whichofthefollowingisthemostcommoncauseofmicroangiopathichemolyticanemiainachild"
    assert check([question], [f"请翻译{question}"]).leak.tolist() == [True]
    assert check(
        ["服用华法林的患者inr应维持在2到3之间的情况是"], ["问服用华法林的患者inr应维持在2到3之间的情况是什么"]
    ).leak.all()


def test_a_phrase_equals_a_stem_only_in_another_exam() -> None:
    index = Index.build(pa.array(["脾破裂", "梅毒的病原体是什么呢"]), np.arange(2))
    role = pa.struct([("role", pa.string()), ("content", pa.string())])
    said = [[("user", "这位患者的诊断是？"), ("assistant", text)] for text in ("脾破裂", "梅毒的病原体是什么呢")]
    turns = [[{"role": who, "content": text} for who, text in turns] for turns in said]
    table = pa.table({"id": ["a/1", "a/2"], "split": ["train"] * 2, "turns": pa.array(turns, pa.list_(role))})
    table = table.append_column("department", pa.array(["", ""]))
    assert key_table("dialogue", table, True, index, lambda _: None)["leak"].to_pylist() == [-1, 1]
    own = {"id": "b/1", "split": "train", "question": "脾破裂", "options": ["左肩痛", "腹痛"], "answer": "A"}
    own |= dict.fromkeys(("explanation", "department", "discipline", "competency", "disease_group", "difficulty"), "")
    exams = pa.Table.from_pylist([own], SCHEMAS["exam"])
    assert key_table("exam", exams, True, index, lambda _: None)["leak"].to_pylist() == [0]


def test_a_stem_without_a_subject_is_another_question_with_other_options() -> None:
    """下列说法正确的是 stands over many items: which one is asked, the options tell."""
    stems = [
        "下列说法正确的是",
        "下列说法正确的是",
        "下列说法不正确的是",
        "某校六年级三百名学生中恒牙有龋者的人数为一百八十人",
    ]
    known = ["恒前牙根尖可偏远中\n乳前牙根尖可偏唇侧", "每种疾病都有病因\n没有病因不会发生疾病", "", "12\n13"]
    index = Index.build(pa.array(stems), np.arange(4), pa.array(known))

    def leak(question: str, *options: str) -> int:
        row = {"id": "a/1", "split": "train", "question": question, "options": list(options), "answer": "A"}
        row |= dict.fromkeys(("explanation", "department", "discipline", "competency", "disease_group"), "")
        exams = pa.Table.from_pylist([row | {"difficulty": ""}], SCHEMAS["exam"])
        found: int = key_table("exam", exams, True, index, lambda _: None)["leak"][0].as_py()
        return found

    assert leak("下列说法，正确的是____", "单质的焓为零", "单质的摩尔生成焓为零", "。") == -1
    assert leak("下列说法正确的是（）", "单质的焓为零", "没有病因，不会发生疾病。") == 0  # the first that is asked so
    assert leak("下列说法正确的是", "乳前牙根尖可偏唇侧的", "无") == 0
    assert leak("下列说法不正确的是", "甲", "乙") == 2  # nobody knows its options
    assert leak(stems[3], "甲", "乙") == 3  # this stem is the question


def test_of_replies_the_reference_alone_identifies_a_conversation() -> None:
    asks, gives, opening = "有接触过确诊病例吗" * 6, "多喝水吃点西瓜" * 7, "咽喉痛这是上火了吗需要吃药吗"
    turns = [("user", f"{opening}？"), ("assistant", asks), ("user", "没有"), ("assistant", gives)]
    rows = [{"id": f"a/{n}", "turns": [{"role": r, "content": c} for r, c in turns[:n]]} for n in (2, 4)]
    table = pa.Table.from_pylist(rows, SCHEMAS["dialogue"])
    texts, owners = evaluation_texts("dialogue", table)
    assert texts.to_pylist() == [opening, asks, opening, gives]
    assert owners.tolist() == [0, 0, 1, 1]
    assert evaluation_texts("dialogue", table.slice(1))[0].to_pylist() == [opening, gives]


def test_a_long_run_leaks_if_it_is_half_of_the_text() -> None:
    hits = check([LONG], [han(30, 2) + LONG[10:70] + han(30, 3), LONG[10:69], LONG[:58] + LONG[70:119]])
    assert hits.leak.tolist() == [True, False, True]
    assert hits.run.tolist() == [60, 59, 58]
    assert check([LONG[:90]], [LONG[: RUN - 1], LONG[:RUN]]).leak.tolist() == [False, True]


def test_a_leak_wins_over_a_higher_share_of_a_short_text() -> None:
    short = "心房颤动患者宜用"
    hits = check([short, LONG], [short + LONG[:70]])
    assert (hits.item[0], hits.run[0], bool(hits.leak[0])) == (1, 70, True)
    assert check([short], [short + LONG[:70]]).share.tolist() == [1.0]


def test_texts_of_one_item_and_ties() -> None:
    assert check([LONG, QUESTION, QUESTION], [f"问{QUESTION}"], owner=[4, 9, 7]).item.tolist() == [7]
    assert check([QUESTION, QUESTION], [QUESTION], owner=[9, 7]).item.tolist() == [7]


def test_grams_do_not_cross_from_one_text_to_the_next() -> None:
    hits = check([QUESTION[:12], QUESTION[12:]], [QUESTION])
    assert hits.run.tolist() == [len(QUESTION) - 12]


def fold(texts: list[str]) -> pa.StringArray:
    return pc.replace_substring_regex(pa.array(texts, pa.string()), r"[^\p{L}\p{N}]+", "")


def test_every_equal_question_of_real_exams_is_found_and_little_else(raw: Path) -> None:
    """CMExam's validation items against 2,000 of its test items, and against a textbook, which holds none of them."""
    book = load_workbook(raw / "cmexam" / "val.xlsx", read_only=True)
    questions = fold([str(row[0] or "") for row in book.active.iter_rows(min_row=2, values_only=True)])
    book.close()
    index = Index.build(questions, np.arange(len(questions)))
    items = [json.loads(line) for line in (raw / "cmexam" / "apollo_cmexam.jsonl").read_text("utf-8").splitlines()]
    asked = fold([item["question"] for item in items])
    hits = index.check(asked)
    equal = set(questions.to_pylist())
    equal_rows = [row for row, text in enumerate(asked.to_pylist()) if text in equal]
    assert len(equal_rows) >= 14
    assert hits.exact[equal_rows].all()
    assert hits.leak[equal_rows].all()
    assert len(equal_rows) < hits.leak.sum() < 60
    fever = (raw / "medicalgpt" / "fever.txt").read_text("utf-8")
    assert not index.check(fold([fever[at : at + 500] for at in range(0, len(fever), 500)])).leak.any()


def naive(texts: list[str], row: str) -> list[tuple[bool, float, int]]:
    """(leak, share, run) of the row with each text, by sets and by trying every piece."""
    own, found = {row[i : i + GRAM] for i in range(len(row) - GRAM + 1)}, []
    for text in texts:
        grams = {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}
        pieces = (j - i for i in range(len(text)) for j in range(i + GRAM, len(text) + 1) if text[i:j] in row)
        share, run = len(grams & own) / max(len(grams), 1), max(pieces, default=0)
        leak = (share >= SHARE and len(grams) >= MIN_GRAMS) or (run >= RUN and run >= RUN_PART * len(text))
        if text and text == row:
            leak, share, run = True, 1.0, len(text)
        found.append((leak, float(np.float32(share)), run))
    return found


REPETITIVE = st.text("病气", max_size=70)


@settings(deadline=None, max_examples=150)
@given(st.lists(REPETITIVE, min_size=1, max_size=5), st.lists(REPETITIVE, max_size=3), st.data())
def test_numbers_are_those_of_a_naive_count(texts: list[str], rows: list[str], data: st.DataObject) -> None:
    """Two letters only: grams repeat inside a text, so that runs and distinct counts are put to the test."""
    rows = [*rows, data.draw(st.sampled_from(texts)), data.draw(st.sampled_from(texts)) + "气"]
    hits = check(texts, rows)
    for number, row in enumerate(rows):
        expected = naive(texts, row)
        best = max(expected)
        if best[1] == 0:
            assert hits.item[number] == -1
        else:
            assert (bool(hits.leak[number]), float(hits.share[number]), int(hits.run[number])) == best
            assert hits.item[number] == expected.index(best)
        assert hits.exact[number] == (row in texts and row != "")


def test_batches_slices_and_copies_of_the_index_agree(tmp_path: Path) -> None:
    rng = random.Random(4)
    evaluation = [han(rng.randint(3, 60), seed) for seed in range(300)]
    rows = pa.array([rng.choice(evaluation)[rng.randint(0, 3) :] + han(20, seed) for seed in range(500)])
    index = Index.build(pa.array(evaluation), np.arange(300) // 2)
    index.save(tmp_path / "index.npz")
    expected = index.check(rows)
    assert expected.leak.any()
    assert not expected.leak.all()
    for other in (Index.load(tmp_path / "index.npz"), pickle.loads(pickle.dumps(index))):
        parts = [other.check(part) for part in (rows[:1], rows[1:1], rows[1:333], rows[333:])]
        for field in fields(Hits):
            joined = np.concatenate([getattr(part, field.name) for part in parts])
            assert (joined == getattr(expected, field.name)).all()


def test_an_questions_nothing_finds_nothing() -> None:
    for evaluation in ([], [""], ["正确"]):
        assert not check(evaluation, ["", QUESTION]).leak.any()


def test_a_foreign_file_is_an_error_and_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.npz"
    for content in (b"", b"PK\x03\x04 broken", pickle.dumps({"gram": GRAM})):
        path.write_bytes(content)
        with pytest.raises(SourceError, match="not a leakage index"):
            Index.load(path)
    np.savez(path, gram=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(SourceError, match="build it again"):
        Index.load(path)
    with pytest.raises(SourceError):
        Index.load(tmp_path / "missing.npz")
    index = Index.build(pa.array([QUESTION]), np.zeros(1, int))
    index.save(path)
    monkeypatch.setattr(leakage, "GRAM", 13)
    with pytest.raises(SourceError):
        Index.load(path)
