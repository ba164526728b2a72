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

from chimed.dedup.minhash import Texts, UInt64, jaccard, mix

Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]

SMALL = 16  # rows of a bucket that is compared pair by pair
ROUNDS = 128  # rows of a large bucket that are compared with all others
PATIENCE = 8  # comparisons a row that a large bucket may spend before it absorbs anything
REWARD = 64  # further comparisons for each row absorbed
PENDING = 2  # pairs a row that wait for verification at most
BATCH = 8192  # pairs whose texts are read together
FEW = 256  # pairs that are not worth sharing out

_ONE, _LOW, _HALF = np.uint64(1), np.uint64(0xFFFFFFFF), np.uint64(32)
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
def _buckets(keys: Any) -> Any:
    """Rows that share a key with another: `members` bucket by bucket, ascending, and the bounds of each bucket.

    A table of saturating counters drops most lone rows first; the others meet in an open-addressing table.
    """
    n = len(keys)
    size = np.uint64(64)
    while size < np.uint64(4 * n):
        size *= np.uint64(2)
    counters = np.zeros(size, np.uint8)
    for key in keys:
        slot = key & (size - _ONE)
        counters[slot] = min(counters[slot] + 1, 2)
    rows = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        if keys[i] and counters[keys[i] & (size - _ONE)] > 1:
            rows[count] = i
            count += 1
    size = np.uint64(64)
    while size < np.uint64(2 * count):
        size *= np.uint64(2)
    table = np.full(size, -1, np.int32)
    bucket, first, sizes = np.empty(count, np.int32), np.empty(count, np.int32), np.zeros(count, np.int32)
    found = 0
    for j in range(count):
        key = keys[rows[j]]
        slot = (key >> np.uint64(20)) & (size - _ONE)
        while table[slot] >= 0 and keys[first[table[slot]]] != key:
            slot = (slot + _ONE) & (size - _ONE)
        if table[slot] < 0:
            table[slot] = found
            first[found] = rows[j]
            found += 1
        bucket[j] = table[slot]
        sizes[table[slot]] += 1
    starts, place, kept, total = np.zeros(found + 1, np.int64), np.full(found, -1, np.int64), 0, 0
    for b in range(found):
        if sizes[b] > 1:
            place[b] = total
            total += sizes[b]
            kept += 1
            starts[kept] = total
    members = np.empty(total, np.int32)
    for j in range(count):
        if place[bucket[j]] >= 0:
            members[place[bucket[j]]] = rows[j]
            place[bucket[j]] += 1
    return members, starts[: kept + 1]


@njit(cache=True, nogil=True)
def _small_pairs(members: Any, starts: Any) -> Any:
    """All packed pairs of the buckets of at most SMALL rows."""
    total = 0
    for b in range(len(starts) - 1):
        s = starts[b + 1] - starts[b]
        total += s * (s - 1) // 2 if s <= SMALL else 0
    out, k = np.empty(total, np.uint64), 0
    for b in range(len(starts) - 1):
        if starts[b + 1] - starts[b] <= SMALL:
            for i in range(starts[b], starts[b + 1]):
                for j in range(i + 1, starts[b + 1]):
                    out[k] = (np.uint64(members[i]) << _HALF) | np.uint64(members[j])
                    k += 1
    return out


def _large(members: Integers, starts: Int64) -> tuple[Integers, Int64]:
    """The buckets of more than SMALL rows: their members, and for `_round` the head, stop and credit of each."""
    sizes = np.diff(starts)
    own = sizes[sizes > SMALL]
    stops = np.cumsum(own)
    return members[np.repeat(sizes > SMALL, sizes)], np.stack([stops - own, stops, PATIENCE * own], 1)


@njit(cache=True, nogil=True)
def _round(members: Any, state: Any, by: Any) -> Any:
    """Packed pairs of one round: in every bucket with credit the next kept row, with all kept rows behind it."""
    total = 0
    for b in range(len(state)):
        total += state[b, 1] - state[b, 0]
    out, k = np.empty(total, np.uint64), 0
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
    return out[:k]


@njit(cache=True, nogil=True)
def _indirect(packed: Any, by: Any) -> Any:
    """Packed pairs of a kept row and what an alike but dropped row before it repeats: candidates the bands missed."""
    total = 0
    for pass_ in range(2):
        out, k = np.empty(total, np.uint64), 0
        for pair in packed:
            earlier, later = np.int64(pair >> _HALF), np.int64(pair & _LOW)
            if by[later] < 0 and by[earlier] >= 0:
                if pass_:
                    out[k] = (np.uint64(by[earlier]) << _HALF) | np.uint64(later)
                k += 1
        total = k
    return out


@njit(cache=True, nogil=True)
def _root(component: Any, row: Any) -> Any:
    while component[row] != row:
        component[row] = component[component[row]]
        row = component[row]
    return row


@njit(cache=True, nogil=True)
def _decide(packed: Any, similarity: Any, by: Any, best: Any, component: Any) -> None:
    """Walks rows in order: the most similar kept earlier neighbour, and the first row of each connected component."""
    n = len(by)
    bounds = np.zeros(n + 1, np.int64)
    for pair in packed:
        bounds[(pair & _LOW) + _ONE] += 1
    for i in range(n):
        bounds[i + 1] += bounds[i]
        by[i], best[i], component[i] = -1, 0, i
    edges = np.empty(len(packed), np.uint32)
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
        """New candidates among the neighbours of dropped rows; each is given once."""
        pairs = _union(_indirect(self.packed, self.by))
        place = np.searchsorted(self.tried, pairs)
        fresh: UInt64 = pairs[np.append(self.tried, np.uint64(0))[place] != pairs]
        self.tried = _union(self.tried, fresh)
        return fresh

    def decide(self) -> None:
        """Says anew which rows are dropped, from all verified pairs."""
        _decide(self.packed, self.similarity, self.by, self.best, self.component)

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
        fresh = _union(graph.indirect(), *(_round(members, state, graph.by) for members, state in large))
        if not len(fresh):
            break
        graph.verify(fresh)
        graph.decide()
    return graph.result()
