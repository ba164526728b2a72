"""Packing loses nothing, fills rows, and draws the same with the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.packing import cut, pack

capacities = st.integers(1, 40)
lengths = st.lists(st.integers(1, 200), max_size=60)
seeds = st.integers(0, 3)


@settings(max_examples=100, deadline=None)
@given(sizes=lengths, capacity=capacities, seed=seeds)
def test_each_document_stands_in_one_row_that_holds_it(sizes: list[int], capacity: int, seed: int) -> None:
    own = np.array([min(size, capacity) for size in sizes], np.int32)
    rows = pack(own, capacity, seed)
    assert sorted(rows.order.tolist()) == list(range(len(own)))
    for begin, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        assert 0 < own[rows.order[begin:end]].sum() <= capacity


@settings(max_examples=60, deadline=None)
@given(sizes=lengths, capacity=capacities, seed=seeds)
def test_the_seed_draws_and_does_not_fill(sizes: list[int], capacity: int, seed: int) -> None:
    own = np.array([min(size, capacity) for size in sizes], np.int32)
    once, again, other = pack(own, capacity, seed), pack(own, capacity, seed), pack(own, capacity, seed + 1)
    assert once.order.tolist() == again.order.tolist()
    assert len(once) == len(other)


@settings(max_examples=60, deadline=None)
@given(sizes=lengths, capacity=st.integers(1, 40))
def test_rows_are_those_of_best_fit_decreasing(sizes: list[int], capacity: int) -> None:
    own = sorted((min(size, capacity) for size in sizes), reverse=True)
    spaces: list[int] = []
    for size in own:
        fits = [space for space in spaces if space >= size]
        if fits:
            spaces.remove(min(fits))
        spaces.append((min(fits) if fits else capacity) - size)
    rows = pack(np.array(own, np.int32), capacity, 0)
    left = capacity - np.add.reduceat(np.array(own)[rows.order], rows.offsets[:-1]) if own else np.zeros(0)
    assert sorted(left.tolist()) == sorted(spaces)


@settings(max_examples=100, deadline=None)
@given(sizes=lengths, capacity=st.integers(2, 40))
def test_pieces_make_up_their_documents(sizes: list[int], capacity: int) -> None:
    begins, pieces = cut(np.array(sizes, np.int64), capacity)
    assert begins.tolist() == [0, *np.cumsum(pieces)[:-1].tolist()] if sizes else not len(begins)
    assert not len(pieces) or pieces.max() <= capacity
    edges = {0, *np.cumsum(pieces).tolist()}
    assert set(np.cumsum(sizes).tolist()) <= edges
    ends = np.cumsum(sizes).tolist()
    last = {int(begin + size): int(size) for begin, size in zip(begins, pieces, strict=True)}
    if capacity > 2:
        assert all(last[end] > 1 for end, size in zip(ends, sizes, strict=True) if size > 1)


def test_a_document_longer_than_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="9 tokens does not fit into a row of 8"):
        pack(np.array([3, 9], np.int32), 8, 0)


def test_many_documents_fill_their_rows() -> None:
    drawn = np.random.default_rng(0).lognormal(5, 1, 200_000).clip(10, 2048).astype(np.int32)
    rows = pack(drawn, 2048, 0)
    assert drawn.sum() / (len(rows) * 2048) > 0.999
