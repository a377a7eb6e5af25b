"""One recipe with several seeds: separates differences between arms from seed noise."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from showwork.evaluation.statistics import Spread, Verdict, mcnemar_exact, spread

FEWEST = 3  # seeds that a verdict needs
CLEAR = 0.01  # p of a single seed; strict, because there are several
# Columns of results/seeds.csv: a SeedRun, the commit of the recipe, and the `digest` of that commit's params.
COLUMNS = ("seed", "arm", "start", "n", "correct", "gained", "lost", "commit", "params")


@dataclass(frozen=True)
class SeedRun:
    """An arm at one seed: how many of n questions it got right, and how many it gained and lost over its start.

    start, gained and lost are None for an arm without a start.
    """

    seed: int
    arm: str
    start: str | None
    n: int
    correct: int
    gained: int | None
    lost: int | None


@dataclass(frozen=True)
class SeedSummary:
    """An arm over the seeds: its accuracy, and its difference from its start, seed by seed.

    clearly_better and clearly_worse count the seeds whose own exact McNemar p is below CLEAR.
    """

    arm: str
    start: str | None
    accuracy: tuple[float, ...]
    across: Spread
    difference: Spread | None
    clearly_better: int
    clearly_worse: int
    verdict: Verdict | Literal["too few seeds"] | None


def summarise(runs: Sequence[SeedRun]) -> list[SeedSummary]:
    """A summary of each arm that all seeds have, in the order of the runs.

    A verdict needs a 95% t interval of the mean difference over the seeds that excludes 0. The unit is the seed: the
    questions of one run share their model, so a thousand of them are still one draw.
    """
    by_arm: dict[str, list[SeedRun]] = {}
    for run in runs:
        by_arm.setdefault(run.arm, []).append(run)
    seeds = {run.seed for run in runs}
    return [_summarise(arm, found) for arm, found in by_arm.items() if len(found) == len(seeds)]


def _summarise(arm: str, runs: Sequence[SeedRun]) -> SeedSummary:
    start = runs[0].start if all(run.start for run in runs) else None
    accuracy = tuple(run.correct / run.n for run in runs)
    difference = verdict = None
    flips = [(run.gained or 0, run.lost or 0) for run in runs]
    clear = [gained > lost for gained, lost in flips if mcnemar_exact(gained, lost) < CLEAR]
    if start is not None:
        difference = spread([(gained - lost) / run.n for run, (gained, lost) in zip(runs, flips, strict=True)])
        verdict = _judge(difference)
    return SeedSummary(
        arm, start, accuracy, spread(accuracy), difference,
        clearly_better=clear.count(True), clearly_worse=clear.count(False), verdict=verdict,
    )  # fmt: skip


def _judge(difference: Spread) -> Verdict | Literal["too few seeds"]:
    if difference.n < FEWEST or difference.low is None or difference.high is None:
        return "too few seeds"
    if difference.low <= 0 <= difference.high:
        return "no difference"
    return "better" if difference.mean > 0 else "worse"


def recipe(params: Mapping[str, Any]) -> dict[str, Any]:
    """Flat params without the seed and without keys that no result depends on."""
    return {key: value for key, value in params.items() if key not in ("seed", "live")}


def digest(params: Mapping[str, Any]) -> str:
    """Digest of flat params: the same for the same recipe, whatever the seed and the order of the keys."""
    return hashlib.sha256(json.dumps(recipe(params), sort_keys=True).encode()).hexdigest()[:16]
