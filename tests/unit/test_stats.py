"""Intervals and tests against known values, formulas written out, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.evaluate.stats import Interval, bootstrap, compare, detectable, mcnemar, wilson


def test_the_interval_of_the_whole_test_set() -> None:
    share = wilson(2724, 6811)
    assert 100 * (share.high - share.low) / 2 == pytest.approx(1.16, abs=0.005)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(k: int, n: int, low: float, high: float) -> None:
    """The last two are Newcombe's examples (1998, Statistics in Medicine 17:857, method 3)."""
    share = wilson(k, n)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None, max_examples=60)
def test_wilson_written_out(counts: tuple[int, int]) -> None:
    k, n = counts
    z, p = 1.959963984540054, k / n
    centre, spread = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    share = wilson(k, n)
    assert share.low == pytest.approx((centre - spread) / (1 + z * z / n), abs=1e-9)
    assert share.high == pytest.approx((centre + spread) / (1 + z * z / n), abs=1e-9)
    assert 0 <= share.low <= p <= share.high <= 1 or math.isclose(share.low, p, abs_tol=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_a_share_needs_observations(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="at least one observation"):
        wilson(k, n)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=60)
def test_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_as_published() -> None:
    """statsmodels' documented example: 121 against 59 discordant pairs."""
    assert mcnemar(121, 59) == pytest.approx(4.434e-06, rel=1e-3)
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 2)


def test_compare_counts_discordant_items() -> None:
    found = compare([True] * 30 + [False] * 70, [True] * 20 + [False] * 10 + [True] * 40 + [False] * 30)
    assert (found.n, found.only_first, found.only_second) == (100, 10, 40)
    assert (found.first.value, found.second.value) == (0.3, 0.6)
    assert found.difference.value == pytest.approx(0.3)
    assert found.difference.low > 0
    assert found.p == mcnemar(10, 40) < 0.001
    # Agresti and Min (2005), half an observation more in each cell, written out.
    b, c, n = 10.5, 40.5, 102
    spread = 1.959964 * math.sqrt((b + c) - (c - b) ** 2 / n) / n
    assert (found.difference.low, found.difference.high) == pytest.approx(((c - b) / n - spread, (c - b) / n + spread))
    with pytest.raises(ValueError, match="same items"):
        compare([True], [])


def test_the_interval_of_a_paired_difference_covers() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        first = rng.random(150) < 0.4
        second = np.where(rng.random(150) < 0.6, first, rng.random(150) < 0.55)
        truth = 0.4 * (0.55 - 0.4)
        found = compare(first.tolist(), second.tolist()).difference
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 300 <= 0.99


def test_bootstrap_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    for method in ("percentile", "BCa"):
        found = bootstrap(values, seed=1, resamples=2000, method=method)
        spread = 1.96 * values.std() / math.sqrt(400)
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((found.value - spread, found.value + spread), abs=0.02)


def test_bootstrap_draws_whole_rows() -> None:
    first = np.random.default_rng(0).random(100)
    pairs = np.stack([first, first + 0.25], axis=1)
    found = bootstrap(pairs, lambda rows: float(rows[:, 1].mean() - rows[:, 0].mean()), seed=0)
    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_bootstrap_is_seeded_and_survives_constants() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap(values, seed=5) == bootstrap(values, seed=5)
    assert bootstrap([3.0] * 9, seed=0, method="BCa") == Interval(3.0, 3.0, 3.0, 9)
    with pytest.raises(ValueError, match="two items"):
        bootstrap([1.0], seed=0)


def test_what_can_be_detected_is_detected_four_times_of_five() -> None:
    n, p, share = 400, 0.4, 0.3
    difference = detectable(n, p, discordant=share)
    rng = np.random.default_rng(1)
    cells = rng.multinomial(n, [(share + difference) / 2, (share - difference) / 2, 1 - share], size=400)
    power = np.mean([mcnemar(int(b), int(c)) < 0.05 for b, c, _ in cells])
    assert 0.72 <= power <= 0.86, "the exact test is a little more cautious than the formula"


def test_more_items_show_smaller_differences() -> None:
    found = [detectable(n) for n in (3, 10, 100, 1000, 10000)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert detectable(1000, 0.4, discordant=0.1) < detectable(1000, 0.4)
    # Two independent systems: the formula for two shares, (z_a + z_b)² 2p(1 - p) / D², is its limit for small D.
    assert detectable(100000, 0.5) == pytest.approx((1.959964 + 0.841621) * math.sqrt(0.5 / 100000), rel=1e-3)
    for wrong in ({"n": 0}, {"n": 5, "p": 1.0}, {"n": 5, "discordant": 0.0}):
        with pytest.raises(ValueError):
            detectable(**wrong)
