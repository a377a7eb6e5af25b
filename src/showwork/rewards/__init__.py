"""The rewards by name. A weight in params.yaml chooses one; nothing else makes a function a reward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from showwork.records import Completion, Problem
from showwork.rewards import basic

RewardFunction = Callable[[Sequence[Completion], Sequence[Problem]], list[float]]


@dataclass(frozen=True)
class RewardSpec:
    """A batched function (completions, problems) → one number a completion, within [low, high].

    is_outcome says that only a right answer earns it. Every reward is linear in the completion's length, never
    evaluates it as code, and raises where it cannot judge: a crash is an error, not a 0.
    """

    function: RewardFunction
    low: float
    high: float
    is_outcome: bool = False


REWARDS: dict[str, RewardSpec] = {
    "answer": RewardSpec(basic.answer, 0.0, 1.0, is_outcome=True),
    "format": RewardSpec(basic.format, 0.0, 1.0),
    "equations": RewardSpec(basic.equations, 0.0, 1.0),
    "ended": RewardSpec(basic.ended, 0.0, 1.0),
}
