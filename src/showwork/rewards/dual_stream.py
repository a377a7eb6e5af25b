"""The dual-stream reward: the answer, and a monologue whose four sections derive it."""

import re
from collections.abc import Sequence

from showwork.reading.answers import canonical_number
from showwork.reading.arithmetic import BadExpression, FoundEquation, evaluate, find_equations
from showwork.reading.completion import Reading, read
from showwork.reading.dual import Calculation, Monologue, operations
from showwork.reading.expressions import NUMBER
from showwork.reading.quantities import operands, quantities
from showwork.records import Completion, Problem
from showwork.rewards import reward
from showwork.rewards.work import read_step, soundness

ANSWER, MONOLOGUE = 0.5, 0.5
WRONG = 0.5  # factor of the monologue's half for a wrong answer: at most 0.25, below the 0.5 of a right one
BOUND = 0.5  # score of a sanity check that is a bound or a unit: many wrong answers pass it too

_VERB = re.compile(r"\b(add|subtract|multipl|divid)", re.IGNORECASE)
_SIGNS = {"add": "+", "subtract": "-", "multipl": "*", "divid": "/"}
_CHECKED_BY = {"+": "-", "-": "+-", "*": "/", "/": "*/"}  # 17-5 = 12 by 12+5 = 17 or by 17-12 = 5
_TOKEN = re.compile(rf"(?P<number>{NUMBER})|(?P<word>[^\W\d_]+)|\S")
SHORTEST_UNIT = 3  # letters: shorter words are function words


@reward(low=0.0, high=1.0, wrong_high=0.25, right_low=0.5)
def dual_stream(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """0.5 · answer + 0.5 · monologue, in 0..1; the monologue counts half if the answer is wrong.

    monologue: 0 unless the form is exact (`matches_format`, `parse_monologue`) and the last CALC line is the answer
    given. Then it is evidence · (0.5 + 0.25 · plan + 0.25 · check), each in 0..1:
    evidence: `work.soundness` of the CALC lines, times the share of the Reasoning's equations that are true and have
    their result among the CALC lines; plan: how well the Plan's verbs match the CALC lines' operations, in order;
    check: 1 for the last CALC line undone, BOUND for a bound or a unit of the answer.
    A right answer earns 0.5 to 1, a wrong one at most 0.25; a monologue without a calculation earns nothing.
    """
    return [_dual_stream(read(c.text), p) for c, p in zip(completions, problems, strict=True)]


def _dual_stream(reading: Reading, problem: Problem) -> float:
    is_right = reading.is_correct(problem.answer)
    monologue = reading.sections if reading.is_formatted else None
    quality = judge(monologue, problem, reading.answer) if monologue else 0.0
    return ANSWER + MONOLOGUE * quality if is_right else MONOLOGUE * WRONG * quality


def judge(monologue: Monologue, problem: Problem, answer: str | None) -> float:
    """How well the monologue derives the answer given, in 0..1."""
    # 1 = 1 calculates nothing: such a line counts as a false step.
    lines = [
        Calculation(c.expression, c.value, c.holds and bool(operations(c.expression))) for c in monologue.calculations
    ]
    evidence = soundness([read_step(line) for line in lines], problem, answer) * _covered(monologue)
    if not evidence:
        return 0.0
    return evidence * (0.5 + 0.25 * _planned(monologue) + 0.25 * check_quality(monologue, problem))


def _covered(monologue: Monologue) -> float:
    """The share of the Reasoning's equations that are true and share their result with a CALC line; 1 without any."""
    written = [read_step(equation) for equation in find_equations(monologue.reasoning)]
    shown = {line.value for line in monologue.calculations}
    return sum(step.holds and step.value in shown for step in written) / len(written) if written else 1.0


def _planned(monologue: Monologue) -> float:
    """The share of positions where the Plan's verbs match the CALC lines' operations, over the longer of the two."""
    plan = [_SIGNS[verb.lower()] for verb in _VERB.findall(monologue.plan)]
    done = [sign for line in monologue.calculations for sign in dict.fromkeys(operations(line.expression))]
    matches = sum(said == did for said, did in zip(plan, done, strict=False))
    return matches / max(len(plan), len(done), 1)


def check_quality(monologue: Monologue, problem: Problem) -> float:
    """1 if the Sanity_check undoes the last CALC line, BOUND if it bounds the conclusion by a number of the problem
    or gives it a unit that the question names; 0 for neither, or if an equation or a bound in it is false.
    """
    text, last = monologue.sanity_check, monologue.calculations[-1]
    equations = find_equations(text)
    bounds = [bound for line in text.split("\n") if (bound := _read_bound(line)) is not None]
    if not all(equation.holds for equation in equations) or not all(holds for *_, holds in bounds):
        return 0.0
    numbers = sorted([*operands(last.expression), (last.value or "").lstrip("-")])
    if any(_undoes(equation, last, numbers) for equation in equations):
        return 1.0
    own = quantities(problem.question) | {n for line in monologue.calculations for n in operands(line.expression)}
    is_bounded = any(
        (left == last.value and right in own) or (right == last.value and left in own) for left, right, _ in bounds
    )
    return BOUND if is_bounded or _has_unit(text, last.value, problem.question) else 0.0


def _undoes(equation: FoundEquation, calculation: Calculation, numbers: list[str]) -> bool:
    """Whether the equation has the calculation's numbers (sorted), the result on the left, and an inverse operator."""
    left = operands(equation.expression)
    same = sorted(left + operands(equation.value)) == numbers
    undoing = {sign for done in operations(calculation.expression) for sign in _CHECKED_BY[done]}
    return same and (calculation.value or "").lstrip("-") in left and bool(undoing & {*operations(equation.expression)})


def _read_bound(line: str) -> tuple[str | None, str | None, bool] | None:
    """(left, right, is true) of a line such as "50 < 52", with None for a computed side; None if it is no bound."""
    sign = "<" if "<" in line else ">"
    left, found, right = line.strip().rstrip(".").partition(sign)
    if not found:
        return None
    try:
        low, high = evaluate(left.strip()), evaluate(right.strip())
    except BadExpression:
        return None
    return canonical_number(left), canonical_number(right), low < high if sign == "<" else low > high


def _has_unit(text: str, conclusion: str | None, question: str) -> bool:
    """Whether the conclusion is followed by a word of the question: "52 muffins"."""
    asked = {match["word"].lower() for match in _TOKEN.finditer(question) if match["word"]}
    before = None
    for match in _TOKEN.finditer(text):
        word = (match["word"] or "").lower()
        if len(word) >= SHORTEST_UNIT and word in asked and before == conclusion:
            return True
        before = canonical_number(match["number"]) if match["number"] else None
    return False
