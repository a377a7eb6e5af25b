"""Soundness of work: whether steps derive the answer from the question, each true, grounded and needed.

A step may use numbers of the question, results of earlier sound steps, and common knowledge (`quantities.KNOWN`). The
derivation of a number is the first sound step that results in it, with the derivations of the numbers that it uses.
Each result counts once, so steps that are not needed, repeated, or undone and redone earn nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from showwork.reading.answers import canonical_number, decimal_string
from showwork.reading.arithmetic import BadExpression, FoundEquation, evaluate
from showwork.reading.dual import Calculation, operations
from showwork.reading.quantities import KNOWN, operands, quantities
from showwork.records import Problem


@dataclass(frozen=True)
class Step:
    """value: the result as a canonical decimal, None if it is not a number; results: the value and the numbers of a
    rewritten expression on the right (2*3+4 = 6+4); operands and results have no signs.
    """

    value: str | None
    holds: bool
    operators: int
    operands: tuple[str, ...]
    results: tuple[str, ...]


def read_step(step: FoundEquation | Calculation) -> Step:
    """An equation of a text, or a CALC line, as a step."""
    used, shown = operands(step.expression), []
    value = canonical_number(step.value or "")
    if value is None and step.value:
        shown = operands(step.value)
        value = _value(step.value)
    results = [*shown, *([value.lstrip("-")] if value else [])]
    rest = list(used)
    if value in rest:
        rest.remove(value)
    # 8*1 = 8 and 8+0 = 8 do nothing.
    is_idle = len(rest) < len(used) and set(rest) <= {"0", "1"}
    return Step(
        value,
        step.holds,
        0 if is_idle else len(operations(step.expression)),
        tuple(used),
        tuple(dict.fromkeys(results)),
    )


def _value(expression: str) -> str | None:
    try:
        return decimal_string(evaluate(expression))
    except BadExpression:
        return None


def soundness(steps: Sequence[Step], problem: Problem, conclusion: str | None) -> float:
    """How soundly the steps derive the conclusion, in 0..1; 0 if their last result is another number.

    The product of three shares: of the operations that the problem needs, those in the derivation; of its true steps
    and all false ones, the true ones; of its steps, those that use only known numbers. Linear in the steps.
    """
    if not steps or conclusion is None or steps[-1].value != conclusion:
        return 0.0
    is_grounded = _grounded(steps, problem.question)
    way = _way(steps, is_grounded, problem.question, conclusion)
    false = sum(not step.holds for step in steps)
    done = sum(steps[i].operators for i in way)
    held = sum(steps[i].holds for i in way)
    reached = min(1.0, done / needed_operations(problem))
    return reached * (held / (held + false)) * (sum(is_grounded[i] for i in way) / len(way)) if held else 0.0


@lru_cache(maxsize=4096)  # a group of completions shares its problem
def needed_operations(problem: Problem) -> int:
    """The number of operations in the problem's own derivation of its answer, at least 1."""
    steps = [read_step(Calculation(e.expression, e.value, holds=True)) for e in problem.equations]
    way: Sequence[int] = range(len(steps))
    if any(step.value == problem.answer for step in steps):
        way = _way(steps, [True] * len(steps), problem.question, problem.answer)
    return max(1, sum(steps[i].operators for i in way))


def _grounded(steps: Sequence[Step], question: str) -> list[bool]:
    """For each step, whether all its operands are known; a result becomes known if its step is grounded and holds."""
    given, derived, flags = quantities(question) | KNOWN, set(), []
    for step in steps:
        flags.append(all(number in given or number in derived for number in step.operands))
        if flags[-1] and step.holds:
            derived.update(step.results)
    return flags


def _way(steps: Sequence[Step], is_grounded: Sequence[bool], question: str, conclusion: str) -> list[int]:
    """Indices of the steps that derive the conclusion, latest first; each result from its first sound step.

    A number of the question needs no step.
    """
    sound: dict[str, int] = {}
    first: dict[str, int] = {}
    for index, step in enumerate(steps):
        for number in step.results:
            first.setdefault(number, index)
            if step.holds and is_grounded[index]:
                sound.setdefault(number, index)
    source = first | sound
    given = quantities(question)
    way, wanted = set(), [source[conclusion.lstrip("-")]]
    while wanted:
        index = wanted.pop()
        if index not in way:
            way.add(index)
            before = (source.get(number) for number in steps[index].operands if number not in given)
            wanted.extend(i for i in before if i is not None and i < index)
    return sorted(way, reverse=True)
