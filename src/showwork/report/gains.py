"""Decomposes an arm's gain: another way chosen, the same way done better, surer samples, newly solved questions.

The way of a completion follows from its equations, whatever its style in training. Greedy gains are split by
Kitagawa's decomposition (1955), within questions of equally many steps: the change of the ways' shares at the mean of
their accuracies, and the change of their accuracies at the mean of their shares. The two add up to the whole. Ways are
not assigned to questions at random, so the split is descriptive, not causal.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from showwork.evaluation.predictions import JudgedEquation, Prediction
from showwork.formatting import MISSING, percent, points
from showwork.reading.dual import operations
from showwork.records import Problem
from showwork.report.tables import Row, Starts

WAYS = ("in words", "at once", "step by step")
NOTE = (
    "`in words`: shares of the greedy completions that write no equation; `at once`: with several operations in one "
    "equation; `step by step`: the others. `another way` and `same way better` add up to the change in greedy "
    "accuracy: what the ways' new shares are worth, and what is gained within a way, on questions of equally many "
    "steps. A start takes each way where it suits; taken everywhere, the way meets harder questions, which counts as a "
    "loss within it. `surer` and `new` add up to the change in sampled accuracy: on questions that the start got right "
    "in at least one of its samples, and on those that it never did, which holds some luck of the draw. Points, the "
    "shares aside."
)


@dataclass(frozen=True)
class Gain:
    """Differences of shares (0.05 = 5 points); ways holds the shares of WAYS. surer, new: None without samples."""

    ways: tuple[float, ...]
    chosen: float
    within: float
    surer: float | None
    new: float | None


def way(equations: Sequence[JudgedEquation]) -> str:
    """Which of WAYS a completion takes, from its equations."""
    if not equations:
        return "in words"
    return "at once" if any(len(operations(e.expression)) > 1 for e in equations) else "step by step"


def gain(before: Sequence[Prediction], after: Sequence[Prediction], problems: Sequence[Problem]) -> Gain:
    """Splits an arm's gain over its start; the predictions of both are in the order of the problems."""
    groups: dict[int, list[tuple[Prediction, Prediction]]] = defaultdict(list)
    for problem, pair in zip(problems, zip(before, after, strict=True), strict=True):
        groups[problem.steps].append(pair)
    chosen = within = 0.0
    for pairs in groups.values():
        weight = len(pairs) / len(problems)
        old, new = ([pair[side] for pair in pairs] for side in (0, 1))
        for name in WAYS:
            (share, right), (later_share, later_right) = _of_way(old, name), _of_way(new, name)
            # A way that one side never takes has no accuracy there, so its whole part counts as chosen.
            right = later_right if right is None else right
            later_right = right if later_right is None else later_right
            if right is not None and later_right is not None:
                chosen += weight * (later_share - share) * (right + later_right) / 2
                within += weight * (later_right - right) * (share + later_share) / 2
    sampled = [(_rate(a), _rate(b)) for a, b in zip(before, after, strict=True) if a.samples and b.samples]
    surer, new_ones = (
        sum(b - a for a, b in sampled if (a > 0) is known) / len(sampled) if sampled else None
        for known in (True, False)
    )
    return Gain(tuple(_of_way(after, name)[0] for name in WAYS), chosen, within, surer, new_ones)


def rows(starts: Starts, predictions: Mapping[str, Sequence[Prediction]], problems: Sequence[Problem]) -> list[Row]:
    """A row of text for each trained arm; NOTE explains the columns. The gain over a start that got nothing right is
    not split.
    """
    found = []
    for arm, start in starts.items():
        if start is None:
            continue
        split = gain(predictions[start], predictions[arm], problems)
        parts = (split.chosen, split.within, split.surer, split.new)
        is_split = any(prediction.correct for prediction in predictions[start])
        cells = [points(part) if is_split and part is not None else MISSING for part in parts]
        titles = (*WAYS, "another way", "same way better", "surer", "new")
        found.append({"arm": arm, **dict(zip(titles, [*map(percent, split.ways), *cells], strict=True))})
    return found


def _of_way(predictions: Sequence[Prediction], name: str) -> tuple[float, float | None]:
    """The share of the completions that take a way, and the accuracy of those, None without any."""
    taken = [prediction.correct for prediction in predictions if way(prediction.equations) == name]
    return len(taken) / len(predictions), fmean(taken) if taken else None


def _rate(prediction: Prediction) -> float:
    return fmean(sample.correct for sample in prediction.samples)
