"""One recipe run with several seeds: what of a difference between arms is the recipe's, and what is luck."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from showwork.evaluation.comparison import Snapshot
from showwork.evaluation.statistics import Spread, Verdict, spread

FEWEST = 3  # seeds that a verdict rests on


@dataclass(frozen=True)
class SeedSummary:
    """An arm over the seeds: its accuracy, and how far it is from the arm that it started from, seed by seed."""

    arm: str
    start: str | None
    accuracy: tuple[float, ...]
    across: Spread
    difference: Spread | None
    verdict: Verdict | Literal["too few seeds"] | None


def summarise(runs: Mapping[int, Snapshot]) -> list[SeedSummary]:
    """Over the arms that all runs have; runs maps a seed to its state.

    The verdict asks whether the mean difference, by t over the seeds, has a 95% interval without 0: the questions of
    one run share their model, and a thousand of them are still one draw of the seed.
    """
    first, *others = runs.values()
    arms = [arm for arm in first.columns if all(arm in other.columns for other in others)]
    accuracy = {arm: tuple(float(run.columns[arm].mean()) for run in runs.values()) for arm in arms}
    summaries = []
    for arm in arms:
        start = first.params.get(f"{arm}.start")
        difference = verdict = None
        if start in arms:
            difference = spread([b - a for a, b in zip(accuracy[start], accuracy[arm], strict=True)])
            verdict = _judge(difference)
        summaries.append(SeedSummary(arm, start, accuracy[arm], spread(accuracy[arm]), difference, verdict))
    return summaries


def _judge(difference: Spread) -> Verdict | Literal["too few seeds"]:
    if difference.n < FEWEST:
        return "too few seeds"
    if difference.low <= 0 <= difference.high:
        return "no difference"
    return "better" if difference.mean > 0 else "worse"
