"""Learning curves as numbers: panels, axes, and where reward and accuracy diverge.

A curve is results/plots/STAGE.csv, one row per step: `step`, quantities, and those measured on validation questions,
with the prefix val_. train_tokens and sampled_tokens count from the stage's start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import numpy as np
import pandas as pd

# Column → title and unit of its panel; reward_NAME columns follow the reward.
PANELS = {
    "loss": ("Loss", "nats a token, log scale"),
    "accuracy": ("Accuracy of the samples", "share of completions"),
    "reward": ("Reward", "mean, weighted sum"),
    "kl": ("KL from the start", "nats a token, k3"),
    "entropy": ("Entropy", "nats a token"),
    "completion_tokens": ("Completion length", "tokens"),
    "truncated": ("Truncated", "share of completions"),
    "zero_variance": ("Groups without variance", "share of groups"),
    "clip_fraction": ("Clipped ratios", "share of tokens"),
}
LOGARITHMIC = {"Loss"}
FROM_ZERO = {"KL from the start", "Entropy", "Truncated", "Groups without variance", "Clipped ratios"}
# Axis → its title. All count from the start of the arm's own stage.
AXES = {"tokens": "tokens sampled + trained", "minutes": "minutes", "step": "optimizer step"}
POINTS_A_LINE = 200
# Columns of results/curves.csv, from which DVC plots all arms.
COLUMNS = (
    "arm", "step", "train_tokens", "loss", "val_loss", "reward", "accuracy", "val_accuracy", "kl", "entropy",
    "completion_tokens",
)  # fmt: skip

Heading = tuple[str, str]


class Point(TypedDict):
    """A point of a line: each step (raw), the running mean, or validation (held out)."""

    x: float
    value: float
    kind: Literal["raw", "mean", "held out"]
    arm: NotRequired[str]


def long_form(plots: Mapping[str, Sequence[Mapping[str, str]]]) -> list[dict[str, str | None]]:
    """Rows of results/curves.csv from each arm's results/plots/ARM.csv, arm by arm; None for a missing value."""
    return [{"arm": arm} | {name: row.get(name) for name in COLUMNS[1:]} for arm, rows in plots.items() for row in rows]


def panels(
    plots: Mapping[str, pd.DataFrame], *, axis: str = "step", seconds: Mapping[str, float] | None = None
) -> Iterable[tuple[Heading, list[Point]]]:
    """Each panel's title and unit, and the points of its lines, arm by arm.

    seconds: the duration of each arm's stage; on the axis of minutes, an arm without it has no line.
    """
    rewards = sorted({column for frame in plots.values() for column in frame if column.startswith("reward_")})
    named = [(name, (f"Reward: {name.removeprefix('reward_').replace('_', ' ')}", "mean")) for name in rewards]
    order = list(PANELS.items())
    split = 1 + list(PANELS).index("reward")
    for column, heading in order[:split] + named + order[split:]:
        lines: list[Point] = []
        for arm, frame in plots.items():
            if column == "loss" and "reward" in frame:  # a policy gradient's surrogate loss does not measure progress
                continue
            x = along(frame, axis, (seconds or {}).get(arm)) if len(frame) else None
            if x is not None:
                lines += [line | {"arm": arm} for line in curve(frame, column, x)]
        # A share that is 0 throughout, such as clipped ratios on policy, gets no panel.
        if any(line["value"] for line in lines):
            yield heading, lines


def along(frame: pd.DataFrame, axis: str, seconds: float | None) -> pd.Series | None:
    """The x value of each row of a curve on an axis; None if it isn't known.

    Only a whole stage's seconds are recorded, so minutes are spread evenly over its steps.
    """
    step = pd.to_numeric(frame["step"])
    match axis:
        case "step":
            return step
        case "minutes":
            return step / step.max() * seconds / 60 if seconds else None
        case "tokens":
            counted = [column for column in ("train_tokens", "sampled_tokens") if column in frame]
            if not counted:
                return None
            tokens = frame[counted].apply(pd.to_numeric, errors="coerce").sum(axis=1, min_count=1)
            return tokens.where(step > 0, 0.0).interpolate()
    raise ValueError(f"{axis} is no axis; they are {', '.join(AXES)}")


