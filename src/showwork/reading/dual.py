"""The dual stream: a monologue of four sections inside the reasoning block, and the answer.

    Plan: multiply, then add                     the operations in order
    Reasoning: The muffins cost 7*6 = $42.       the row's own steps
    With the drink he pays 42+4 = $46.
    Evidence:
    CALC: 7*6 = 42                               one line per equation
    CALC: 42+4 = 46
    Sanity_check: 46-4 = 42                      the last step undone, or a bound where it can't be undone exactly

All sections come from the row's own equations, so that problems share no boilerplate.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from showwork.reading.answers import REASONING_CLOSE, REASONING_OPEN, canonical_number, decimal_string
from showwork.reading.arithmetic import BadExpression, evaluate, find_equations
from showwork.reading.expressions import decimals_of, is_rounding
from showwork.reading.quantities import operands
from showwork.records import Problem

HEADINGS = ("Plan:", "Reasoning:", "Evidence:", "Sanity_check:")
CALC = "CALC:"
VERBS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}

_HEADING = re.compile(rf"^(?:{'|'.join(HEADINGS)})", re.MULTILINE)
_UNDO = {"+": "-", "-": "+", "*": "/", "/": "*"}
_PRODUCT_WITH_UNKNOWN = re.compile(r"(?<![\w.)/*])([0-9][0-9.]*)\s?\*?\s?[A-Za-z] ?= ?\$?([0-9][0-9,.]*)(?![\w+*/-])")


@dataclass(frozen=True)
class Calculation:
    """One CALC line. value: a canonical decimal, None if the line has no number; holds: whether it is true."""

    expression: str
    value: str | None
    holds: bool


@dataclass(frozen=True)
class Monologue:
    """The four sections of a completion, stripped, and the CALC lines of the Evidence section."""

    plan: str
    reasoning: str
    evidence: str
    sanity_check: str
    calculations: tuple[Calculation, ...]

    @property
    def conclusion(self) -> str | None:
        """The result of the last CALC line."""
        return self.calculations[-1].value if self.calculations else None


def operations(expression: str) -> list[str]:
    """The binary operators of an expression, in order."""
    signs = re.finditer(r"(?<=[0-9.)%])[-+*/]", expression.replace(" ", ""))
    return [sign[0] for sign in signs]


def calculations(problem: Problem) -> list[Calculation]:
    """The row's equations that have an operator; the last one results in the answer if the row shows how.

    Equations without an annotation are read from the text. A rounded equation gets its rounding error as a term:
    7/2 = 3 becomes 7/2-0.5 = 3.
    """
    lines = [_exact(e.expression, e.value) for e in problem.equations if operations(e.expression)]
    if not lines or lines[-1][1] != problem.answer or problem.reasoning.count("=") > len(lines):
        written = _written(problem.reasoning)
        candidates = [*lines, *written]
        if {value for _, value in lines} <= {value for _, value in written}:
            lines = written
        lines = list(dict.fromkeys(lines))
        if not lines or lines[-1][1] != problem.answer:
            ending = [line for line in candidates if line[1] == problem.answer][-1:] or _unwritten(problem, lines)
            lines = [line for line in lines if line not in ending] + ending
    return [Calculation(expression, value, holds=True) for expression, value in lines]


def _written(reasoning: str) -> list[tuple[str, str]]:
    """The true equations of a text whose right side is one number."""
    found = [(e.expression.replace(",", ""), canonical_number(e.value)) for e in find_equations(reasoning) if e.holds]
    return [(expression, value) for expression, value in found if value is not None and _is_true(expression, value)]


def _unwritten(problem: Problem, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A last step that authors leave out: a share as a percentage, or the division that solves 3x = 93."""
    if lines and _is_true(f"{lines[-1][1]}*100", problem.answer):
        return [(f"{lines[-1][1]}*100", problem.answer)]
    for match in reversed(list(_PRODUCT_WITH_UNKNOWN.finditer(problem.reasoning))):
        factor, product = match[1].rstrip("."), match[2].rstrip(".,").replace(",", "")
        if _is_true(f"{product}/{factor}", problem.answer):
            return [(f"{product}/{factor}", problem.answer)]
    return []


def _exact(expression: str, value: str) -> tuple[str, str]:
    if _is_true(expression, value):
        return expression, value
    rest = Fraction(value) - evaluate(expression)
    size = decimal_string(abs(rest)) or f"{abs(rest.numerator)}/{rest.denominator}"
    return f"{expression}{'-' if rest < 0 else '+'}{size}", value


