"""Sets of numbers: sorted lists, one an owner, and hash tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from chimed.dedup.minhash import mix
from chimed.graph.merge import Mask, distinct
from chimed.phrases import Codes


@dataclass(frozen=True, slots=True)
class Ranges:
    """Lists of numbers, one an owner: those of owner i are values[starts[i] : starts[i + 1]]."""

    starts: Codes
    values: Codes

    @classmethod
    def of(cls, owners: Codes, values: Codes, count: int) -> "Ranges":
        """The values of each of `count` owners, sorted, each once."""
        size = int(values.max(initial=0)) + 1
        owner, value = np.divmod(distinct(owners * size + values), size)
        return cls(np.searchsorted(owner, np.arange(count + 1)), value)

    def count(self, owners: Codes) -> Codes:
        """How many values each of these owners has."""
        return self.starts[owners + 1] - self.starts[owners]

    def spread(self, owners: Codes) -> tuple[Codes, Codes]:
        """(place, value) of every value of each of these owners; place counts `owners`."""
        counts = self.count(owners)
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        place = np.repeat(np.arange(len(owners)), counts)
        return place, self.values[self.starts[owners][place] + within]


class Numbers:
    """A set of numbers from 0 on, in a hash table: asked millions of times, it answers faster than a sorted list."""

    def __init__(self, numbers: Codes, room: int = 0) -> None:
        self._table = np.full(1 << (3 * (len(numbers) + room) // 2 + 1).bit_length(), -1)
        self.add(numbers)

    def add(self, numbers: Codes) -> Mask:
        """Put these numbers into the set; which of them are new. All that are added fit into its `room`.

        >>> Numbers(np.array([3]), 3).add(np.array([5, 3, 5])).tolist()
        [True, False, False]
        """
        out = np.empty(len(numbers), np.bool_)
        _add(self._table, numbers, out)
        return out

    def hold(self, numbers: Codes) -> Mask:
        """Which of these numbers are in the set.

        >>> Numbers(np.array([3, 5, 3])).hold(np.array([5, 4])).tolist()
        [True, False]
        """
        out = np.empty(len(numbers), np.bool_)
        _hold(self._table, numbers, out)
        return out

    def link(self, lists: Ranges, owners: Codes, terms: Codes, size: int) -> Mask:
        """Of which pairs the set has value * size + term for any value in the list of the owner.

        >>> lists = Ranges.of(np.array([0, 0]), np.array([1, 2]), 2)
        >>> Numbers(np.array([27])).link(lists, np.array([0, 1, 0]), np.array([7, 7, 8]), 10).tolist()
        [True, False, False]
        """
        out = np.zeros(len(owners), np.bool_)
        _link(self._table, (lists.starts, lists.values), np.stack([owners, terms]), size, out)
        return out


@njit(cache=True, nogil=True)
def _place(table: Any, number: Any) -> Any:
    """Where a number stands in the table, or would stand."""
    last = np.uint64(len(table) - 1)
    slot = mix(np.uint64(number)) & last
    while table[slot] >= 0 and table[slot] != number:
        slot = (slot + np.uint64(1)) & last
    return slot


@njit(cache=True, nogil=True)
def _add(table: Any, numbers: Any, out: Any) -> None:
    for i in range(len(numbers)):
        slot = _place(table, numbers[i])
        out[i] = table[slot] < 0
        table[slot] = numbers[i]


@njit(cache=True, nogil=True)
def _hold(table: Any, numbers: Any, out: Any) -> None:
    for i in range(len(numbers)):
        out[i] = table[_place(table, numbers[i])] >= 0


@njit(cache=True, nogil=True)
def _link(table: Any, lists: Any, pairs: Any, size: int, out: Any) -> None:
    starts, values = lists
    for row in range(len(out)):
        owner, term = pairs[0, row], pairs[1, row]
        for value in values[starts[owner] : starts[owner + 1]]:
            if table[_place(table, value * size + term)] >= 0:
                out[row] = True
                break
