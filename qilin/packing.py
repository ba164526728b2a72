"""Rows of equal length filled with documents: best fit, decreasing, over all documents at once.

Hot parts are compiled. What is held for n documents is a few arrays of n numbers; texts and tokens are never touched.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Rows(NamedTuple):
    """Which documents stand in which row: those of row i are order[offsets[i] : offsets[i + 1]]."""

    order: Numbers
    offsets: Numbers

    def __len__(self) -> int:
        return len(self.offsets) - 1


def pack(lengths: NDArray[np.int32], capacity: int, seed: int) -> Rows:
    """Rows of at most `capacity` tokens that hold each document once, in an order drawn with the seed.

    The longest document first, each goes into the row that it fills best, or into a new one ("Fewer Truncations Improve
    Language Modeling", arXiv 2404.10830). No length may exceed the capacity. The seed decides which of equally long
    documents meet, and the order of the rows; the rows are as full with any seed.

    >>> rows = pack(np.array([5, 3, 2, 4], np.int32), capacity=7, seed=0)
    >>> len(rows), np.diff(rows.offsets).tolist()
    (2, [2, 2])
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"a document of {lengths.max()} tokens does not fit into a row of {capacity}")
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(lengths))
    decreasing = drawn[np.argsort(-lengths[drawn], kind="stable")]
    row, count = _best_fit(lengths, decreasing, capacity)
    place = random.permutation(count)[row]
    order = decreasing[np.argsort(place[decreasing], kind="stable")]
    return Rows(order, np.concatenate([[0], np.cumsum(np.bincount(place, minlength=count))]))


def cut(lengths: NDArray[np.int64], capacity: int) -> tuple[Numbers, NDArray[np.int32]]:
    """Cut documents that lie one after the other into pieces of at most `capacity` tokens: where each begins, how long.

    All pieces of a document are full but the last. That one never is a lone EOS, which would have nothing to follow, so
    nothing to teach.

    >>> begins, sizes = cut(np.array([3, 9]), capacity=4)
    >>> begins.tolist(), sizes.tolist()
    ([0, 3, 7, 10], [3, 4, 3, 2])
    """
    counts = -(-lengths // capacity)
    last = np.cumsum(counts) - 1
    sizes = np.full(int(counts.sum()), capacity, np.int64)
    sizes[last] = lengths - (counts - 1) * capacity
    alone = last[(sizes[last] == 1) & (counts > 1)]
    sizes[alone] += 1
    sizes[alone - 1] -= 1
    return np.cumsum(sizes) - sizes, sizes.astype(np.int32)


@njit(cache=True)
def _best_fit(lengths: NDArray[np.int32], sequence: Numbers, capacity: int) -> tuple[NDArray[np.int32], int]:
    """The row of each document, documents placed in this sequence, and how many rows there are."""
    leaves = 1
    while leaves <= capacity:
        leaves *= 2
    # Open rows stand in a list for each amount of space left. The tree says in log(capacity) steps which is the
    # smallest amount, of those that rows have, into which a document fits.
    tree = np.zeros(2 * leaves, np.int32)
    first = np.full(capacity + 1, -1, np.int32)
    after = np.full(len(lengths), -1, np.int32)
    row = np.empty(len(lengths), np.int32)
    rows = 0
    for document in sequence:
        length = lengths[document]
        if tree[1] >= length:
            node = 1
            while node < leaves:
                node = 2 * node if tree[2 * node] >= length else 2 * node + 1
            space = node - leaves
            own = first[space]
            first[space] = after[own]
            if first[space] < 0:
                _set(tree, node, 0)
        else:
            own, space = rows, capacity
            rows += 1
        row[document] = own
        space -= length
        if space > 0:
            if first[space] < 0:
                _set(tree, leaves + space, space)
            after[own] = first[space]
            first[space] = own
    return row, rows


@njit(cache=True)
def _set(tree: NDArray[np.int32], node: int, value: int) -> None:
    """Set a leaf; every node above holds the larger of the two below it."""
    tree[node] = value
    while node > 1:
        node //= 2
        tree[node] = max(tree[2 * node], tree[2 * node + 1])
