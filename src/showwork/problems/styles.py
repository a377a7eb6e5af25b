"""Ways to write the same solution down, of different worth: a warm start's decide what RL can choose from.

Text that people wrote holds all of them, and so does a published model's pre-training; a model from scratch knows
only those that it was shown.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from showwork.reading.answers import decimal_string, render_completion
from showwork.reading.dual import write_monologue
from showwork.reading.expressions import SPOKEN, BadExpression, evaluate
from showwork.records import Equation, Problem


def equations(problem: Problem) -> str:
    """The row's own solution, each step an equation that can be checked."""
    return problem.reasoning


def words(problem: Problem) -> str:
    """The same steps in words: as good a way to the answer, but nothing in it can be checked by rule."""
    lines = []
    for equation in problem.equations:
        spoken = equation.expression[0] + "".join(SPOKEN.get(c, c) for c in equation.expression[1:])
        lines.append(f"{spoken} is {equation.value}.")
    return "\n".join(lines) or problem.reasoning


def at_once(problem: Problem) -> str:
    """All steps in one equation: true, and with several steps more than a small model can work out in its head."""
    return _in_one_step(problem).reasoning


def dual(problem: Problem) -> str:
    """The four sections, worked out step by step."""
    return write_monologue(problem)


def dual_at_once(problem: Problem) -> str:
    """The four sections around one equation for all steps."""
    return write_monologue(_in_one_step(problem))


def _in_one_step(problem: Problem) -> Problem:
    """The problem with one equation: each operand that is an earlier result is replaced by how that came about.

    A step that the last one does not stand on is left out. Where the result is not the same (one was rounded), the
    problem as it is.
    """
    *earlier, last = problem.equations or (None,)
    whole = last.expression if earlier else ""
    for step in reversed(earlier):
        operand = rf"(?<![0-9.]){re.escape(step.value)}(?![0-9.])"
        whole = re.sub(operand, lambda _, step=step: f"({step.expression})", whole, count=1)
    try:
        is_same = bool(earlier) and decimal_string(evaluate(whole)) == last.value
    except BadExpression:
        is_same = False
    if not is_same:
        return problem
    return replace(problem, reasoning=f"{whole} = {last.value}", equations=(Equation(whole, last.value),))


STYLES: dict[str, Callable[[Problem], str]] = {
    "equations": equations, "words": words, "at_once": at_once, "dual": dual,
    "dual_at_once": dual_at_once,
}  # fmt: skip


def render(problem: Problem, style: str) -> str:
    """The whole completion."""
    return render_completion(STYLES[style](problem), problem.answer)


def assign(problems: Sequence[Problem], shares: Mapping[str, float], *, seed: int) -> list[str]:
    """A style for each problem, drawn by the shares, whatever their sum; the seed and its own id decide."""
    names, total = list(shares), sum(shares.values())
    bounds = [sum(list(shares.values())[: i + 1]) / total for i in range(len(names))]
    chosen = []
    for problem in problems:
        digest = hashlib.sha256(f"{seed}:style:{problem.id}".encode()).digest()
        draw = int.from_bytes(digest[:8]) / 2**64
        chosen.append(next((name for name, bound in zip(names, bounds, strict=True) if draw < bound), names[-1]))
    return chosen
