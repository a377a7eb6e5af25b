"""Runs sides in turn, and compares them: medians, ratios with their quartiles, checks."""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gate import Side


@dataclass(frozen=True)
class Figure:
    """One line of the table. ratio above 1: ours is that many times as fast; low and high are its quartiles."""

    part: str
    what: str
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    at_least: float | None
    rounds: list[list[float]]  # [ours, theirs] of each round


@dataclass(frozen=True)
class Check:
    """A check that both sides do the same under the same terms: what was found, such as a difference, and the most
    that is allowed."""

    part: str
    what: str
    found: float
    allowed: float


class Driver:
    """Starts sides on one folder of material, steps them in turn, and stops them."""

    def __init__(self, folder: Path, *, runs: int, warm_up: int, trl: Path | None, say: Callable[[str], None]):
        self.folder, self.runs, self._warm_up, self.trl, self.say = folder, runs, warm_up, trl, say
        self.versions: dict[str, str] = {}

    def side(self, name: str, **environment: str) -> Side:
        """A side by its name, such as "ours sft": python -m bench.ours sft FOLDER."""
        module, *what = name.split()
        interpreter = self.trl if module == "trl_side" else Path(sys.executable)
        command = [str(interpreter), "-m", f"bench.{module}", *what, str(self.folder)]
        return Side(name, command, log=self.folder / "logs" / f"{name}.log", environment=environment)

    def once(self, name: str, *, warm_up: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A side's facts, and its answer after one step that follows so many others, with no side beside it."""
        side = self.side(name)
        try:
            facts = side.ready()
            answer = [side.step() for _ in range(warm_up + 1)][-1]
        finally:
            side.close()
        self.say(f"  once: {name} {answer['seconds']:.2f} s")
        self.versions |= facts.get("versions", {})
        return facts, [answer]

    def alternate(
        self, names: Sequence[str], **environment: str
    ) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
        """Each side's facts before and in its first step, and its answers, one per round.

        Every other round goes through the sides backwards.
        """
        sides: list[Side] = []
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        try:
            for name in names:
                sides.append(self.side(name, **environment))
            said = {side.name: side.ready() for side in sides}
            for number in range(self._warm_up + self.runs):
                for side in sides if number % 2 == 0 else reversed(sides):
                    answer = side.step()
                    counts = number >= self._warm_up
                    label = f"round {number - self._warm_up + 1} of {self.runs}" if counts else "warm-up"
                    self.say(f"  {label}: {side.name} {answer['seconds']:.2f} s")
                    said[side.name].setdefault("first", answer)
                    if counts:
                        answers[side.name].append(answer)
        finally:
            for side in sides:
                side.close()
        for facts in said.values():
            self.versions |= facts.get("versions", {})
        return said, answers


def figure(
    part: str, what: str, peer: str, unit: str, ours: Sequence[float], theirs: Sequence[float], *,
    at_least: float | None, more_is_better: bool = True,
) -> Figure:  # fmt: skip
    """A figure from one value per round and side; ratios are per round, so that a slow minute affects both sides."""
    ratios = [a / b if more_is_better else b / a for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = quartiles(ratios)
    return Figure(
        part, what, peer, unit, _short(statistics.median(ours)), _short(statistics.median(theirs)), _short(middle),
        _short(low), _short(high), at_least,
        [[_short(a), _short(b)] for a, b in zip(ours, theirs, strict=True)],
    )  # fmt: skip


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles, interpolated between the values (inclusive method)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _short(value: float) -> float:
    return float(f"{value:.4g}")
