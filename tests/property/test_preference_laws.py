"""Laws of preference pairs made from exams and of balance by length, whatever the rows."""

from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chimed.preferences import HIGH, LOW, balanced, exam_pairs, ratio
from chimed.quality import verdicts
from chimed.records import Exam, Record, to_table
from chimed.stages import COLUMNS

FEW = settings(max_examples=60, deadline=None)
# No line ends, so that the options of a prompt can be read back from its lines.
TEXT = st.text(st.sampled_from("百日咳病。；、A1-😀𠮷 <"), max_size=12).map(lambda text: f"药{text.strip()}")
OPTION = TEXT | st.sampled_from(["以上都对", "A+B", "感染", "感染。", "出血 性", "出血性"])


@st.composite
def exams(draw: st.DrawFn) -> Exam:
    options = tuple(draw(st.lists(OPTION, min_size=2, max_size=10)))
    answer = draw(st.sets(st.sampled_from("ABCDEFGHIJ"[: len(options)]), min_size=1))
    return Exam(draw(TEXT), options, "".join(sorted(answer)), draw(st.just("") | TEXT))


def kept(items: list[Exam]) -> pa.Table:
    table = to_table("exam", [Record("made", f"a.csv#{n}", "train", item) for n, item in enumerate(items)])
    equal = [reason == "duplicate-options" for reason in verdicts("exam", table).to_pylist()]
    return table.filter(pa.array([not same for same in equal], pa.bool_()))


TABLES = st.lists(exams(), max_size=6).map(kept)


def said(pair: dict[str, Any], side: str) -> str:
    (turn,) = pair[side]
    return str(turn["content"])


def bare(text: str) -> str:
    return "".join(text.rstrip("。；;").split())


@given(table=TABLES, place=st.integers(0, 6))
@FEW
def test_a_pair_hangs_on_its_row_alone(table: pa.Table, place: int) -> None:
    whole = exam_pairs(table)
    assert whole.schema == COLUMNS["dpo"]
    parts = [exam_pairs(part) for part in (table.slice(0, place), table.slice(place))]
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()
    order = [row_id.removesuffix("#pair") for row_id in whole["id"].to_pylist()]
    assert order == [row_id for row_id in table["id"].to_pylist() if row_id in order]


@given(table=TABLES)
@FEW
def test_the_chosen_answer_is_right_and_the_rejected_one_is_wrong(table: pa.Table) -> None:
    items = {f"{row['id']}#pair": row for row in table.to_pylist()}
    for pair in exam_pairs(table).to_pylist():
        item = items[pair["id"]]
        shown = dict(line.split(". ", 1) for line in said(pair, "prompt").split("\n") if line[1:3] == ". ")
        assert sorted(shown.values()) == sorted(item["options"])
        key = {item["options"]["ABCDEFGHIJ".index(letter)] for letter in item["answer"]}
        answers = []
        for side in ("chosen", "rejected"):
            # The answer is a template, then each letter with its option as the prompt shows them.
            ends = [s for s in _subsets(list(shown), len(key)) if said(pair, side).endswith(_told(s, shown))]
            assert ends, said(pair, side)
            answers.append(({shown[letter] for letter in ends[0]}, len(_told(ends[0], shown))))
        (chosen, long), (rejected, other) = answers
        assert chosen == key
        assert len(rejected) == len(key) and len(rejected & key) == len(key) - 1
        assert not {bare(text) for text in rejected - key} & {bare(text) for text in key}
        assert said(pair, "chosen")[:-long] == said(pair, "rejected")[:-other]


def _subsets(letters: list[str], size: int) -> list[tuple[str, ...]]:
    return list(combinations(letters, size))


def _told(letters: tuple[str, ...], shown: dict[str, str]) -> str:
    return "；".join(f"{letter}. {shown[letter].rstrip('。；;')}" for letter in letters) + "。"


LENGTHS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=9)


def columns(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    chosen, rejected = np.array(pairs, np.int64).T
    return chosen, rejected, np.random.default_rng(len(pairs)).integers(0, 2**63, len(pairs)).astype(np.uint64)


@given(pairs=LENGTHS, within=st.integers(90, 110))
@FEW
def test_the_median_ratio_is_near_1_where_a_pair_is(pairs: list[tuple[int, int]], within: int) -> None:
    chosen, rejected, hashes = columns([*pairs, (within, 100)])
    keep = balanced(chosen, rejected, hashes)
    assert LOW <= ratio(chosen[keep], rejected[keep]) <= HIGH
    ordered = np.sort(chosen / rejected)
    if ordered[(len(ordered) - 1) // 2] >= LOW and ordered[len(ordered) // 2] <= HIGH:
        assert keep.all()


@given(pairs=LENGTHS)
@FEW
def test_no_larger_selection_has_its_middle_within(pairs: list[tuple[int, int]]) -> None:
    chosen, rejected, hashes = columns([*pairs, (100, 100)])
    kept_pairs = int(balanced(chosen, rejected, hashes).sum())
    for size in range(kept_pairs + 1, len(chosen) + 1):
        for some in combinations(np.maximum(chosen, 1) / rejected, size):
            ordered = sorted(some)
            assert ordered[(size - 1) // 2] < LOW or ordered[size // 2] > HIGH


@given(pairs=LENGTHS, data=st.data())
@FEW
def test_balance_does_not_hang_on_the_order(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    chosen, rejected, hashes = columns(pairs)
    keep = balanced(chosen, rejected, hashes)
    assert keep.any()
    order = np.array(data.draw(st.permutations(range(len(pairs)))))
    assert balanced(chosen[order], rejected[order], hashes[order]).tolist() == keep[order].tolist()
    within = (chosen >= LOW * rejected) & (chosen <= HIGH * rejected)
    assert keep[within].all()


@given(pairs=LENGTHS)
@FEW
def test_what_is_balanced_stays_whole(pairs: list[tuple[int, int]]) -> None:
    chosen, rejected, hashes = columns([*pairs, (100, 100)])
    keep = balanced(chosen, rejected, hashes)
    assert balanced(chosen[keep], rejected[keep], hashes[keep]).all()
