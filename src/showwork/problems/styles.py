"""Solution styles, some better than others: a warm start's styles decide what RL can choose from.

Human text contains all of them, and so does a published model's pre-training data; a model from scratch knows only
the styles that it was trained on.
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
    """The row's own solution: each step is an equation that can be checked."""
    return problem.reasoning


def words(problem: Problem) -> str:
    """The same steps in words: just as valid, but no rule can check them."""
    lines = []
    for equation in problem.equations:
        spoken = equation.expression[0] + "".join(SPOKEN.get(c, c) for c in equation.expression[1:])
        lines.append(f"{spoken} is {equation.value}.")
    return "\n".join(lines) or problem.reasoning


def at_once(problem: Problem) -> str:
    """All steps in one equation: true, but too hard for a small model to compute where there are several steps."""
    return _in_one_step(problem).reasoning


def dual(problem: Problem) -> str:
    """The four-section monologue, step by step."""
    return write_monologue(problem)


def dual_at_once(problem: Problem) -> str:
    """The four-section monologue with one equation for all steps."""
    return write_monologue(_in_one_step(problem))


def _in_one_step(problem: Problem) -> Problem:
    """The problem with one equation: each operand that is an earlier result is replaced by its expression.

    Steps that the last one does not use are left out. Returns the problem unchanged if the result differs, as with
    a rounded step.
    """
    if len(problem.equations) < 2:
        return problem
    *earlier, last = problem.equations
    whole = last.expression
    for step in reversed(earlier):
        operand = rf"(?<![0-9.]){re.escape(step.value)}(?![0-9.])"
        whole = re.sub(operand, lambda _, step=step: f"({step.expression})", whole, count=1)
    try:
        is_same = decimal_string(evaluate(whole)) == last.value
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
    """The problem's completion in a style."""
    return render_completion(STYLES[style](problem), problem.answer)


def assign(problems: Sequence[Problem], shares: Mapping[str, float], *, seed: int) -> list[str]:
    """A style for each problem, drawn by a hash of the seed and its id; shares need not sum to 1."""
    names, total = list(shares), sum(shares.values())
    bounds = [sum(list(shares.values())[: i + 1]) / total for i in range(len(names))]
    chosen = []
    for problem in problems:
        digest = hashlib.sha256(f"{seed}:style:{problem.id}".encode()).digest()
        draw = int.from_bytes(digest[:8]) / 2**64
        chosen.append(next((name for name, bound in zip(names, bounds, strict=True) if draw < bound), names[-1]))
    return chosen
