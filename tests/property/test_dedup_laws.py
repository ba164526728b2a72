"""Laws of duplicates: true similarity, kept rows named, independence of numbering and of batch cuts."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.dedup import Clusters, band_keys, clusters, exact, exact_keys, find, jaccard

# Few letters and edited copies of a few bases: near-duplicates on every side of the threshold.
LETTERS = "病人气血虚寒"
BASES = st.lists(st.text(LETTERS, min_size=20, max_size=60), min_size=1, max_size=3)


@st.composite
def corpora(draw: st.DrawFn) -> list[str]:
    bases = draw(BASES)
    texts = draw(st.lists(st.text(LETTERS, max_size=12), max_size=6))
    for _ in range(draw(st.integers(0, 30))):
        text = draw(st.sampled_from(bases))
        at = draw(st.integers(0, len(text) - 1))
        texts.append(text[:at] + draw(st.text(LETTERS, max_size=2)) + text[at + draw(st.integers(0, 3)) :])
    return texts


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)} or ({text} if text else set())


def true_jaccard(left: str, right: str) -> float:
    one, two = shingles(left), shingles(right)
    return len(one & two) / max(len(one | two), 1)


def run(texts: list[str], group: list[int], order: list[int], threshold: float = 0.8) -> Clusters:
    array = pa.array(texts, pa.string())
    bands = band_keys(array)
    return find(bands.T, np.array(group, int), np.array(order, int), array.take, threshold=threshold)


@settings(deadline=None, max_examples=60)
@given(corpora(), st.data())
def test_similarity_is_that_of_python_sets(texts: list[str], data: st.DataObject) -> None:
    if texts:
        rows = st.lists(st.integers(0, len(texts) - 1), min_size=8, max_size=8)
        left, right = data.draw(rows), data.draw(rows)
        found = jaccard(pa.array(texts), np.array(left), np.array(right))
        assert found.tolist() == [true_jaccard(texts[i], texts[j]) for i, j in zip(left, right, strict=True)]


@settings(deadline=None, max_examples=60)
@given(corpora(), st.randoms(use_true_random=False), st.sampled_from([0.5, 0.8, 0.95]))
def test_clusters(texts: list[str], rng, threshold: float) -> None:  # type: ignore[no-untyped-def]
    group = [rng.randrange(2) for _ in texts]
    order = rng.sample(range(100), len(texts))
    found = run(texts, group, order, threshold)
    by, component = found.by.tolist(), found.component.tolist()
    for row, kept in enumerate(by):
        assert order[component[row]] <= order[row]
        assert component[component[row]] == component[row]
        if kept < 0:
            assert found.similarity[row] == 0
            continue
        assert by[kept] == -1
        assert group[kept] == group[row]
        assert order[kept] < order[row]
        assert component[kept] == component[row]
        assert found.similarity[row] == true_jaccard(texts[kept], texts[row]) >= threshold

    shuffled = rng.sample(range(len(texts)), len(texts))
    again = run([texts[i] for i in shuffled], [group[i] for i in shuffled], [order[i] for i in shuffled], threshold)
    for new, old in enumerate(shuffled):
        assert again.similarity[new] == found.similarity[old]
        assert (shuffled[again.by[new]] if again.by[new] >= 0 else -1) == by[old]
        assert shuffled[again.component[new]] == component[old]


@settings(deadline=None, max_examples=30)
@given(corpora(), st.integers(1, 7))
def test_batch_cuts_do_not_matter(texts: list[str], batch: int) -> None:
    group, order = [0] * len(texts), list(range(len(texts)))
    expected = run(texts, group, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "BATCH", batch)
        found = run(texts, group, order)
    for field in ("by", "similarity", "component"):
        assert (getattr(found, field) == getattr(expected, field)).all()
    array = pa.array(texts, pa.string())
    for kernel in (exact_keys, band_keys):
        parts = [kernel(array[at : at + batch]) for at in range(0, len(array), batch)]
        assert (np.concatenate([kernel(array[:0]), *parts]) == kernel(array)).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("病气", max_size=3), max_size=30), st.randoms(use_true_random=False))
def test_exact_copies_are_those_of_a_dict(texts: list[str], rng) -> None:  # type: ignore[no-untyped-def]
    group = [rng.randrange(2) for _ in texts]
    order = rng.sample(range(100), len(texts))
    first: dict[tuple[str, int], int] = {}
    for row in sorted(range(len(texts)), key=order.__getitem__):
        first.setdefault((texts[row], group[row]), row)
    expected = [first[text, group[row]] if text else row for row, text in enumerate(texts)]
    found = exact(exact_keys(pa.array(texts, pa.string())), np.array(group, int), np.array(order, int))
    assert found.tolist() == [-1 if kept == row else kept for row, kept in enumerate(expected)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text("病气热", max_size=40), min_size=1, max_size=8), st.integers(1, 100))
def test_giving_up_early_loses_no_pair_that_is_alike(texts: list[str], percent: int) -> None:
    least = percent / 100
    left, right = (side.ravel() for side in np.indices((len(texts), len(texts))))
    array = pa.array(texts, pa.string())
    whole, cut = jaccard(array, left, right), jaccard(array, left, right, least=least)
    assert whole.tolist() == [true_jaccard(texts[one], texts[two]) for one, two in zip(left, right, strict=True)]
    assert (cut == np.where(whole >= least, whole, 0)).all()
