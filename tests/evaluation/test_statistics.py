"""Statistics against scipy and statsmodels on made-up tables, against brute force, and by hand."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from showwork.evaluation.statistics import (
    ALPHA,
    detectable_difference,
    holm,
    mcnemar_exact,
    mcnemar_worse,
    paired_difference,
    questions_needed,
    spread,
    wilson,
)


def columns(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcome columns with these counts of (1,1), (0,1), (1,0) and (0,0)."""
    a = np.repeat([1, 0, 1, 0], [both, gained, lost, neither])
    b = np.repeat([1, 1, 0, 0], [both, gained, lost, neither])
    return a, b


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (500, 1000), (1319, 1319), (7, 7473)])
def test_wilson_equals_statsmodels(successes, n):
    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="no interval"):
        wilson(successes, n)


def test_mcnemar_by_hand():
    # 1 against 5: 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64
    assert mcnemar_exact(1, 5) == mcnemar_exact(5, 1) == pytest.approx(14 / 64)
    assert mcnemar_exact(0, 0) == mcnemar_exact(4, 4) == 1.0
    assert mcnemar_exact(2, 3) == pytest.approx(1.0)  # 2 * 16/32
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 6), (3, 12), (40, 61), (200, 260), (0, 1300)])
def test_mcnemar_equals_statsmodels_and_scipy(b, c):
    p = mcnemar_exact(b, c)
    assert p == pytest.approx(mcnemar([[5, b], [c, 7]], exact=True).pvalue, rel=1e-9)
    assert p == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-9)


def test_the_one_sided_p_by_hand():
    # 1 gained, 5 lost: C(6,0)/2^6 + C(6,1)/2^6 / 2 = 1/64 + 3/64; seen from the other side, the rest of 1.
    assert mcnemar_worse(1, 5) == pytest.approx(4 / 64)
    assert mcnemar_worse(5, 1) == pytest.approx(60 / 64)
    assert mcnemar_worse(0, 5) == pytest.approx(1 / 64)
    assert mcnemar_worse(0, 0) == mcnemar_worse(7, 7) == 0.5
    with pytest.raises(ValueError, match="negative"):
        mcnemar_worse(0, -1)


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (6, 0), (3, 12), (40, 61), (260, 200)])
def test_the_one_sided_p_equals_scipy(gained, lost):
    binomial = stats.binom(gained + lost, 0.5)
    assert mcnemar_worse(gained, lost) == pytest.approx(binomial.cdf(gained) - binomial.pmf(gained) / 2, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_holm_equals_statsmodels(size):
    p_values = np.random.default_rng(size).beta(0.3, 2, size)
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-12)
    assert holm([0.02] * size) == pytest.approx([min(1, 0.02 * size)] * size)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # 3*.01, then 2*.03, then max(.04, .06)
    assert holm([]) == []


def test_paired_difference_counts_by_hand():
    result = paired_difference([1, 0, 0, 1, 0], [1, 1, 1, 0, 0], seed=0)
    assert (result.n, result.gained, result.lost) == (5, 2, 1)
    assert result.difference == pytest.approx(0.2)
    assert result.p == 1.0
    assert result.verdict == "no difference"


@pytest.mark.parametrize(("both", "gained", "lost", "neither"), [(40, 25, 10, 25), (300, 90, 60, 550), (5, 3, 0, 12)])
def test_interval_equals_a_bootstrap_over_rows(both, gained, lost, neither):
    a, b = columns(both, gained, lost, neither)
    n = len(a)
    rows = np.random.default_rng(1).integers(0, n, size=(10_000, n), dtype=np.int16)
    brute = np.quantile((b - a)[rows].mean(axis=1), [0.025, 0.975])
    result = paired_difference(a, b, seed=2)
    # The means live on a grid of 1/n; a 2.5% quantile of 10,000 draws strays by about 0.03 standard deviations.
    spread = np.std(b - a) / np.sqrt(n)
    assert [result.low, result.high] == pytest.approx(brute, abs=1 / n + 0.15 * spread)


def test_verdicts_and_their_direction():
    a, b = columns(400, 90, 30, 480)
    better, worse = paired_difference(a, b, seed=0), paired_difference(b, a, seed=0)
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better.low > 0 > worse.high
    assert better.difference == -worse.difference == pytest.approx(0.06)
    # 0 against 5: the bootstrap never draws a loss, so its interval excludes 0; p = 2/32 > 0.05 holds it back.
    few = paired_difference(*columns(50, 5, 0, 45), seed=0)
    assert few.low > 0
    assert few.p == pytest.approx(1 / 16)
    assert few.verdict == "no difference"


def test_equal_columns_differ_by_nothing():
    result = paired_difference([1, 0, 1], [1, 0, 1], seed=3)
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)
    assert result.verdict == "no difference"


