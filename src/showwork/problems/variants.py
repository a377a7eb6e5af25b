"""Variants: a problem with other numbers, its equations and its answer recomputed.

New leaves are drawn, the results are computed in order, and the new numbers replace the old ones in the text. Numbers
that make no sense are drawn again, so a variant is as sound as its row.
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
from showwork.reading.answers import exact_decimal
from showwork.reading.arithmetic import find_equations
from showwork.reading.expressions import BadExpression, decimals_of, evaluate
from showwork.records import Equation, Problem

__all__ = ["Refusal", "make_variant", "plan_mark", "question_mark"]

MAX_DRAWS = 200  # before the problem is refused: NO_SENSIBLE_NUMBERS

_COMMUTES = re.compile(r"([0-9.]+)([+*])([0-9.]+)")


def make_variant(
    problem: Problem, *, seed: int, number: int, taken: Collection[str] = frozenset()
) -> Problem | Refusal:
    """The problem with other numbers, or the reason why there is none; (seed, problem.id, number) seeds the draw.

    Neither its question_mark nor its plan_mark is in taken. Its id is the problem's id and "~number".
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
    """A hash of the equations in order, whatever the words; the operands of + and * may be swapped."""
    sides = []
    for equation in problem.equations:
        match = _COMMUTES.fullmatch(equation.expression)
        sides.append(match[2].join(sorted((match[1], match[3]))) if match else equation.expression)
    return _hash("plan " + " ".join(sides))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _compute(graph: Graph, leaves: Sequence[Fraction]) -> list[Fraction] | None:
    """The results in order, or None if one makes no sense.

    A new result compares to 0 and to 1 as the old one does, and has no more decimals and no more digits, though two
    digits are always allowed.
    """
    values = [*graph.results, *leaves]
    for index, (template, old) in enumerate(zip(graph.expressions, graph.results, strict=True)):
        try:
            new = evaluate(fill(template, values))
        except BadExpression:
            return None
        is_as_whole = (new * 10 ** decimals_of(exact_decimal(old))).denominator == 1
        is_as_many = all((new > bound) == (old > bound) and (new < bound) == (old < bound) for bound in (0, 1))
        if not is_as_whole or not is_as_many or abs(new) >= 10 ** max(2, len(str(abs(int(old))))):
            return None
        values[index] = new
    return values[: len(graph.results)]


def _is_in_order(graph: Graph, leaves: Sequence[Fraction]) -> bool:
    """Whether the question's numbers keep their order, so that a part stays less than its whole."""
    pairs = [*zip((leaf.value for leaf in graph.leaves), leaves, strict=True), *((x, x) for x in set(graph.stated))]
    return all(first[1] < second[1] for first, second in pairwise(sorted(pairs)))


def _write(problem: Problem, graph: Graph, values: Sequence[Fraction], number: int) -> Problem:
    equations = tuple(
        Equation(fill(template, values), exact_decimal(result))
        for template, result in zip(graph.expressions, values, strict=False)
    )
    return replace(
        problem, id=f"{problem.id}~{number}", question=fill(graph.question, values),
        reasoning=fill(graph.reasoning, values), answer=equations[-1].value, equations=equations,
    )  # fmt: skip