def _is_true(expression: str, value: str | None, written: str | None = None) -> bool:
    """Whether the value is the expression's exact result, or that result rounded to the decimals written."""
    if value is None:
        return False
    try:
        exact = evaluate(expression)
    except BadExpression:
        return False
    decimals = decimals_of(written or value)
    return exact == Fraction(value) or (decimals > 0 and is_rounding(exact, Fraction(value), decimals))


def write_monologue(problem: Problem) -> str:
    """The reasoning text of a problem in four sections; parse_monologue reads back every one."""
    lines = calculations(problem)
    # A space in front, so that a line of the row that starts like a heading is not parsed as one.
    reasoning = _HEADING.sub(lambda heading: f" {heading[0]}", problem.reasoning)
    evidence = "".join(f"\n{CALC} {line.expression} = {line.value}" for line in lines) or " none"
    sections = (f" {_plan(lines)}", f" {reasoning}", evidence, f" {_check(problem, lines)}")
    return "\n".join(heading + text for heading, text in zip(HEADINGS, sections, strict=True))


def _plan(lines: Iterable[Calculation]) -> str:
    """The verbs of each line, in order. Numbers too would take 7 tokens per step of a small vocabulary."""
    steps = [" and ".join(dict.fromkeys(VERBS[sign] for sign in operations(line.expression))) for line in lines]
    return ", then ".join(steps) or "none"


def _check(problem: Problem, lines: list[Calculation]) -> str:
    """The last step undone; a bound if that can't be written exactly, or the last step isn't the answer."""
    if lines and lines[-1].value == problem.answer and (undone := invert(lines[-1].expression, problem.answer)):
        return undone
    numbers = [number for line in reversed(lines) for number in operands(line.expression)]
    numbers += [*re.findall(r"[1-9][0-9]*", problem.question), "0", "1"]
    answer = Fraction(problem.answer)
    other = next(number for number in numbers if Fraction(number) != answer)
    return f"{problem.answer} {'<' if answer < Fraction(other) else '>'} {other}"


def invert(expression: str, value: str) -> str | None:
    """The equation that undoes expression = value: 16/2 = 8 for 8*2 = 16, 70-5*2 = 20*3 for 20*3+5*2 = 70.

    None if no exact one exists: a rounded value, a product with 0, or an expression without an operator.
    """
    for signs in ("+-", "*/"):
        first, *rest = _split(expression, signs)
        if rest:
            undone = value + "".join(_UNDO[part[0]] + part[1:] for part in reversed(rest))
            try:
                return f"{undone} = {first}" if evaluate(undone) == evaluate(first) else None
            except BadExpression:
                return None
    if expression.startswith("(") and expression.endswith(")"):
        return invert(expression[1:-1], value)
    return None


def _split(expression: str, signs: str) -> list[str]:
    """The operands that these signs join outside parentheses; each but the first keeps its sign."""
    parts, depth = [""], 0
    for before, sign in zip(" " + expression, expression, strict=False):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and sign in signs and (before.isalnum() or before in ").%"):
            parts.append("")
        parts[-1] += sign
    return parts


def parse_monologue(completion: str) -> Monologue | None:
    """The sections of a completion; None unless it has one reasoning block that starts with the first heading and has
    each heading once, at a line start, in order. Linear in the completion.
    """
    if completion.count(REASONING_OPEN) != 1 or completion.count(REASONING_CLOSE) != 1:
        return None
    inside, closed, _ = completion.partition(REASONING_OPEN)[2].partition(REASONING_CLOSE)
    found = list(_HEADING.finditer(inside))
    if not closed or tuple(match[0] for match in found) != HEADINGS or inside[: found[0].start()].strip():
        return None
    ends = [match.start() for match in found[1:]] + [len(inside)]
    plan, reasoning, evidence, check = (
        inside[match.end() : end].strip() for match, end in zip(found, ends, strict=True)
    )
    return Monologue(plan, reasoning, evidence, check, tuple(read_calculations(evidence)))


def read_calculations(text: str) -> list[Calculation]:
    """The lines of a text that start with CALC:, each checked by the bounded parser to the decimals written."""
    read = []
    for line in text.split("\n"):
        if (line := line.strip()).startswith(CALC):
            expression, _, written = line.removeprefix(CALC).partition("=")
            expression, value = expression.strip(), canonical_number(written)
            read.append(Calculation(expression, value, _is_true(expression, value, written)))
    return read
