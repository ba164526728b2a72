"""Facts of all sources as one graph: sorted, each once, and heads that are one entity under one name."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed.dedup.minhash import buffers, code_points, longest
from chimed.phrases import UNASKED, Codes

Mask = NDArray[np.bool_]

SLICE = 300_000  # facts worded at once: bounds memory and the 2 GB that one Arrow string array holds
_ENDINGS = tuple(map(ord, "病症征性型"))  # what tells two names of a disease apart and means nothing
_CODED = ("source", "head", "relation", "head_type", "tail_type")  # said again and again: held as a dictionary


def canonical(facts: pa.Table, trust: Sequence[str] = ()) -> pa.Table:
    """The facts sorted by head, relation, source and id, each (head, relation, tail) once, heads merged by `aliases`.

    Sources come in order of `trust`, then by name. Tails are large strings, since a whole graph can pass 2 GB, the
    other columns dictionaries: `parts` makes plain strings of some rows at a time.
    """
    turn = _turns(facts["id"])
    columns = {name: facts[name].dictionary_encode().combine_chunks() for name in _CODED}
    table = pa.table(columns | {"tail": facts["tail"].cast(pa.large_string()).combine_chunks()})
    del columns, facts  # most of the memory of a graph
    kept = np.ones(len(table), bool)
    if len(table):
        table, kept = _merged(table)
    sources = table["source"].combine_chunks()
    source = codes(sources)
    for place, name in enumerate(trust):
        source = np.where(equal(sources, name), place - len(trust), source)
    turn += source * len(table)
    head, relation = (codes(table[name].combine_chunks()) for name in ("head", "relation"))
    claim = head * (relation.max(initial=0) + 1) + relation
    del source, head, relation
    tail = codes(table["tail"].combine_chunks(), ranked=False)
    order = np.lexsort((turn, tail, claim))
    order = order[kept[order]]
    order = order[starts_of(claim[order], tail[order])]
    order = order[np.lexsort((turn[order], claim[order]))]
    return table.take(pa.array(order))


def _turns(ids: pa.ChunkedArray) -> Codes:
    """The place of each id among all, the shorter first: row 9 of a file stands before row 10."""
    texts = ids.cast(pa.large_string()).combine_chunks()
    order = pc.sort_indices(texts).to_numpy()
    order = order[np.argsort(pc.binary_length(texts).to_numpy()[order], kind="stable")]
    turn: Codes = np.empty(len(texts), np.int64)
    turn[order] = np.arange(len(texts))
    return turn


def askable(facts: pa.Table) -> pa.Table:
    """The facts on heads of which the name says which is meant."""
    return facts.filter(pa.array(~among(facts["head_type"], UNASKED)))


def among(column: pa.ChunkedArray, texts: Iterable[str]) -> Mask:
    """Which entries of a dictionary column are one of these."""
    encoded = column.combine_chunks()
    own = pc.is_in(encoded.dictionary, pa.array(texts, encoded.dictionary.type))
    mask: Mask = own.to_numpy(zero_copy_only=False)[encoded.indices.to_numpy()]
    return mask


def parts(facts: pa.Table) -> Iterator[pa.Table]:
    """Slices of sorted facts that never part a head, as plain strings."""
    if not len(facts):
        return
    begins = np.flatnonzero(starts_of(codes(facts["head"].combine_chunks(), ranked=False)))
    cuts = np.unique(begins[np.searchsorted(begins, np.arange(0, begins[-1] + 1, SLICE))])
    for start, stop in zip(cuts, [*cuts[1:], len(facts)], strict=True):
        part = facts.slice(start, stop - start)
        yield pa.table({name: part[name].cast(pa.string()).combine_chunks() for name in part.column_names})


def codes(column: pa.Array, *, ranked: bool = True) -> Codes:
    """A number a text: equal for equal texts and, if ranked, in their order."""
    encoded = column.dictionary_encode()  # a dictionary stays as it is
    numbers: Codes = encoded.indices.to_numpy().astype(np.int64)
    if not ranked:
        return numbers
    rank: Codes = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    found: Codes = rank[numbers]
    return found


def starts_of(*columns: Codes) -> Mask:
    """Where a run of equal codes begins."""
    begins = np.ones(len(columns[0]), bool)
    begins[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return begins


def distinct(numbers: Codes) -> Codes:
    """The numbers, ascending, each once. (np.unique hashes, at thirty times the cost.)"""
    ordered = np.sort(numbers)
    return ordered[starts_of(ordered)] if len(ordered) else ordered


def place(groups: Codes) -> Codes:
    """The place of each row in its run of equal codes, from 0."""
    starts = np.flatnonzero(starts_of(groups)) if len(groups) else groups
    places: Codes = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return places


def equal(texts: pa.Array, text: str) -> Mask:
    """Which texts are this one."""
    if pa.types.is_dictionary(texts.type):
        return among(pa.chunked_array([texts]), [text])
    mask: Mask = pc.equal(texts, text).to_numpy(zero_copy_only=False)
    return mask


def _merged(table: pa.Table) -> tuple[pa.Table, Mask]:
    """The facts with heads under one name that are one entity, and which of them still say something.

    Encyclopedias call parts and kinds of a disease its aliases too (垂体卒中 of 垂体危象与垂体卒中), so a fact 别名
    between two heads merges them only if

    - neither is claimed by or claims another head: what is merged are pairs, never chains;
    - one name is short for the other: they begin alike, the characters of the shorter stand in the longer in that
      order, and what the longer has more is nothing but 病, 症, 征, 性, 型 (骨质疏松症) or stands in several places
      (先天性心脏病, 先心病). What stands in one place names a kind (急性胃炎, 急性腐蚀性胃炎; 原发性肝癌, 肝癌);
    - no name joins two things by 与, 和, 及 or a mark, and both are of one type.

    The name with more facts stays; the other remains as its alias.
    """
    encoded, tail = table["head"].combine_chunks(), table["tail"].combine_chunks()
    names, head = encoded.dictionary.cast(pa.large_string()), encoded.indices.to_numpy().astype(np.int64)
    claims = np.flatnonzero(equal(table["relation"].combine_chunks(), "别名"))
    other = pc.fill_null(pc.index_in(tail.take(pa.array(claims)), names), -1).to_numpy()
    one, other = head[claims][other >= 0], other[other >= 0].astype(np.int64)
    low, high = np.minimum(one, other), np.maximum(one, other)
    low, high = np.divmod(distinct((low * len(names) + high)[low != high]), len(names))
    claimed = np.bincount(np.append(low, high), minlength=len(names))
    kind = np.zeros(len(names), np.int64)
    np.maximum.at(kind, head, codes(table["head_type"].combine_chunks()))
    alone = (claimed[low] == 1) & (claimed[high] == 1) & (kind[low] == kind[high])
    low, high = low[alone], high[alone]
    alike = _alike(names.take(pa.array(low)), names.take(pa.array(high)))
    low, high = low[alike], high[alike]
    # More facts first, then the name that sorts first.
    rank = codes(names)
    facts = np.bincount(head, minlength=len(names))
    swap = (facts[high] > facts[low]) | ((facts[high] == facts[low]) & (rank[high] < rank[low]))
    main, alias = np.where(swap, high, low), np.where(swap, low, high)
    becomes = np.arange(len(names))
    becomes[alias] = main
    # What the name that goes says of the one that stays, or the other way round, is that it is its alias.
    goes = np.flatnonzero(becomes[head] != head)
    same = pc.equal(names.take(pa.array(becomes[head[goes]])), tail.take(pa.array(goes))).to_numpy(zero_copy_only=False)
    loop = np.zeros(len(head), bool)
    loop[goes[same]] = True
    given = np.full(len(names), -1)
    given[main] = alias
    if loop.any():
        tail = pc.replace_with_mask(tail, pa.array(loop), names.take(pa.array(given[becomes[head[loop]]])))
    merged = pa.DictionaryArray.from_arrays(pa.array(becomes[head], pa.int32()), encoded.dictionary)
    table = table.set_column(table.schema.get_field_index("head"), "head", merged)
    table = table.set_column(table.schema.get_field_index("tail"), "tail", tail)
    return table, ~loop | equal(table["relation"].combine_chunks(), "别名")


def _alike(one: pa.Array, other: pa.Array) -> Mask:
    """Which pairs of names are a name and what is short for it."""
    flip = pc.greater(pc.utf8_length(one), pc.utf8_length(other))
    short, long = pc.if_else(flip, other, one), pc.if_else(flip, one, other)
    joins = pc.match_substring_regex(long, r"[与和及、，或（(/]").to_numpy(zero_copy_only=False)
    found = _abbreviates(*buffers(short.cast(pa.string())), *buffers(long.cast(pa.string())))
    mask: Mask = found & ~joins
    return mask


@njit(cache=True, nogil=True)
def _abbreviates(short_offsets: Any, short_data: Any, offsets: Any, data: Any) -> Any:
    """Whether each short text begins like the long one and leaves out nothing but endings, or several things, of it."""
    out = np.zeros(len(offsets) - 1, np.bool_)
    short = np.empty(longest(short_offsets), np.uint32)
    long = np.empty(longest(offsets), np.uint32)
    for row in range(len(out)):
        size = code_points(short_data, short_offsets[row], short_offsets[row + 1], short)
        count = code_points(data, offsets[row], offsets[row + 1], long)
        at = gaps = 0
        inside, endings = False, True
        for place in range(count):
            if at < size and long[place] == short[at]:
                at += 1
                inside = False
                continue
            if at == 0:
                break
            gaps += not inside
            inside = True
            endings &= long[place] in _ENDINGS
        out[row] = at == size and size > 1 and (endings or gaps > 1)
    return out


@njit(cache=True, nogil=True)
def holds(long: Any, short: Any) -> bool:
    """Whether the characters of `short` stand in `long` side by side."""
    for start in range(len(long) - len(short) + 1):
        place = 0
        while place < len(short) and long[start + place] == short[place]:
            place += 1
        if place == len(short):
            return True
    return False
