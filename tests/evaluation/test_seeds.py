"""Arms over several seeds, computed by hand."""

import numpy as np
import pytest
from scipy import stats

from showwork.evaluation.seeds import SeedRun, digest, summarise

STARTS = {"sft": "base", "grpo": "sft"}


def run(seed: int, **right: int) -> list[SeedRun]:
    """An arm's number of right answers, of 100: always to the first questions."""
    found = []
    for arm, correct in right.items():
        start = STARTS.get(arm) if STARTS.get(arm) in right else None
        change = correct - right[start] if start else 0
        flips = (max(change, 0), max(-change, 0)) if start else (None, None)
        found.append(SeedRun(seed, arm, start, 100, correct, *flips))
    return found


def test_mean_and_spread_by_hand() -> None:
    runs = [*run(0, base=0, sft=50, grpo=52), *run(1, base=0, sft=40, grpo=43), *run(2, base=0, sft=45, grpo=49)]
    base, sft, grpo = summarise(runs)
    assert (base.start, base.difference, base.verdict) == (None, None, None)
    assert sft.accuracy == (0.5, 0.4, 0.45)
    assert (sft.across.n, sft.across.mean, sft.across.deviation) == (3, pytest.approx(0.45), pytest.approx(0.05))
    # Seed by seed: 2, 3 and 4 points. Compared with the spread of either arm, 3 points would be noise.
    assert grpo.difference.mean == pytest.approx(0.03)
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert (grpo.difference.low, grpo.difference.high) == pytest.approx((0.03 - half, 0.03 + half))
    assert grpo.verdict == "better"
    # 40 and more gained and none lost are p = 2/2^40 and less; 2, 3 and 4 gained are p = 1/2, 1/4 and 1/8.
    assert (sft.clearly_better, sft.clearly_worse) == (3, 0)
    assert (grpo.clearly_better, grpo.clearly_worse) == (0, 0)


def test_seeds_that_are_clear_by_themselves() -> None:
    # 7 flips of one kind are p = 2/2^7 = 0.016, and 8 are 2/2^8 = 0.0078.
    runs = [*run(0, sft=50, grpo=58), *run(1, sft=50, grpo=57), *run(2, sft=50, grpo=42), *run(3, sft=50, grpo=60)]
    grpo = summarise(runs)[1]
    assert (grpo.clearly_better, grpo.clearly_worse) == (2, 1)
    # The flips count, not the difference alone: 20 gained and 12 lost are p = 0.22.
    (mixed,) = summarise([SeedRun(seed, "grpo", "sft", 100, 58, 20, 12) for seed in range(3)])
    assert (mixed.clearly_better, mixed.difference.mean) == (0, pytest.approx(0.08))


def test_a_verdict_needs_three_seeds_and_an_interval_without_zero() -> None:
    runs = [*run(0, sft=50, grpo=60), *run(1, sft=50, grpo=61), *run(2, sft=50, grpo=45)]
    assert summarise(runs)[1].verdict == "no difference"
    assert summarise(runs[:4])[1].verdict == "too few seeds"
    worse = [part for seed in range(3) for part in run(seed, sft=50, grpo=40 + seed)]
    assert summarise(worse)[1].verdict == "worse"


def test_only_arms_that_every_seed_has() -> None:
    assert [s.arm for s in summarise([*run(0, sft=1, grpo=2), *run(1, sft=1)])] == ["sft"]


def test_a_digest_is_of_the_recipe_alone() -> None:
    params = {"seed": 0, "live": False, "grpo.beta": 0.0, "grpo.rewards": {}}
    same = {"grpo.rewards": {}, "grpo.beta": 0.0, "seed": 7}
    assert digest(params) == digest(same)
    assert digest(params) != digest({**params, "grpo.beta": 0.5})
    assert digest(params) != digest({**params, "grpo.epsilon": 0.5})
