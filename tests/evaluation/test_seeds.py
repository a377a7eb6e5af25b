"""Arms over several seeds, by hand."""

import numpy as np
import pytest
from scipy import stats

from showwork.evaluation.comparison import Snapshot
from showwork.evaluation.seeds import summarise


def run(**right: int) -> Snapshot:
    """An arm's number of right answers, of 100."""
    columns = {arm: (np.arange(100) < count).astype(np.int8) for arm, count in right.items()}
    return Snapshot(
        name="", commit=None, ids=tuple(map(str, range(100))), columns=columns, evaluation={}, training={}, costs={},
        params={"sft.start": "base", "grpo.start": "sft"}, stages={}, packages={},
    )  # fmt: skip


def test_mean_and_spread_by_hand() -> None:
    runs = {0: run(base=0, sft=50, grpo=52), 1: run(base=0, sft=40, grpo=43), 2: run(base=0, sft=45, grpo=49)}
    base, sft, grpo = summarise(runs)
    assert (base.start, base.difference, base.verdict) == (None, None, None)
    assert sft.accuracy == (0.5, 0.4, 0.45)
    assert (sft.across.n, sft.across.mean, sft.across.deviation) == (3, pytest.approx(0.45), pytest.approx(0.05))
    # Seed by seed: 2, 3 and 4 points. Against the spread of either arm, 3 points would be nothing.
    assert grpo.difference.mean == pytest.approx(0.03)
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert (grpo.difference.low, grpo.difference.high) == pytest.approx((0.03 - half, 0.03 + half))
    assert grpo.verdict == "better"


def test_a_verdict_needs_three_seeds_and_an_interval_without_zero() -> None:
    runs = {0: run(sft=50, grpo=60), 1: run(sft=50, grpo=61), 2: run(sft=50, grpo=45)}
    assert summarise(runs)[1].verdict == "no difference"
    assert summarise({0: runs[0], 1: runs[1]})[1].verdict == "too few seeds"
    worse = {seed: run(sft=50, grpo=40 + seed) for seed in range(3)}
    assert summarise(worse)[1].verdict == "worse"


def test_only_arms_that_every_seed_has() -> None:
    assert [s.arm for s in summarise({0: run(sft=1, grpo=2), 1: run(sft=1)})] == ["sft"]
