"""Intervals and tests: what a difference between two scores is worth.

Shares are fractions from 0 to 1. Nothing here knows models; it takes counts, right-or-wrong lists and arrays.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure from n observations and the interval around it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answerers on the same n items.

    only_first, only_second: items that only one of them answered right. difference: second minus first.
    p: exact McNemar test, two-sided.
    """

    n: int
    first: Interval
    second: Interval
    only_first: int
    only_second: int
    difference: Interval
    p: float


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """The share k of n with Wilson's score interval (Wilson 1927, JASA 22:209), which holds near 0 and 1 too.

    >>> share = wilson(2724, 6811)
    >>> f"{100 * share.value:.1f} ± {50 * (share.high - share.low):.2f}"
    '40.0 ± 1.16'
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"a share needs 0 <= k <= n and at least one observation, not {k} of {n}")
    from scipy.stats import binomtest

    found = binomtest(k, n).proportion_ci(level, method="wilson")
    return Interval(k / n, float(found.low), float(found.high), n)


def mcnemar(b: int, c: int) -> float:
    """The exact two-sided McNemar test: how likely are b against c, or worse, when either side is as likely.

    b and c count the items that only one of two answerers got right; the rest says nothing about their difference
    (McNemar 1947, Psychometrika 12:153; exact form: the binomial test with p = 1/2).

    >>> round(mcnemar(5, 15), 4)
    0.0414
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of items cannot be negative: {b}, {c}")
    if b + c == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(b, b + c).pvalue)


def compare(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """Two right-or-wrong lists over the same items in the same order, compared pair by pair.

    The interval of the difference is Agresti and Min's (2005, Statistics in Medicine 24:729): Wald's with half an
    observation added to each cell of the 2 x 2 table.

    >>> compare([True, False, False, False], [True, True, True, False]).difference.value
    0.5
    """
    if len(first) != len(second):
        raise ValueError(f"the lists hold {len(first)} and {len(second)} items; only the same items can be compared")
    n = len(first)
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    b, c = int(np.sum(one & ~two)), int(np.sum(two & ~one))
    centre = (c - b) / (n + 2)
    spread = _quantile(0.975) * math.sqrt(b + c + 1 - (c - b) ** 2 / (n + 2)) / (n + 2)
    difference = Interval((c - b) / n if n else 0.0, max(-1.0, centre - spread), min(1.0, centre + spread), n)
    return Comparison(n, wilson(int(one.sum()), n), wilson(int(two.sum()), n), b, c, difference, mcnemar(b, c))


def mean(values: Values) -> float:
    """The mean of all values: the statistic where none is named."""
    return float(values.mean())


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[Values], float] = mean,
    *,
    seed: int,
    resamples: int = 1000,
    method: Literal["percentile", "BCa"] = "percentile",
) -> Interval:
    """The statistic of all rows with its 95 % bootstrap interval (Efron 1979; BCa: Efron 1987, JASA 82:171).

    values: (n,) or (n, k). Whole rows are drawn, so two systems' scores of an item stand in one row and the
    statistic takes their difference: the paired bootstrap (Koehn 2004, EMNLP). Equal seeds give equal intervals.
    Raises ValueError for fewer than two rows. BCa falls back to percentiles where all resamples are equal.

    >>> found = bootstrap([0.0, 1.0] * 50, seed=1)
    >>> found.value, round(found.low, 1), round(found.high, 1)
    (0.5, 0.4, 0.6)
    """
    table = np.asarray(values, dtype=np.float64)
    if len(table) < 2:
        raise ValueError("a bootstrap needs at least two items")
    from scipy import stats

    drawn = stats.bootstrap(
        (np.arange(len(table)),),
        lambda rows: statistic(table[rows]),
        n_resamples=resamples,
        batch=1,  # one resample in memory at a time
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    if method == "BCa" and np.ptp(drawn.bootstrap_distribution) > 0:
        low, high = stats.bootstrap(
            (np.arange(len(table)),),
            lambda rows: statistic(table[rows]),
            n_resamples=0,
            vectorized=False,
            method="BCa",
            bootstrap_result=drawn,
        ).confidence_interval
    return Interval(statistic(table), float(low), float(high), len(table))


def detectable(n: int, p: float = 0.5, *, discordant: float | None = None, power: float = 0.8) -> float:
    """The smallest difference between two answerers that n common items show at the 5 % level, as a fraction.

    p: the share that the first answers right. discordant: the share of items that only one of them answers right;
    absent, that of answerers who know nothing of each other, 2p(1 - p), which is cautious: models and arms agree more.
    Source: Connor (1987, Biometrics 43:207), n = (z_a √d + z_b √(d - D²))² / D², solved for D.

    >>> round(100 * detectable(6811, 0.4), 1), round(100 * detectable(200, 0.4), 1)
    (2.4, 13.6)
    """
    if n < 1 or not 0 < p < 1:
        raise ValueError(f"a difference needs at least one item and 0 < p < 1, not {n} items and p = {p}")
    share = 2 * p * (1 - p) if discordant is None else discordant
    if not 0 < share <= 1:
        raise ValueError(f"the share of discordant items lies between 0 and 1, not at {share}")
    sure, able = _quantile(0.975), _quantile(power)

    def short(difference: float) -> float:
        """How many items are missing for this difference, times its square."""
        differ = max(share, difference)  # a difference needs at least as many items that differ
        return (sure * math.sqrt(differ) + able * math.sqrt(differ - difference**2)) ** 2 - n * difference**2

    from scipy.optimize import brentq

    return 1.0 if short(1.0) > 0 else float(brentq(short, 1e-9, 1.0))


def _quantile(p: float) -> float:
    return NormalDist().inv_cdf(p)
