"""One recipe run with several seeds: what of a difference between arms is the recipe's, and what is luck."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from showwork.evaluation.statistics import Spread, Verdict, mcnemar_exact, spread

FEWEST = 3  # seeds that a verdict rests on
CLEAR = 0.01  # p of one seed alone, which is one of several
# Of results/seeds.csv: a SeedRun each, the commit whose recipe it is, and the `digest` of that commit's params.
COLUMNS = ("seed", "arm", "start", "n", "correct", "gained", "lost", "commit", "params")


@dataclass(frozen=True)
class SeedRun:
    """An arm at one seed: how many of n questions it got right, and gained and lost to the arm that it started from.

    start, gained and lost are None where it has no start.
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
    """An arm over the seeds: its accuracy, and how far it is from the arm that it started from, seed by seed.

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
    """Over the arms that all seeds have, in the order of the runs.

    The verdict asks whether the mean difference, by t over the seeds, has a 95% interval without 0: the questions of
    one run share their model, and a thousand of them are still one draw of the seed.
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
    clear = []
    if start is not None:
        difference = spread([(run.gained - run.lost) / run.n for run in runs])
        verdict = _judge(difference)
        clear = [run.gained > run.lost for run in runs if mcnemar_exact(run.gained, run.lost) < CLEAR]
    return SeedSummary(
        arm, start, accuracy, spread(accuracy), difference,
        clearly_better=clear.count(True), clearly_worse=clear.count(False), verdict=verdict,
    )  # fmt: skip


def _judge(difference: Spread) -> Verdict | Literal["too few seeds"]:
    if difference.n < FEWEST:
        return "too few seeds"
    if difference.low <= 0 <= difference.high:
        return "no difference"
    return "better" if difference.mean > 0 else "worse"


def recipe(params: Mapping[str, Any]) -> dict[str, Any]:
    """Flat params without the seed, and without what no result hangs on."""
    return {key: value for key, value in params.items() if key not in ("seed", "live")}


def digest(params: Mapping[str, Any]) -> str:
    """Of flat params: the same for the same recipe, whatever the seed and the order of the keys."""
    return hashlib.sha256(json.dumps(recipe(params), sort_keys=True).encode()).hexdigest()[:16]
