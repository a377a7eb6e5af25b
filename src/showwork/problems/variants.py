"""Variants: a problem with other numbers, its equations and its answer computed again.

New leaves are drawn, every result follows in order, and the new numbers are written where the old ones stood. Numbers
that stop making sense are drawn again. So a variant is as good as the row that it comes from.
"""

import hashlib
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from showwork.problems.cleaning import gold_rejects
from showwork.problems.graphs import Graph, Refusal, fill, read_graph
from showwork.problems.splits import normalise
from showwork.reading.answers import decimal_string
from showwork.reading.arithmetic import find_equations
from showwork.reading.expressions import BadExpression, decimals_of, evaluate
from showwork.records import Equation, Problem

__all__ = ["Refusal", "make_variant", "plan_mark", "question_mark"]

MAX_DRAWS = 200  # before a problem's numbers count as bound to their values

_COMMUTES = re.compile(r"([0-9.]+)([+*])([0-9.]+)")


def make_variant(
    problem: Problem, *, seed: int, number: int, taken: Collection[str] = frozenset()
) -> Problem | Refusal:
    """The problem with other numbers, or why there is none; (seed, problem.id, number) decides the draw.

    Neither its question_mark nor its plan_mark stands in taken. Its id is the problem's with "~number" behind.
    """
    graph = read_graph(problem)
    if isinstance(graph, Refusal):
        return graph
    rng = random.Random(f"{seed}:{problem.id}:{number}")
    old = [leaf.value for leaf in graph.leaves]
    for _ in range(MAX_DRAWS):
        leaves = [
            Fraction(rng.randrange(leaf.low, leaf.high + 1, leaf.step), 10**leaf.decimals) for leaf in graph.leaves
        ]
        results = _compute(graph, leaves)
        if results is None or leaves == old or not _is_in_order(graph, leaves):
            continue
        variant = _write(problem, graph, [*results, *leaves], number)
        if question_mark(variant) in taken or plan_mark(variant) in taken:
            continue
        if gold_rejects([variant]) or not all(found.holds for found in find_equations(variant.reasoning)):
            return Refusal.FALSE_EQUATION
        return variant
    return Refusal.NO_SENSIBLE_NUMBERS


def question_mark(problem: Problem) -> str:
    """A hash of the question's words and numbers."""
    return _hash(normalise(problem.question))


def plan_mark(problem: Problem) -> str:
    """A hash of what is calculated, whatever the words: the equations in order, operands of + and * in either order."""
    sides = []
    for equation in problem.equations:
        match = _COMMUTES.fullmatch(equation.expression)
        sides.append(match[2].join(sorted((match[1], match[3]))) if match else equation.expression)
    return _hash("plan " + " ".join(sides))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _compute(graph: Graph, leaves: Sequence[Fraction]) -> list[Fraction] | None:
    """The results in order, or None where one stops making sense.

    What was whole stays whole, what was positive stays positive, one stays one and many stay many; no result has more
    decimals than before, nor more digits, though two are always allowed.
    """
    values = [*graph.results, *leaves]
    for index, (template, old) in enumerate(zip(graph.expressions, graph.results, strict=True)):
        try:
            new = evaluate(fill(template, values))
        except BadExpression:
            return None
        is_as_whole = (new * 10 ** decimals_of(decimal_string(old))).denominator == 1
        is_as_many = all((new > bound) == (old > bound) and (new < bound) == (old < bound) for bound in (0, 1))
        if not is_as_whole or not is_as_many or abs(new) >= 10 ** max(2, len(str(abs(int(old))))):
            return None
        values[index] = new
    return values[: len(graph.results)]


def _is_in_order(graph: Graph, leaves: Sequence[Fraction]) -> bool:
    """Whether the question's numbers keep their order: a part stays less than its whole, though nothing subtracts."""
    pairs = [*zip((leaf.value for leaf in graph.leaves), leaves, strict=True), *((x, x) for x in set(graph.stated))]
    return all(first[1] < second[1] for first, second in pairwise(sorted(pairs)))


def _write(problem: Problem, graph: Graph, values: Sequence[Fraction], number: int) -> Problem:
    equations = tuple(
        Equation(fill(template, values), decimal_string(result))
        for template, result in zip(graph.expressions, values, strict=False)
    )
    return replace(
        problem, id=f"{problem.id}~{number}", question=fill(graph.question, values),
        reasoning=fill(graph.reasoning, values), answer=equations[-1].value, equations=equations,
    )  # fmt: skip
