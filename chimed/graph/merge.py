"""Facts of all sources as one graph: sorted, each once, and heads that are one entity under one name."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from chimed.dedup.minhash import buffers, code_points, longest
from chimed.phrases import Codes

Mask = NDArray[np.bool_]

SLICE = 300_000  # facts worded at once: bounds memory and the 2 GB that one Arrow string array holds
_COLUMNS = ("id", "source", "head", "relation", "tail", "head_type", "tail_type")


def canonical(facts: pa.Table, trust: Sequence[str] = ()) -> pa.Table:
    """The facts sorted by head, relation, source and id, each (head, relation, tail) once, heads merged by `aliases`.

    Sources come in order of `trust`, then by name. Texts are large strings: a whole graph can pass 2 GB.
    """
    table = pa.table({name: facts[name].cast(pa.large_string()).combine_chunks() for name in _COLUMNS})
    if len(table):
        table = _merged(table)
    head, relation, key = (codes(table[name].combine_chunks()) for name in ("head", "relation", "id"))
    sources = table["source"].combine_chunks()
    source = codes(sources)
    for place, name in enumerate(trust):
        source = np.where(equal(sources, name), place - len(trust), source)
    tail = codes(table["tail"].combine_chunks(), ranked=False)
    # The shorter id first: row 9 of a file stands before row 10.
    length = pc.binary_length(table["id"]).to_numpy()
    order = np.lexsort((key, length, source, tail, relation, head))
    order = order[starts_of(head[order], relation[order], tail[order])]
    order = order[np.lexsort((key[order], length[order], source[order], relation[order], head[order]))]
    return table.take(pa.array(order))


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
    encoded = column.dictionary_encode()
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


def equal(texts: pa.Array, text: str) -> Mask:
    """Which texts are this one."""
    mask: Mask = pc.equal(texts, text).to_numpy(zero_copy_only=False)
    return mask


def _merged(table: pa.Table) -> pa.Table:
    """The facts with heads under one name that are one entity.

    Encyclopedias call parts and kinds of a disease its aliases too (垂体卒中 of 垂体危象与垂体卒中), so a fact 别名
    between two heads merges them only if

    - neither is claimed by or claims another head: what is merged are pairs, never chains;
    - one name is short for the other: they begin alike, and the characters of the shorter stand in the longer in that
      order (先心病, 先天性心脏病). A name that only ends like the other is a kind of it (原发性肝癌, 肝癌);
    - no name joins two things by 与, 和, 及 or a mark, and both are of one type.

    The name with more facts stays; the other remains as its alias.
    """
    encoded = table["head"].combine_chunks().dictionary_encode()
    names, head = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    claims = np.flatnonzero(equal(table["relation"].combine_chunks(), "别名"))
    other = pc.fill_null(pc.index_in(table["tail"].combine_chunks().take(pa.array(claims)), names), -1).to_numpy()
    one, other = head[claims][other >= 0], other[other >= 0].astype(np.int64)
    low, high = np.minimum(one, other), np.maximum(one, other)
    low, high = np.divmod(np.unique((low * len(names) + high)[low != high]), len(names))
    claimed = np.bincount(np.append(low, high), minlength=len(names))
    kind = np.zeros(len(names), np.int64)
    kind[head[::-1]] = codes(table["head_type"].combine_chunks())[::-1]
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
    merged = names.take(pa.array(becomes[head]))
    # "Short is an alias of long" and its reverse both become "short is an alias of the name that stays".
    given = np.full(len(names), -1)
    given[main] = alias
    loop = pc.equal(merged, table["tail"].combine_chunks()).to_numpy(zero_copy_only=False)
    moved = becomes[head] != head
    own = pa.array(given[becomes[head]], mask=~(loop & moved))
    tail = pc.coalesce(names.take(own), table["tail"].combine_chunks())
    table = table.set_column(table.schema.get_field_index("head"), "head", merged)
    return table.set_column(table.schema.get_field_index("tail"), "tail", tail)


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
    """Whether each short text begins like the long one and its characters follow each other in it."""
    out = np.zeros(len(offsets) - 1, np.bool_)
    short = np.empty(longest(short_offsets), np.uint32)
    long = np.empty(longest(offsets), np.uint32)
    for row in range(len(out)):
        size = code_points(short_data, short_offsets[row], short_offsets[row + 1], short)
        count = code_points(data, offsets[row], offsets[row + 1], long)
        at = 0
        for place in range(count):
            if at < size and long[place] == short[at]:
                at += 1
            elif place == 0:
                break
        out[row] = at == size and size > 1
    return out
