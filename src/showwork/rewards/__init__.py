"""The rewards by name. A weight in params.yaml chooses one; nothing else makes a function a reward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from showwork.records import Completion, Problem
from showwork.rewards import basic, cookbook, dsa, dual_stream, trajectory

RewardFunction = Callable[[Sequence[Completion], Sequence[Problem]], list[float]]


@dataclass(frozen=True)
class RewardSpec:
    """A batched function (completions, problems) → one number a completion, within [low, high].

    wrong_high is the most that a completion without the right answer earns, right_low the least that one with it does
    (None: high and low); right is what `answers.is_correct` says. Every reward is linear in the completion's length,
    never evaluates it as code, and raises where it cannot judge: a crash is an error, not a 0.
    """

    function: RewardFunction
    low: float
    high: float
    wrong_high: float | None = None
    right_low: float | None = None

    @property
    def is_outcome(self) -> bool:
        """Whether the right answer alone decides which of two completions earns more."""
        return self.lead(1.0) > 0

    def lead(self, weight: float) -> float:
        """What the worst right answer earns more than the best wrong one, at this weight; negative where shaping
        can outweigh the answer. The leads of an arm's rewards add up.
        """
        if weight < 0:
            return weight * (self.high - self.low)
        right = self.low if self.right_low is None else self.right_low
        wrong = self.high if self.wrong_high is None else self.wrong_high
        return weight * (right - wrong)


REWARDS: dict[str, RewardSpec] = {
    "answer": RewardSpec(basic.answer, 0.0, 1.0, wrong_high=0.0, right_low=1.0),
    "format": RewardSpec(basic.format, 0.0, 1.0),
    "equations": RewardSpec(basic.equations, 0.0, 1.0),
    "ended": RewardSpec(basic.ended, 0.0, 1.0),
    "trajectory": RewardSpec(trajectory.trajectory, 0.0, 1.0, wrong_high=0.15, right_low=0.4),
    "dual_stream": RewardSpec(dual_stream.dual_stream, 0.0, 1.0, wrong_high=0.25, right_low=0.5),
    # As the notebooks have them, faults included: for comparison, and to see how they are gamed.
    "cookbook_format": RewardSpec(cookbook.format, 0.0, 3.0),
    "cookbook_tags": RewardSpec(cookbook.tags, -2.0, 2.0),
    "cookbook_answer": RewardSpec(cookbook.answer, -1.0, 3.0),
    "cookbook_number": RewardSpec(cookbook.number, 0.0, 1.5),
    "trajectory_notebook": RewardSpec(trajectory.notebook, -0.4, 3.0),
    "dsa_structure": RewardSpec(dsa.structure, 0.0, 3.0),
    "dsa_soft_structure": RewardSpec(dsa.soft_structure, -6.0, 6.0),
    "dsa_composite": RewardSpec(dsa.composite, 0.0, 7.0),
}
