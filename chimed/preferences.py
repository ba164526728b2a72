"""Preference pairs that teach what is right and nothing else: made from exams, and balanced by length.

A preference set is spoilt when something but its content tells chosen from rejected: length, letters, wording. A model
then learns that instead of medicine. So pairs made here are alike in all that is not the answer, and pairs that came
from elsewhere can be selected until length says nothing.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chimed.dedup import exact_keys
from chimed.dedup.minhash import buffers
from chimed.phrases import Codes, pick
from chimed.records import TURNS
from chimed.stages import COLUMNS, render

LOW, HIGH = 0.9, 1.1  # the ratios chosen / rejected at which length says nothing

# Options that speak of other options, by phrase or by letter: shuffled they lose their sense, and where "以上都对" is
# right, each of the others is a true statement.
_ABOUT_OPTIONS = (
    "^(以上|上述|前述|[两二三四五]者|全部|都[是对不有可正]|均[是对不有可正为])"
    "|^[A-J]( ?[、,，和与及或+＋] ?[A-J])+|^[A-J]{1,4}项?[都均]"
)
_CLOSING = "。；;"  # what `stages` takes off the end of an option in an answer
# Right options tend to be the long ones. Three pairs of four look for a rejected option at least as long, one for one
# at most as long: measured on 14,000 items, chosen answers are then as often shorter as longer.
_LONGER = np.array([-1, 1, 1, 1])
_FAR = 1 << 32  # more than any length

UInt64 = NDArray[np.uint64]
Mask = NDArray[np.bool_]


def exam_pairs(table: pa.Table) -> pa.Table:
    """The preference pairs of kept exam rows: a question with shuffled options, the right answer and a wrong one.

    `table` has the columns of the exam shape; the pairs have those of the dpo stage, the kind "exam" and the id
    "<id>#pair", in the order of their rows, and hang on nothing but their own row. Question and answers are worded as
    fine-tuning words them, both answers by one template, so that what differs is the answer alone:

    - Options are shuffled: no letter is right, or rejected, more often than another.
    - The rejected answer is the right one with one option swapped for a wrong one of about its length: it has as many
      options, and neither is a part of the other.
    - Neither has an explanation. Explanations name the right option: behind a wrong answer such a text contradicts it,
      behind the right one alone it gives it away, and a false one would be invented medicine.

    There is no pair where all options are right, where one speaks of others ("以上都对") or where two read the same.
    An answer that names no option raises ValueError.

    >>> row = {"id": "a/1", "question": "百日咳的病原体是", "options": ["鲍特菌", "链球菌"], "answer": "A"}
    >>> pair = exam_pairs(pa.Table.from_pylist([{**row, "explanation": "鲍特菌致病。"}])).to_pylist()[0]
    >>> print(pair["prompt"][0]["content"])
    请回答下面的单项选择题。
    百日咳的病原体是
    A. 链球菌
    B. 鲍特菌
    >>> pair["chosen"][0]["content"], pair["rejected"][0]["content"]
    ('答案：B. 鲍特菌。', '答案：A. 链球菌。')
    """
    table = table.filter(pa.array(_fair(table.combine_chunks()))).combine_chunks()
    if not len(table):
        return COLUMNS["dpo"].empty_table()
    offsets, row, options = _options(table)
    place = np.arange(len(options)) - offsets[row]
    ids = table["id"].chunk(0)
    keys = exact_keys(pc.binary_join_element_wise(ids.take(pa.array(row)), pa.array(place).cast(pa.string()), "#"))
    right = _right(table["answer"].chunk(0), offsets)
    wrong = _swapped(table, right, keys[:, 1])
    order = np.lexsort((keys[:, 0], row))
    shuffled = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), options.take(pa.array(order)))
    chosen, rejected = (_answered(table, shuffled, flags[order]) for flags in (right, wrong))
    columns = {
        "id": pc.binary_join_element_wise(ids, "pair", "#"),
        "source": chosen["source"],
        "prompt": pc.list_slice(chosen["messages"], 0, 1),
        "chosen": pc.list_slice(chosen["messages"], 1, 2),
        "rejected": pc.list_slice(rejected["messages"], 1, 2),
        "kind": pa.repeat("exam", len(table)),
    }
    return pa.table(columns).cast(COLUMNS["dpo"])


def fact_pairs(table: pa.Table) -> pa.Table:
    """The pairs of `graph.corrupted` in the columns of the dpo stage, of the kind "fact"."""
    rows = len(table)
    start = pa.array(np.arange(rows + 1, dtype=np.int32))
    turns = {
        name: pa.ListArray.from_arrays(
            start,
            pa.StructArray.from_arrays(
                [pa.repeat(role, rows), table[column].combine_chunks()], fields=list(TURNS.value_type)
            ),
            type=TURNS,
        )
        for name, role, column in (
            ("prompt", "user", "question"),
            ("chosen", "assistant", "chosen"),
            ("rejected", "assistant", "rejected"),
        )
    }
    columns = {"id": table["id"], "source": table["source"], **turns, "kind": pa.repeat("fact", rows)}
    return pa.table(columns).select(COLUMNS["dpo"].names).cast(COLUMNS["dpo"])


def _options(table: pa.Table) -> tuple[Codes, Codes, pa.Array]:
    """The offsets of the options of each row, from 0, the row of each option, and the options."""
    lists = table["options"].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], np.repeat(np.arange(len(lists)), np.diff(offsets)), lists.flatten()


def _fair(table: pa.Table) -> Mask:
    """Which rows can give a pair."""
    offsets, row, options = _options(table)
    sizes = np.diff(offsets)
    speaks = pc.match_substring_regex(options, _ABOUT_OPTIONS).to_numpy(zero_copy_only=False)
    bare = pc.replace_substring_regex(options, rf"\s+|[{_CLOSING}\s]+$", "")
    codes = bare.dictionary_encode().indices.to_numpy().astype(np.int64)
    _, first = np.unique(row * (len(codes) + 1) + codes, return_index=True)
    fair = pc.less(pc.utf8_length(table["answer"]), pa.array(sizes)).to_numpy(zero_copy_only=False)
    about, distinct = (np.bincount(row[which], minlength=len(sizes)) for which in (speaks, first))
    return np.asarray(fair & (about == 0) & (distinct == sizes), bool)


def _right(answer: pa.Array, offsets: Codes) -> Mask:
    """Which options the letters of the answers name."""
    starts, data = buffers(answer)
    letters = data[starts[0] : starts[-1]].astype(np.int64) - ord("A")
    row = np.repeat(np.arange(len(answer)), np.diff(starts))
    if np.any((letters < 0) | (letters >= np.diff(offsets)[row])) or np.any(np.diff(starts) == 0):
        raise ValueError("an exam answer names a letter that is no option: only kept rows can give pairs")
    right = np.zeros(offsets[-1], bool)
    right[offsets[row] + letters] = True
    return right


def _swapped(table: pa.Table, right: Mask, keys: UInt64) -> Mask:
    """The right options of each row with the first of them swapped for the wrong one nearest to it in length.

    keys: a hash for each option, which decides between options equally near. All is decided in the order of the source,
    so that it has no part in which letters the shuffle gives.
    """
    offsets, row, options = _options(table)
    length = pc.utf8_length(pc.utf8_rtrim(options, _CLOSING)).to_numpy().astype(np.int64)
    given = np.minimum.reduceat(np.where(right, np.arange(len(right)), len(right)), offsets[:-1])
    longer = _LONGER[pick(table["id"].chunk(0), len(_LONGER), "longer")]
    gap = (length - length[given][row]) * longer[row]
    cost = np.where(right, 2 * _FAR, np.where(gap < 0, _FAR - gap, gap))
    taken = np.lexsort((keys, cost, row))[offsets[:-1]]
    swapped = right.copy()
    swapped[given], swapped[taken] = False, True
    return swapped


def _answered(table: pa.Table, options: pa.ListArray, marked: Mask) -> pa.Table:
    """Question and answer as fine-tuning words them, for rows with these options, the marked ones as the answer."""
    offsets, row, _ = _options(table)
    named = np.flatnonzero(marked)
    letters = pa.array(list("ABCDEFGHIJ")).take(pa.array(named - offsets[row[named]]))
    ends = np.append(0, np.cumsum(np.bincount(row[named], minlength=len(table))))
    answer = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), letters), "")
    columns = {"options": options, "answer": answer, "explanation": pa.repeat("", len(table))}
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return render("sft", "exam", table)


def ratio(chosen: NDArray[np.number], rejected: NDArray[np.number]) -> float:
    """The median of chosen / rejected lengths, pair by pair: 1 where length says nothing.

    >>> ratio(np.array([30, 20, 90]), np.array([10, 20, 10]))
    3.0
    """
    return float(np.median(_ratios(chosen, rejected)))


def _ratios(chosen: NDArray[np.number], rejected: NDArray[np.number]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(chosen, 1) / np.maximum(rejected, 1), np.float64)


def balanced(chosen: NDArray[np.number], rejected: NDArray[np.number], hashes: UInt64) -> Mask:
    """Which pairs to keep so that the median of chosen / rejected lengths lies in 0.9 … 1.1: as many as can be.

    Pairs within 0.9 … 1.1 all stay. Of the others the side that is too many loses those farthest from 1, where length
    says most; `hashes` decide between equals, so that the order of the pairs does not matter. Texts are never cut.

    Where no pair lies within, no selection may be able to do it: then the pairs nearest to 1 take the place of those
    within, and `ratio` of what is kept says how far it got. At least one pair is kept.

    >>> chosen, rejected = np.array([10, 30, 80, 90, 5]), np.array([10, 10, 10, 10, 10])
    >>> balanced(chosen, rejected, np.arange(5, dtype=np.uint64)).tolist()
    [True, True, False, False, True]
    """
    ratios = _ratios(chosen, rejected)
    far = np.abs(np.log(ratios))
    within = (ratios >= LOW) & (ratios <= HIGH)
    if not within.any():
        within = far == far.min(initial=np.inf)
    keep = within.copy()
    sides = [np.flatnonzero(~within & (ratios < 1)), np.flatnonzero(~within & (ratios > 1))]
    # Both middle ratios are within as long as neither side outweighs the other and all but one of those within.
    most = min(map(len, sides)) + int(within.sum()) - 1
    for side in sides:
        keep[side[np.lexsort((hashes[side], far[side]))][: max(most, 0)]] = True
    return keep
