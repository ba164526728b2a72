"""Who stays: order, groups, chains, copies, and buckets too large for pairs."""

import random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from chimed.dedup import Clusters, band_keys, clusters, exact, exact_keys, find, jaccard


def han(count: int, seed: int) -> str:
    return "".join(map(chr, random.Random(seed).choices(range(0x4E00, 0x9FA5), k=count)))


def decide(texts: list[str], order: list[int] | None = None, group: list[int] | None = None) -> Clusters:
    array = pa.array(texts, pa.string())
    places = np.arange(len(texts)) if order is None else np.array(order)
    groups = np.zeros(len(texts), np.int32) if group is None else np.array(group)
    return find(band_keys(array).T, groups, places, array.take)


BASE = han(300, 1)
NEAR = BASE[:280] + han(20, 2)
CHAIN = [BASE, BASE[30:] + han(30, 3), BASE[60:] + han(30, 3) + han(30, 4)]  # each like the next, the ends unlike


def test_the_first_in_order_stays_whatever_its_row() -> None:
    found = decide([BASE, han(300, 9), NEAR])
    assert found.by.tolist() == [-1, -1, 0]
    assert found.similarity[2] == jaccard(pa.array([BASE, NEAR]), np.array([0]), np.array([1]))[0]
    assert decide([BASE, han(300, 9), NEAR], order=[7, 5, -2]).by.tolist() == [2, -1, -1]


def test_rows_of_different_groups_both_stay() -> None:
    assert decide([BASE, NEAR, BASE], group=[0, 1, 1]).by.tolist() == [-1, -1, 1]


def test_the_ends_of_a_chain_stay() -> None:
    found = decide(CHAIN)
    assert found.by.tolist() == [-1, 0, -1]
    assert found.component.tolist() == [0, 0, 0]


def test_the_middle_of_a_chain_takes_both_ends_if_it_comes_first() -> None:
    assert decide(CHAIN, order=[1, 0, 2]).by.tolist() == [1, -1, 1]


def test_a_row_names_its_most_similar_kept_neighbour() -> None:
    closer = CHAIN[1][:-5] + BASE[:5]
    texts = [CHAIN[0], CHAIN[2], CHAIN[1], closer]
    found = decide(texts)
    for row in (2, 3):
        rivals = jaccard(pa.array(texts), np.array([row, row]), np.array([0, 1]))
        assert found.by[row] == int(np.argmax(rivals))
        assert found.similarity[row] == rivals.max()


def test_empty_and_short_texts() -> None:
    assert decide(["", "", "感冒", "感冒", "感冒了"]).by.tolist() == [-1, -1, -1, 2, -1]
    assert decide([]).by.tolist() == []


def test_a_row_without_keys_takes_no_part() -> None:
    texts = pa.array([BASE, BASE, NEAR])
    bands = band_keys(texts)
    bands[0] = 0
    assert find(bands.T, np.zeros(3), np.arange(3), texts.take).by.tolist() == [-1, -1, 1]


def test_exact_copies_by_group_and_order() -> None:
    keys = exact_keys(pa.array(["甲", "乙", "甲", "甲", "", ""]))
    assert exact(keys, np.zeros(6, int), np.arange(6)).tolist() == [-1, -1, 0, 0, -1, -1]
    assert exact(keys, np.zeros(6, int), -np.arange(6)).tolist() == [3, -1, 3, -1, -1, -1]
    assert exact(keys, np.array([0, 0, 1, 1, 0, 0]), np.arange(6)).tolist() == [-1, -1, -1, 2, -1, -1]


def test_ten_thousand_copies_keep_one() -> None:
    found = decide([BASE] * 10_000)
    assert found.by[0] == -1
    assert (found.by[1:] == 0).all()
    assert (found.similarity[1:] == 1).all()


def copies(count: int, edits: int) -> pa.StringArray:
    """Texts that are each one base with `edits` characters replaced: all like each other, none equal."""
    rng = random.Random(count)
    texts = []
    for _ in range(count):
        characters = list(BASE)
        for at in rng.sample(range(len(characters)), edits):
            characters[at] = chr(rng.randint(0x4E00, 0x9FA5))
        texts.append("".join(characters))
    return pa.array(texts)


def greedy(texts: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Which rows are dropped if every pair is compared."""
    dropped = np.zeros(len(texts), np.bool_)
    for row in range(len(texts)):
        if not dropped[row]:
            later = np.flatnonzero(~dropped[row + 1 :]) + row + 1
            dropped[later[jaccard(texts, np.full(len(later), row), later) >= 0.8]] = True
    return dropped


@pytest.mark.parametrize(("count", "edits"), [(5_000, 1), (20_000, 3), (2_000, 4)])
def test_mutual_near_copies_without_all_pairs(count: int, edits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 edits put most pairs just below the threshold, where any rule needs many kept rows."""
    texts, compared = copies(count, edits), [0]

    def counted(*args: npt.NDArray[np.int64], least: float) -> npt.NDArray[np.float64]:
        compared[0] += len(args[1])
        return jaccard(*args, least=least)

    monkeypatch.setattr(clusters, "jaccard", counted)
    found = find(band_keys(texts).T, np.zeros(count), np.arange(count), texts.take)
    dropped = np.flatnonzero(found.by >= 0)
    assert (found.by[found.by[dropped]] == -1).all()
    assert (jaccard(texts, found.by[dropped], dropped) == found.similarity[dropped]).all()
    assert found.similarity[dropped].min() >= 0.8
    assert len(dropped) >= 0.98 * greedy(texts).sum()
    assert compared[0] <= 120 * count


def test_texts_are_read_in_bounded_ascending_batches() -> None:
    texts, seen = copies(12_000, 2), []

    def fetch(rows: npt.NDArray[np.int64]) -> pa.StringArray:
        assert (np.diff(rows) > 0).all()
        seen.append(len(rows))
        return texts.take(rows)

    find(band_keys(texts).T, np.zeros(12_000), np.arange(12_000), fetch)
    assert max(seen) <= 2 * clusters.BATCH
    assert len(seen) > 1
