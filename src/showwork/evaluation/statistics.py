"""Intervals and tests for right-or-wrong outcomes, on one arm or on two that met the same questions.

scipy is imported inside the functions: `scipy.stats` takes over a second to import, `scipy.special` a fifth of one,
and a comparison of two commits has to answer within three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

ALPHA = 0.05

Verdict = Literal["better", "worse", "no difference"]


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of b minus accuracy of a on the same n questions, as a share (0.05 = 5 points).

    low and high bound the 95% paired bootstrap interval; p is McNemar's, exact and two-sided.
    gained counts the questions that only b got right, lost those that only a did.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    gained: int
    lost: int
    verdict: Verdict


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a share. Raises ValueError unless 0 <= successes <= n and n > 0."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"no interval for {successes} successes in {n}")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence_level=1 - ALPHA, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p of b against c discordant pairs; 1 without any. Raises ValueError for a negative count.

    The binomial with probability 1/2 is symmetric, so the two-sided p is twice the smaller tail.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of discordant pairs can't be negative: {b}, {c}")
    if b == c:  # both tails hold the middle: twice one tail would exceed 1
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(min(b, c), b + c, 0.5)))


def paired_difference(
    a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray, *, seed: int, resamples: int = 10_000
) -> PairedDifference:
    """Compares two columns of 0/1 outcomes, row by row the same question.

    The verdict needs both: an interval that excludes 0 and p < 0.05. It speaks of b, seen from a.

    The bootstrap draws counts, not rows: a difference of two 0/1 outcomes is +1, 0 or -1, and how often each comes
    up in n rows drawn with replacement is exactly multinomial in the observed shares. Same distribution, and
    10,000 resamples take a millisecond whatever n is.

    Raises ValueError for empty or unequal columns and for a value that is not 0 or 1.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(f"outcomes must be two columns of one length, not {a.shape} and {b.shape}")
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("outcomes must be 0 or 1")
    n = a.size
    gained, lost = int(((a == 0) & (b == 1)).sum()), int(((a == 1) & (b == 0)).sum())
    shares = np.array([gained, lost, n - gained - lost]) / n
    counts = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [ALPHA / 2, 1 - ALPHA / 2])
    p = mcnemar_exact(gained, lost)
    verdict: Verdict = "no difference"
    if p < ALPHA and (low > 0 or high < 0):
        verdict = "better" if gained > lost else "worse"
    return PairedDifference(n, (gained - lost) / n, float(low), float(high), p, gained, lost, verdict)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted
