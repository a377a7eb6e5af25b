"""Basic rewards: the right answer, the format, true equations."""

from collections.abc import Sequence

from showwork.reading.completion import read
from showwork.records import Completion, Problem
from showwork.rewards import reward


@reward(low=0.0, high=1.0, wrong_high=0.0, right_low=1.0)
def answer(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1 if the answer equals the gold number exactly, else 0."""
    return [float(read(c.text).is_correct(p.answer)) for c, p in zip(completions, problems, strict=True)]


@reward(low=0.0, high=1.0)
def format(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1 if the completion ended by itself and is exactly one reasoning and one answer block, in order, else 0."""
    return [float(not c.truncated and read(c.text).is_formatted) for c in completions]


@reward(low=0.0, high=1.0)
def equations(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """The share of the completion's equations that are true; 0 without any."""
    scores = []
    for completion in completions:
        found = read(completion.text).all_equations
        scores.append(sum(equation.holds for equation in found) / len(found) if found else 0.0)
    return scores


@reward(low=0.0, high=1.0)
def ended(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1 if the completion ended by itself, 0 if it reached the token limit."""
    return [float(not completion.truncated) for completion in completions]
