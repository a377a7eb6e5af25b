"""The plain rewards: the right answer, the asked format, true equations."""

from collections.abc import Sequence

from showwork.reading.answers import is_correct, matches_format
from showwork.reading.arithmetic import find_equations
from showwork.records import Completion, Problem


def answer(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1 where the one answer equals the gold number exactly, else 0."""
    return [float(is_correct(c.text, p.answer)) for c, p in zip(completions, problems, strict=True)]


def format(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1 where the completion ended by itself and is reasoning and answer, each once, in order, and no more."""
    return [float(not c.truncated and matches_format(c.text)) for c in completions]


def equations(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """The share of the completion's equations that are true; 0 where it has none."""
    scores = []
    for completion in completions:
        found = find_equations(completion.text)
        scores.append(sum(equation.holds for equation in found) / len(found) if found else 0.0)
    return scores


def ended(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1 where the completion ended by itself, 0 where it ran into the limit."""
    return [float(not completion.truncated) for completion in completions]
