"""Items from the eval stage, exam scores of known answerers, the official scripts, and permuted options."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.stages import COLUMNS
from qilin.errors import DataError
from qilin.evaluate.exam import Item, consistency, correct, official, permuted, read_items, score

pytest.importorskip("sklearn", reason="the extra eval is not installed")

SETS = ["".join(chosen) for size in range(1, 6) for chosen in combinations("ABCDE", size)]
OPTIONS = ("心绞痛", "急性心肌梗死", "主动脉夹层", "肺栓塞", "急性心包炎")


def item(number: int, answer: str, options: tuple[str, ...] = OPTIONS, **fields: str) -> Item:
    return Item(f"cmexam/test#{number}", "cmexam", "test", f"第{number}题？", options, answer, fields=fields)


def cmexam(count: int) -> list[Item]:
    """Items in the shape of CMExam: five options, 3 % of them with several right ones."""
    rng = random.Random(0)
    several = [answer for answer in SETS if len(answer) > 1]
    answers = [rng.choice(several) if rng.random() < 0.032 else rng.choice("ABCDE") for _ in range(count)]
    return [item(number, answer, department=rng.choice(["内科", "外科"])) for number, answer in enumerate(answers)]


def test_a_random_answerer_scores_one_in_31() -> None:
    items, rng = cmexam(6811), random.Random(1)
    found = score(items, [rng.choice(SETS) for _ in items])
    assert found.chance == pytest.approx(1 / 31)
    assert found.accuracy.low <= 1 / 31 <= found.accuracy.high
    assert found.accuracy.value == pytest.approx(0.032, abs=0.0065)


@pytest.mark.parametrize("letter", "ABCDE")
def test_a_constant_letter_scores_its_share_of_the_key(letter: str) -> None:
    items = cmexam(1000)
    found = score(items, [letter] * 1000)
    assert found.correct == Counter(item.answer for item in items)[letter]
    assert found.accuracy.value == found.correct / 1000


def test_an_oracle_scores_everything() -> None:
    items = cmexam(500)
    found = score(items, [item.answer[::-1] for item in items])
    assert (found.accuracy.value, found.f1, found.failures, found.correct) == (1.0, 1.0, 0, 500)
    assert {interval.value for values in found.groups.values() for interval in values.values()} == {1.0}


def test_failures_stay_among_the_items() -> None:
    items = [item(number, "AB"[number % 2]) for number in range(10)]
    found = score(items, ["A", "B", None, None, "", "A", "A", "B", "C", "BA"])
    assert (found.n, found.correct, found.failures) == (10, 4, 3)
    assert found.accuracy.value == 0.4
    assert score(items, [None] * 10).f1 == 0.0


def test_weighted_f1_counted_by_hand() -> None:
    """Classes A (3 items), B (1), BD (1); predictions A, A, B, B, None."""
    items = [item(number, answer) for number, answer in enumerate(["A", "A", "A", "B", "BD"])]
    a = 2 * 1 * (2 / 3) / (1 + 2 / 3)
    b = 2 * 0.5 * 1 / 1.5
    assert score(items, ["A", "A", "B", "B", None]).f1 == pytest.approx((3 * a + 1 * b + 1 * 0) / 5)


def test_only_the_whole_set_is_right() -> None:
    assert correct([item(0, "ABD")] * 5, ["ABD", "DBA", "AB", "ABDE", None]) == [True, True, False, False, False]
    with pytest.raises(ValueError):
        correct([item(0, "A")], [])


def test_groups_hold_every_item_that_has_a_value() -> None:
    items = [
        item(0, "A", department="内科", difficulty="1"),
        item(1, "AB", department="外科"),
        item(2, "B", department="内科", competency="医学基础知识"),
    ]
    items.append(replace(items[0], id="ceval/val#1", source="ceval", fields={}))
    found = score(items, ["A", "A", None, "A"])
    groups = {
        group: {value: (got.value, got.n) for value, got in values.items()} for group, values in found.groups.items()
    }
    assert groups == {
        "source": {"ceval": (1.0, 1), "cmexam": (1 / 3, 3)},
        "department": {"内科": (0.5, 2), "外科": (0.0, 1)},
        "difficulty": {"1": (1.0, 1)},
        "competency": {"医学基础知识": (0.0, 1)},
        "answers": {"1": (2 / 3, 3), "2": (0.0, 1)},
    }
    assert json.loads(json.dumps(asdict(found)))["groups"]["answers"]["2"]["n"] == 1


@pytest.mark.parametrize("items", [[], [replace(item(0, "参考答案"), options=())]])
def test_exam_scores_need_exam_items(items: Sequence[Item]) -> None:
    with pytest.raises(ValueError, match="options in every item"):
        score(items, ["A"] * len(items))


CHATGLM = [
    ("答案：A，解释：心绞痛时间短。", "A", "well formed"),
    ("答案：B，\n解释：持续胸痛。", "B", "on two lines"),
    ("答案：A，解释：夹层，撕裂样痛。", "A，解释：夹层", "a second comma of the line takes the explanation along"),
    ("答案：DB，解释：无。", "DB", "letters are not ordered"),
    ("答案:A,解释:半角。", None, "half-width marks are not read"),
    ("答案：A", None, "no explanation"),
    ("选A", None, "other words"),
    ("", None, "empty"),
]


def test_the_official_chatglm_script() -> None:
    """evaluate_chatglm_result.py: what stands between 答案： and the last ，; what is empty is read back as missing."""
    answers = ["A", "B", "C", "BD", "A", "A", "A", "A"]
    items = [item(number, answer) for number, answer in enumerate(answers)]
    found = official(items, [reply for reply, _, _ in CHATGLM], "chatglm")
    assert (found.n, found.failures) == (4, 4), "failures leave the denominator"
    assert found.accuracy == 2 / 4
    assert found.f1 == pytest.approx(2 / 4)
    empty = official(items, [""] * 8, "chatglm")
    assert (empty.n, empty.accuracy, empty.f1) == (0, None, None), "the script divides by zero"


LORA = [
    ("B 急性心肌梗死\n解释:A错误", "B"),
    ("B 急性心肌梗死\nA错误", "AB"),
    ("患者CT、DNA阴性，选B", "ABCD"),
    ("急性心肌梗死", "B"),
    ("无法判断", "无答案"),
    ("DB", "BD"),
]


def test_the_official_lora_script() -> None:
    """evaluate_lora_result.py: letters and first words of options that occur anywhere, failures stay."""
    items = [item(number, answer) for number, (_, answer) in enumerate(LORA)]
    found = official(items, [reply for reply, _ in LORA], "lora")
    assert (found.n, found.failures, found.accuracy) == (6, 1, 1.0), "the failure equals the key 无答案 only here"
    wrong = official([item(number, "B") for number in range(6)], [reply for reply, _ in LORA], "lora")
    assert wrong.accuracy == 2 / 6


def test_the_official_accuracy_flatters() -> None:
    items = [item(number, "A") for number in range(10)]
    replies = ["答案：A，解释：略。"] * 2 + ["我不知道"] * 8
    assert official(items, replies, "chatglm").accuracy == 1.0
    assert score(items, ["A"] * 2 + [None] * 8).accuracy.value == 0.2


@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 99), st.data())
@settings(deadline=None, max_examples=100)
def test_permuted_items_ask_the_same(count: int, number: int, seed: int, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    original = item(seed, "".join(sorted("ABCDE"[place] for place in places)), OPTIONS[:count])
    moved = permuted(original, number, seed=seed)
    assert sorted(moved.options) == sorted(original.options)
    assert moved.options != original.options
    assert moved == permuted(original, number, seed=seed)
    right = [{one.options[one.letters.index(letter)] for letter in one.answer} for one in (original, moved)]
    assert right[0] == right[1]
    assert list(moved.answer) == sorted(moved.answer)
    assert permuted(original, 0, seed=seed) is original


def test_options_that_speak_of_others_keep_their_place() -> None:
    last = item(0, "E", ("发热", "咳嗽", "咯血", "胸痛", "以上都对"))
    assert {permuted(last, number, seed=0).options[4] for number in range(1, 9)} == {"以上都对"}
    assert {permuted(last, number, seed=0).answer for number in range(1, 9)} == {"E"}
    named = item(0, "D", ("发热", "咳嗽", "咯血", "A和B"))
    assert permuted(named, 1, seed=0) is named


def answered(items: Sequence[Item], choose: Callable[[Item], str | None]) -> tuple[Sequence[Item], list[str | None]]:
    return items, [choose(one) for one in items]


def test_consistency_sees_who_reads_positions() -> None:
    items = cmexam(200)
    runs = [items, *([permuted(one, number, seed=0) for one in items] for number in (1, 2))]
    by_text = consistency([answered(run, lambda one: one.answer) for run in runs])
    assert by_text.agreement is not None
    assert (by_text.agreement.value, by_text.agreement.n) == (1.0, 200)
    assert [run.value for run in by_text.accuracy] == [1.0] * 3
    by_place = consistency([answered(run, lambda _: "A") for run in runs])
    assert by_place.agreement is not None
    assert by_place.agreement.value < 0.2
    failing = consistency([answered(run, lambda _: None) for run in runs])
    assert failing.agreement is not None
    assert failing.agreement.value == 0.0, "failures agree on nothing"
    assert consistency([answered(items, lambda one: one.answer)] * 2).agreement is None, "nothing moved"
    with pytest.raises(ValueError, match="same items"):
        consistency([answered(items, lambda _: "A"), answered(items[1:], lambda _: "A")])


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """An eval stage as chimed writes it: 30 exam items of two sources, 5 open ones."""
    folder = tmp_path / "eval"
    folder.mkdir()
    blank = dict.fromkeys(COLUMNS["eval"].names, "") | {"options": [], "messages": []}
    exam = [
        {"id": f"{source}/{number}", "source": source, "kind": "exam", "question": f"第{number}题？", "answer": "B"}
        | {"options": list(OPTIONS), "department": "内科" if number % 2 else ""}
        | {"discipline": ("临床医学", "高等数学", "基础医学")[number % 3] if source == "ceval" else ""}
        for source in ("cmexam", "ceval")
        for number in range(15)
    ]
    turns = [{"role": "user", "content": "头痛"}, {"role": "assistant", "content": "多久了？"}]
    asked = [
        {"id": f"huatuo26m/{number}", "source": "huatuo26m", "kind": "open", "question": "三天了", "answer": "休息。"}
        | {"messages": turns}
        for number in range(5)
    ]
    rows = {"test": [*exam, *asked], "validation": exam[:3]}
    files = {}
    for split, items in rows.items():
        name = f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist([blank | item for item in items], COLUMNS["eval"]), folder / name)
        files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest = {"stage": "eval", "rows": {split: len(items) for split, items in rows.items()}, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_items_come_from_the_eval_stage(stage: Path) -> None:
    items = read_items(stage, ["huatuo26m/test", "cmexam/test"])
    assert [item.kind for item in items] == ["open"] * 5 + ["exam"] * 15
    assert (items[0].options, items[0].answer, items[0].history[1]["content"]) == ((), "休息。", "多久了？")
    assert (items[5].id, items[5].options, items[5].answer) == ("cmexam/0", OPTIONS, "B")
    assert [items[5].fields, items[6].fields] == [{}, {"department": "内科"}]
    assert {(item.source, item.split) for item in read_items(stage, ["cmexam/validation"])} == {
        ("cmexam", "validation")
    }


def test_disciplines_choose_among_the_items_of_their_set(stage: Path) -> None:
    medical = {"ceval/test": ["基础医学", "临床医学"]}
    items = read_items(stage, ["ceval/test", "cmexam/test"], disciplines=medical)
    assert Counter(item.fields.get("discipline") for item in items) == {"基础医学": 5, "临床医学": 5, None: 15}
    assert len(read_items(stage, ["ceval/test"], rows=3, disciplines=medical)) == 3
    with pytest.raises(DataError, match="ceval/test has no discipline 医学; it has 临床医学, 基础医学, 高等数学"):
        read_items(stage, ["ceval/test"], disciplines={"ceval/test": ["医学"]})
    with pytest.raises(DataError, match="cmexam/test has no discipline 医学; it has none"):
        read_items(stage, ["cmexam/test"], disciplines={"cmexam/test": ["医学"]})


def test_fewer_rows_are_a_part_of_more_rows(stage: Path) -> None:
    chosen = [
        [item.id for item in read_items(stage, ["cmexam/test", "ceval/test"], rows=rows, seed=3)] for rows in (4, 9)
    ]
    assert [len(ids) for ids in chosen] == [8, 18], "rows of each set"
    assert set(chosen[0]) < set(chosen[1])
    every = [item.id for item in read_items(stage, ["cmexam/test", "ceval/test"], rows=99)]
    assert [identity for identity in every if identity in chosen[1]] == chosen[1], "in the order of the files"
    assert chosen[0] != [item.id for item in read_items(stage, ["cmexam/test", "ceval/test"], rows=4, seed=4)]


def test_a_set_that_is_not_there_is_named(stage: Path) -> None:
    with pytest.raises(DataError, match=r"no set cmexam/train, medqa.*ceval/test, .*huatuo26m/test"):
        read_items(stage, ["cmexam/train", "cmexam/test", "medqa"])
    (stage / "manifest.json").unlink()
    with pytest.raises(DataError, match="not a finished build"):
        read_items(stage, ["cmexam/test"])