def test_the_seed_decides_the_interval():
    a, b = columns(40, 25, 10, 25)
    assert paired_difference(a, b, seed=5) == paired_difference(a, b, seed=5)
    with_others = {paired_difference(a, b, seed=s, resamples=101).low for s in range(5)}
    assert len(with_others) > 1


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1, 0]), ([0, 2], [0, 1]), ([[1]], [[1]])])
def test_bad_columns_are_refused(a, b):
    with pytest.raises(ValueError, match="outcomes must be"):
        paired_difference(a, b, seed=0)


@pytest.mark.parametrize("advantage", [0.0, 0.05], ids=["no difference", "5 points"])
def test_calibration_by_simulation(advantage):
    """1,000 questions at 50%, correlation 0.6 between arms: 2,000 pairs with no difference, 500 with 5 points."""
    rng = np.random.default_rng(11)
    pairs = 500 if advantage else 2000
    discordant = 2 * 0.5 * 0.5 * (1 - 0.6)
    gained_share = (discordant + advantage) / 2
    fired = 0
    for seed in range(pairs):
        gained, lost, _ = rng.multinomial(1000, [gained_share, gained_share - advantage, 1 - discordant])
        result = paired_difference(*columns(400, gained, lost, 600 - gained - lost), seed=seed, resamples=500)
        fired += result.verdict != "no difference"
    assert fired / pairs > 0.8 if advantage else 0.03 <= fired / pairs <= 0.07


@pytest.mark.parametrize("discordance", [0.05, 0.2])
@pytest.mark.parametrize("questions", [200, 1000])
def test_the_gate_is_calibrated(questions, discordance):
    """2,000 simulated pairs of equals: `showwork compare --fail-on-regression` fires in 3 to 7% of them."""
    rng = np.random.default_rng(12)
    flips = rng.binomial(questions, discordance, 2000)
    lost = rng.binomial(flips, 0.5)
    fired = np.mean([mcnemar_worse(f - x, x) < ALPHA for f, x in zip(flips.tolist(), lost.tolist(), strict=True)])
    assert 0.03 <= fired <= 0.07


def test_the_gate_sees_five_points():
    """1,000 questions at 50%, correlation 0.6: discordance 0.2, so that 12.5% are lost and 7.5% gained."""
    rng = np.random.default_rng(13)
    counts = rng.multinomial(1000, [0.075, 0.125, 0.8], size=2000)[:, :2].tolist()
    assert np.mean([mcnemar_worse(gained, lost) < ALPHA for gained, lost in counts]) > 0.8


def test_questions_needed_by_hand():
    # (1.959964 * sqrt(0.2) + 0.841621 * sqrt(0.2 - 0.0025))^2 / 0.0025 = (0.876523 + 0.374023)^2 / 0.0025 = 625.5
    assert questions_needed(0.05, discordance=0.2) == questions_needed(-0.05, discordance=0.2) == 626
    # All flips in one direction: the test needs six of them, 6 / 0.01.
    assert questions_needed(0.01, discordance=0.01) >= 600
    assert questions_needed(1.0, discordance=1.0) == 6


@pytest.mark.parametrize(("difference", "discordance", "power"), [(0.05, 0.2, 0.8), (0.02, 0.1, 0.8), (0.03, 0.1, 0.9)])
def test_so_many_questions_have_the_power(difference, discordance, power):
    n = questions_needed(difference, discordance=discordance, power=power)
    gained = (discordance + difference) / 2
    counts = np.random.default_rng(14).multinomial(n, [gained, discordance - gained, 1 - discordance], size=4000)
    found = np.mean([mcnemar_exact(b, c) < ALPHA for b, c, _ in counts.tolist()])
    # The formula is the normal approximation's; the exact test has a little less.
    assert power - 0.04 < found < power + 0.02


@pytest.mark.parametrize(("n", "discordance"), [(1024, 0.1), (1319, 0.3), (200, 0.05)])
def test_the_detectable_difference_is_the_inverse(n, discordance):
    found = detectable_difference(n, discordance=discordance)
    assert questions_needed(found, discordance=discordance) <= n
    assert questions_needed(found * 0.99, discordance=discordance) > n


def test_what_can_never_be_shown():
    assert detectable_difference(1000, discordance=0.0) is None
    assert detectable_difference(5, discordance=1.0) is None
    for difference, discordance, power in [(0, 0.1, 0.8), (0.2, 0.1, 0.8), (0.1, 1.1, 0.8), (0.1, 0.2, 0.4)]:
        with pytest.raises(ValueError, match="can't come from"):
            questions_needed(difference, discordance=discordance, power=power)


def test_spread_equals_scipy():
    values = [0.41, 0.45, 0.44, 0.47]
    found = spread(values)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.n, found.mean, found.deviation) == pytest.approx((4, 0.4425, np.std(values, ddof=1)))
    assert spread([0.5]).low is None
    with pytest.raises(ValueError, match="nothing"):
        spread([])


def test_a_comparison_imports_neither_scipy_stats_nor_jax():
    code = (
        "import sys; from showwork.evaluation.statistics import paired_difference;"
        "paired_difference([0, 1, 0], [1, 1, 1], seed=0);"
        "assert not {'scipy.stats', 'statsmodels', 'pandas', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
