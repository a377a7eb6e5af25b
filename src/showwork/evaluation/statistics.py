"""Intervals, tests and power for 0/1 outcomes of one arm, or of two arms on the same questions.

scipy is imported inside the functions: `scipy.stats` takes over a second to import, `scipy.special` a fifth of one,
and `showwork compare` should answer within three.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

ALPHA = 0.05
POWER = 0.8
FEWEST_DISCORDANT = 6  # 2 / 2^6 < 0.05 < 2 / 2^5: with fewer, the exact test finds nothing

Verdict = Literal["better", "worse", "no difference"]


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of b minus accuracy of a on the same n questions, as a share (0.05 = 5 points).

    low and high bound the 95% paired bootstrap interval; p is McNemar's, exact and two-sided.
    gained counts the questions that only b got right, lost those that only a did. p_worse is the one-sided mid-p that
    b is worse.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    gained: int
    lost: int
    verdict: Verdict
    p_worse: float


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
    if b == c:  # both tails include the middle: twice one tail would exceed 1
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(min(b, c), b + c, 0.5)))


def mcnemar_worse(gained: int, lost: int) -> float:
    """One-sided mid-p that b is worse, from the questions that it gained and lost; 0.5 without any.

    P(X < gained) + P(X = gained) / 2 for X binomial(gained + lost, 1/2). The exact test counts the observed outcome
    whole: on 1,000 questions of which 5 to 20% flip, a gate at 5% fires in 3.8 to 4.3% of the comparisons of equals
    with it, and in 4.9 to 5.0% with mid-p (Fagerland et al. 2013, BMC Med Res Methodol 13:91).
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"counts of discordant pairs can't be negative: {gained}, {lost}")
    from scipy.special import bdtr

    below = float(bdtr(gained - 1, gained + lost, 0.5)) if gained else 0.0
    return (below + float(bdtr(gained, gained + lost, 0.5))) / 2


def paired_difference(
    a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray, *, seed: int, resamples: int = 10_000
) -> PairedDifference:
    """Compares two columns of 0/1 outcomes on the same questions, row by row.

    The verdict is on b relative to a, and needs both an interval that excludes 0 and p < 0.05.

    The bootstrap draws counts, not rows: a difference of two 0/1 outcomes is +1, 0 or -1, and the counts in n rows
    drawn with replacement are exactly multinomial in the observed shares. The distribution is the same, and 10,000
    resamples take a millisecond for any n.

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
    return PairedDifference(
        n=n, difference=(gained - lost) / n, low=float(low), high=float(high), p=p, gained=gained, lost=lost,
        verdict=judge(p, float(low), float(high)), p_worse=mcnemar_worse(gained, lost),
    )  # fmt: skip


def judge(p: float, low: float, high: float) -> Verdict:
    """Better or worse only where p < 0.05 and the interval excludes 0."""
    if p >= ALPHA or low <= 0 <= high:
        return "no difference"
    return "better" if low > 0 else "worse"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def questions_needed(difference: float, *, discordance: float, power: float = POWER) -> int:
    """The number of questions that detect a true paired difference, two-sided at 5%, with this power.

    discordance is the share of questions that flip either way. Connor 1987, Biometrics 43:207:
    n = (z_alpha * sqrt(discordance) + z_power * sqrt(discordance - difference^2))^2 / difference^2.
    Raises ValueError unless 0 < |difference| <= discordance <= 1 and 0.5 <= power < 1.
    """
    if not (0 < abs(difference) <= discordance <= 1 and 0.5 <= power < 1):
        raise ValueError(f"a difference of {difference} can't come from {discordance} discordance at power {power}")
    quantile = NormalDist().inv_cdf
    root = quantile(1 - ALPHA / 2) * math.sqrt(discordance) + quantile(power) * math.sqrt(discordance - difference**2)
    return max(math.ceil((root / difference) ** 2), math.ceil(FEWEST_DISCORDANT / discordance))


def detectable_difference(n: int, *, discordance: float, power: float = POWER) -> float | None:
    """The smallest true difference that n questions detect with this power; None if they detect none.

    The inverse of `questions_needed`, which falls as the difference grows, by bisection.
    """
    if not discordance or questions_needed(discordance, discordance=discordance, power=power) > n:
        return None
    low, high = 0.0, discordance
    for _ in range(50):
        middle = (low + high) / 2
        if questions_needed(middle, discordance=discordance, power=power) > n:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True)
class Spread:
    """n repeats of one number: mean, standard deviation (n - 1), and the mean's 95% t interval, None for one repeat."""

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of the values. Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no spread of nothing")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Spread(1, mean, None, None, None)
    from scipy.special import stdtrit

    deviation = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 1 - ALPHA / 2)) * deviation / math.sqrt(n)
    return Spread(n, mean, deviation, mean - half, mean + half)
