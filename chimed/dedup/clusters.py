"""Who stays: band keys -> candidate pairs -> verified pairs -> kept rows and the rows that repeat them.

Rows are walked in `order`. A row is dropped exactly if a verified neighbour comes before it and is kept, and names the
most similar one: so of a chain A~B~C whose ends are unlike, C stays, and whole groups are never wiped out because of
what lies between them.

Candidates are all pairs of a bucket (rows that share a band key) of up to 16 rows. In a larger bucket rows meet only
its kept rows, one of them a round, and only while they are not dropped. A bucket may spend 8 comparisons a row and 64
more for each row dropped, so that a million near-copies cost a few million comparisons, not half a billion. A kept row
that is like a dropped one also meets the row that the dropped one repeats.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from chimed.dedup.minhash import Texts, UInt64, jaccard, mix, power

Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]

SMALL = 16  # rows of a bucket that is compared pair by pair
ROUNDS = 128  # rows of a large bucket that are compared with all others
PATIENCE = 8  # comparisons a row that a large bucket may spend before it absorbs anything
REWARD = 64  # further comparisons for each row absorbed
PENDING = 2  # pairs a row that wait for verification at most
BATCH = 8192  # pairs whose texts are read together
FEW = 256  # pairs that are not worth sharing out

_ONE, _TOP, _LOW, _HALF = np.uint64(1), np.uint64(20), np.uint64(0xFFFFFFFF), np.uint64(32)
_SALT = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Clusters:
    """What became of n rows: three arrays of length n.

    by: the kept row that this row repeats, -1 for a kept row.
    similarity: the exact Jaccard similarity to it, 0 for a kept row.
    component: the row that comes first among all rows tied to this one through verified pairs; rows of one component
        belong on one side of a train/validation split.
    """

    by: Int64
    similarity: npt.NDArray[np.float64]
    component: Int64


@njit(cache=True, nogil=True)
def _combine(keys: Any, more: Any, out: Any) -> None:
    """One key for two; 0 (no key) stays 0."""
    for i in range(len(keys)):
        out[i] = max(mix(keys[i] ^ mix(more[i] + _SALT)), _ONE) if keys[i] else np.uint64(0)


@njit(cache=True, nogil=True)
def _met(keys: Any, counters: Any, rows: Any) -> Any:
    """Fills `rows` with those whose key another row may have, and returns how many they are: most others are dropped
    by saturating counters, a power of two of them.
    """
    last = np.uint64(len(counters) - 1)
    for key in keys:
        counters[key & last] += counters[key & last] < 2
    count = 0
    for i in range(len(keys)):
        if keys[i] and counters[keys[i] & last] > 1:
            rows[count] = i
            count += 1
    return count


@njit(cache=True, nogil=True)
def _grouped(keys: Any, rows: Any, table: Any, scratch: Any, members: Any, starts: Any) -> Any:
    """Fills `members` and `starts` for `_buckets`, and returns how many there are of each.

    table: one of open addressing, a power of two of -1. scratch: for each row the place of the first with its key;
    and there (zeros at first) how many have it, then where in `members` the next one goes.
    """
    first, size = scratch
    last = np.uint64(len(table) - 1)
    for j in range(len(rows)):
        slot = (keys[rows[j]] >> _TOP) & last
        while table[slot] >= 0 and keys[rows[table[slot]]] != keys[rows[j]]:
            slot = (slot + _ONE) & last
        if table[slot] < 0:
            table[slot] = j
        first[j] = table[slot]
        size[first[j]] += 1
    kept = total = 0
    for j in range(len(rows)):
        one = first[j]
        if one == j and size[j] > 1:
            kept += 1
            starts[kept] = total + size[j]
            size[j], total = total, starts[kept]
        elif one == j:
            size[j] = -1  # only the counter was shared
        if size[one] >= 0:
            members[size[one]] = rows[j]
            size[one] += 1
    return total, kept


def _buckets(keys: UInt64) -> tuple[Integers, Int64]:
    """Rows that share a key with another: `members` bucket by bucket, ascending, and the bounds of each bucket."""
    rows = np.empty(len(keys), np.int32)
    rows = rows[: _met(keys, np.zeros(power(4 * len(keys)), np.uint8), rows)]
    n, table = len(rows), np.full(power(2 * len(rows)), -1, np.int32)
    members, starts = np.empty(n, np.int32), np.zeros(n + 1, np.int64)
    total, kept = _grouped(keys, rows, table, (np.empty(n, np.int32), np.zeros(n, np.int32)), members, starts)
    return members[:total].copy(), starts[: kept + 1].copy()


def _small_pairs(members: Integers, starts: Int64) -> UInt64:
    """All packed pairs of the buckets of at most SMALL rows."""
    sizes = np.diff(starts)
    rows = members[np.repeat(sizes <= SMALL, sizes)].astype(np.uint64)
    own = sizes[sizes <= SMALL]
    bucket = np.repeat(np.arange(len(own)), own)
    pairs = []
    for gap in range(1, min(SMALL, int(own.max(initial=1)))):
        at = np.flatnonzero(bucket[gap:] == bucket[:-gap])
        pairs.append((rows[at] << _HALF) | rows[at + gap])
    return np.concatenate([np.empty(0, np.uint64), *pairs])


def _large(members: Integers, starts: Int64) -> tuple[Integers, Int64]:
    """The buckets of more than SMALL rows: their members, and for `_round` the head, stop and credit of each."""
    sizes = np.diff(starts)
    own = sizes[sizes > SMALL]
    stops = np.cumsum(own)
    return members[np.repeat(sizes > SMALL, sizes)], np.stack([stops - own, stops, PATIENCE * own], 1)


@njit(cache=True, nogil=True)
def _round(members: Any, state: Any, by: Any, out: Any) -> Any:
    """Packed pairs of one round: in every bucket with credit the next kept row, with all kept rows behind it. Fills
    `out`, which has room for the rows of all, and returns how many there are.
    """
    k = 0
    for b in range(len(state)):
        head, stop = state[b, 0], state[b, 1]
        while head < stop and by[members[head]] >= 0:
            head += 1
        before, dropped = k, 0
        for i in range(head + 1, stop):
            if by[members[i]] < 0:
                out[k] = (np.uint64(members[head]) << _HALF) | np.uint64(members[i])
                k += 1
            else:
                dropped += 1
        if state[b, 2] + REWARD * dropped < 0:
            k = before
        elif k > before:
            state[b, 0], state[b, 2] = head + 1, state[b, 2] - (k - before)
    return k


def _rounded(members: Integers, state: Int64, by: Integers) -> UInt64:
    out = np.empty(int((state[:, 1] - state[:, 0]).sum()), np.uint64)
    return out[: _round(members, state, by, out)] if len(out) else out


@njit(cache=True, nogil=True)
def _root(component: Any, row: Any) -> Any:
    while component[row] != row:
        component[row] = component[component[row]]
        row = component[row]
    return row


@njit(cache=True, nogil=True)
def _decide(packed: Any, similarity: Any, scratch: Any, by: Any, best: Any, component: Any) -> None:
    """Walks rows in order: the most similar kept earlier neighbour, and the first row of each connected component.

    scratch: n + 1 zeros, and as many places as pairs.
    """
    (bounds, edges), n = scratch, len(by)
    for pair in packed:
        bounds[(pair & _LOW) + _ONE] += 1
    for i in range(n):
        bounds[i + 1] += bounds[i]
        by[i], best[i], component[i] = -1, 0, i
    for e in range(len(packed)):
        later = packed[e] & _LOW
        edges[bounds[later]] = e
        bounds[later] += 1
    at = 0
    for i in range(n):
        for k in range(at, bounds[i]):
            earlier, alike = np.int64(packed[edges[k]] >> _HALF), similarity[edges[k]]
            if by[earlier] < 0 and (alike > best[i] or (alike == best[i] and earlier < by[i])):
                by[i], best[i] = earlier, alike
            one, two = _root(component, earlier), _root(component, i)
            component[max(one, two)] = min(one, two)
        at = bounds[i]
    for i in range(n):
        component[i] = component[component[i]]  # a parent comes before its rows, and is final already


class _Graph:
    """The verified pairs found so far, over ranks (places in `order`), and what they decide."""

    def __init__(
        self, order: Integers, group: Integers, texts: Callable[[Int64], Texts], threshold: float, workers: int
    ) -> None:
        self.rows = np.argsort(order, kind="stable")
        self.group = group[self.rows].astype(np.int64)
        self.texts, self.threshold, self.workers = texts, threshold, workers
        self.packed, self.similarity = np.empty(0, np.uint64), np.empty(0, np.float64)
        self.tried = np.empty(0, np.uint64)
        n = len(order)
        self.by, self.best = np.full(n, -1, np.int32), np.zeros(n, np.float64)
        self.component = np.arange(n, dtype=np.int32)

    def keys(self, column: UInt64) -> UInt64:
        """A band column in rank order, rows of different groups kept apart."""
        return combine(column[self.rows], self.group)

    def verify(self, pairs: UInt64) -> None:
        """Keeps those of the sorted, distinct pairs whose texts are alike; reads texts a batch at a time."""
        packed, similarity = [self.packed], [self.similarity]
        size = min(BATCH, max(FEW, -(-len(pairs) // self.workers)))
        batches = (pairs[at : at + size] for at in range(0, len(pairs), size))
        with ThreadPoolExecutor(self.workers) as pool:  # the kernels hold no lock
            for batch, found in pool.map(self._alike, batches) if self.workers > 1 else map(self._alike, batches):
                packed.append(batch)
                similarity.append(found)
        self.packed = np.concatenate(packed)
        packed.clear()  # one field at a time: these are the largest arrays here
        self.similarity = np.concatenate(similarity)

    def _alike(self, batch: UInt64) -> tuple[UInt64, npt.NDArray[np.float64]]:
        """Those of the pairs that are alike, and their similarity."""
        left, right = (batch >> _HALF).astype(np.int64), (batch & _LOW).astype(np.int64)
        same = self.group[left] == self.group[right]  # false only if two keys collide
        batch, left, right = batch[same], self.rows[left[same]], self.rows[right[same]]
        wanted, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        found = jaccard(self.texts(wanted), places[: len(left)], places[len(left) :], least=self.threshold)
        alike = found >= self.threshold
        return batch[alike], found[alike]

    def indirect(self) -> UInt64:
        """New candidates, which the bands missed: a kept row, and what an alike but dropped row before it repeats. Each
        is given once.
        """
        earlier, later = (self.packed >> _HALF).astype(np.int64), (self.packed & _LOW).astype(np.int64)
        over = (self.by[later] < 0) & (self.by[earlier] >= 0)
        pairs = _union((self.by[earlier[over]].astype(np.uint64) << _HALF) | later[over].astype(np.uint64))
        place = np.searchsorted(self.tried, pairs)
        fresh: UInt64 = pairs[np.append(self.tried, np.uint64(0))[place] != pairs]
        self.tried = _union(self.tried, fresh)
        return fresh

    def decide(self) -> None:
        """Says anew which rows are dropped, from all verified pairs."""
        scratch = np.zeros(len(self.by) + 1, np.int64), np.empty(len(self.packed), np.uint32)
        _decide(self.packed, self.similarity, scratch, self.by, self.best, self.component)

    def result(self) -> Clusters:
        """What was decided, by row number."""
        rows, n = self.rows, len(self.rows)
        by, similarity, component = np.empty(n, np.int64), np.empty(n, np.float64), np.empty(n, np.int64)
        by[rows] = np.where(self.by < 0, -1, rows[self.by])
        similarity[rows] = self.best
        component[rows] = rows[self.component]
        return Clusters(by, similarity, component)


def _union(*pairs: UInt64) -> UInt64:
    merged = np.concatenate([np.empty(0, np.uint64), *pairs])
    merged.sort()  # np.unique hashes, at three times the cost
    found: UInt64 = merged[np.concatenate([merged[:1] == merged[:1], merged[1:] != merged[:-1]])]
    return found


def combine(keys: UInt64, more: Integers) -> UInt64:
    """A key that is equal where both are, by a 64-bit hash; 0 stays 0: no key."""
    out = np.empty(len(keys), np.uint64)
    _combine(keys, more.astype(np.uint64), out)
    return out


def exact(keys: UInt64, group: Integers, order: Integers) -> Int64:
    """For rows with equal 128-bit keys and group: the one that comes first in `order`, -1 for itself; shape (n,).

    A key of (0, 0), an empty text, repeats nothing. A copy is missed only if 64-bit hashes of two keys collide.

    >>> keys = np.array([[7, 7], [9, 9], [7, 7], [7, 7], [0, 0], [0, 0]], dtype=np.uint64)
    >>> exact(keys, np.array([0, 0, 0, 1, 0, 0]), np.array([5, 4, 3, 2, 1, 0])).tolist()
    [2, -1, -1, -1, -1, -1]
    """
    rows = np.argsort(order, kind="stable")
    members, starts = _buckets(combine(combine(keys[rows, 0], keys[rows, 1]), group[rows]))
    copies = rows[members]
    firsts = np.repeat(copies[starts[:-1]], np.diff(starts))
    same = (keys[copies] == keys[firsts]).all(axis=1) & (group[copies] == group[firsts]) & (copies != firsts)
    by = np.full(len(keys), -1, np.int64)
    by[copies[same]] = firsts[same]
    return by


def find(
    bands: Iterable[UInt64],
    group: Integers,
    order: Integers,
    texts: Callable[[Int64], Texts],
    *,
    threshold: float = 0.8,
    workers: int = 1,
) -> Clusters:
    """The near-duplicates of n rows, n below 2**31.

    bands: the columns of `band_keys`, one at a time, each of shape (n,); each is read once. A row with 0 has no key
        there: rows dropped before, as exact copies, are left out by zeros.
    group: rows of different groups are never duplicates of each other.
    order: of two duplicates the row with the lower value stays; all distinct.
    texts: the folded texts of some rows, given as ascending, distinct row numbers; at most 16,384 at a time.
    threshold: the least Jaccard similarity of duplicates.
    workers: threads that compare texts; with more than one, `texts` is called from several at once.

    The result does not depend on how rows are numbered. Beside the texts it takes about 100 bytes a row where few rows
    are alike, and up to 300 where all are.

    >>> from chimed.dedup.minhash import band_keys
    >>> import pyarrow as pa
    >>> text = "百日咳是由百日咳杆菌所致的急性呼吸道传染病"
    >>> rows = pa.array([text, "感冒", text + "症"])
    >>> found = find(band_keys(rows).T, np.zeros(3, int), np.array([2, 1, 0]), rows.take)
    >>> found.by.tolist(), found.similarity.round(2).tolist()
    ([2, -1, -1], [0.94, 0.0, 0.0])
    """
    graph = _Graph(order, group, texts, threshold, workers)
    n, pending = len(graph.rows), list[UInt64]()
    large = []
    for column in bands:
        members, starts = _buckets(graph.keys(column))
        pending.append(_small_pairs(members, starts))
        if sum(map(len, pending)) > PENDING * n:
            pending = [_union(*pending)]
            if len(pending[0]) > PENDING * n:
                graph.verify(pending.pop())
        large.append(_large(members, starts))
    graph.verify(_union(*pending))
    graph.decide()
    for _ in range(ROUNDS):
        fresh = _union(graph.indirect(), *(_rounded(members, state, graph.by) for members, state in large))
        if not len(fresh):
            break
        graph.verify(fresh)
        graph.decide()
    return graph.result()