def curve(frame: pd.DataFrame, column: str, x: pd.Series) -> Iterable[Point]:
    """One arm's points of a panel, at most POINTS_A_LINE per line: a longer curve is averaged in equal bins."""
    wanted: dict[str, tuple[Literal["raw", "mean", "held out"], ...]] = {
        column: ("raw", "mean"), f"val_{column}": ("held out",),
    }  # fmt: skip
    for name, kinds in wanted.items():
        if name not in frame:
            continue
        points = pd.DataFrame({"x": x, name: pd.to_numeric(frame[name], errors="coerce")}).dropna()
        smooth = points[name].rolling(max(1, len(points) // 10), min_periods=1, center=True).mean()
        bins = np.arange(len(points)) * min(len(points), POINTS_A_LINE) // max(1, len(points))
        for kind in kinds:
            values = smooth if kind == "mean" else points[name]
            binned = pd.DataFrame({"x": points["x"], "value": values}).groupby(bins).mean()
            for place, value in zip(binned["x"].tolist(), binned["value"].tolist(), strict=True):
                yield {"x": float(f"{place:.6g}"), "value": float(f"{value:.6g}"), "kind": kind}


@dataclass(frozen=True)
class Change:
    """Mean of the last fifth of the steps minus that of the first, and half the width of its 95% interval."""

    name: str
    before: float
    after: float
    margin: float

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def direction(self) -> int:
        """1 or -1 if the interval excludes 0, else 0."""
        return int(np.sign(self.difference)) if abs(self.difference) > self.margin else 0


@dataclass(frozen=True)
class Parting:
    """The changes of reward and true accuracy of the sampled completions, and whether they diverge."""

    arm: str
    reward: Change
    accuracy: Change
    parts: tuple[Change, ...]
    steps: int

    @property
    def is_parted(self) -> bool:
        """Whether reward rose without accuracy, or accuracy fell without reward."""
        return self.reward.direction > self.accuracy.direction and self.reward.direction >= 0

    @property
    def verdict(self) -> str:
        match self.reward.direction, self.accuracy.direction:
            case 1, -1:
                return "they part: reward rose, accuracy fell"
            case 1, 0:
                return "they part: reward rose alone"
            case 0, -1:
                return "they part: accuracy fell alone"
            case 1, 1:
                return "both rise"
            case -1, -1:
                return "both fall"
            case 0, 0:
                return "no clear change"
            case _:
                return "accuracy rose more than reward"


def parting(arm: str, frame: pd.DataFrame) -> Parting | None:
    """Compares the first and last fifth of a curve; None if it lacks reward or accuracy, or has under 10 steps.

    The interval is Welch's normal one over step means. Neighbouring steps are correlated, so it is a little too
    narrow: a hint to look, not a test.
    """
    if not {"reward", "accuracy"} <= set(frame):
        return None
    names = ["reward", "accuracy", *sorted(name for name in frame if name.startswith("reward_"))]
    numbers = frame[names].apply(pd.to_numeric, errors="coerce").dropna(how="all")
    fifth = len(numbers) // 5
    if fifth < 2:
        return None
    reward, accuracy, *parts = (
        _change(name.removeprefix("reward_"), numbers[name][:fifth], numbers[name][-fifth:]) for name in names
    )
    return Parting(arm, reward, accuracy, tuple(parts), len(numbers))


def _change(name: str, first: pd.Series, last: pd.Series) -> Change:
    margin = 1.96 * float(np.sqrt(first.var() / len(first) + last.var() / len(last)))
    return Change(name, float(first.mean()), float(last.mean()), margin)
