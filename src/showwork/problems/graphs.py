"""The dependency graph of a worked problem's numbers, read from its annotated equations.

An operand is a leaf (a number that the question gives in digits), an earlier result, or a fixed constant.
A problem with an ambiguous number is refused.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from showwork.reading.answers import canonical_number, decimal_string, exact_decimal
from showwork.reading.arithmetic import find_equations
from showwork.reading.expressions import decimals_of
from showwork.reading.quantities import WORDS
from showwork.records import Problem


class Refusal(StrEnum):
    """Reasons why a problem has no variant; a closed list."""

    NO_EQUATION = "no_equation"
    ROUNDED_RESULT = "rounded_result"
    ANSWER_IS_NOT_THE_LAST_RESULT = "answer_is_not_the_last_result"
    UNKNOWN_NUMBER = "unknown_number"  # in the solution, but from neither the question nor an earlier result
    TWO_ROLES = "two_roles"  # a number that could be two different quantities
    UNUSED_RESULT = "unused_result"  # a result that no later equation uses
    NO_LEAF = "no_leaf"  # every number is a constant
    FALSE_EQUATION = "false_equation"  # an equation without annotation is false with the new numbers
    NO_SENSIBLE_NUMBERS = "no_sensible_numbers"  # none found in MAX_DRAWS draws


@dataclass(frozen=True)
class Leaf:
    """A quantity of the question. Its new values go from low to high by step, in units of its last decimal."""

    value: Fraction
    decimals: int
    low: int
    high: int
    step: int


@dataclass(frozen=True)
class Slot:
    """A number in a text that a node of the graph fills. Nodes count the results first, then the leaves."""

    node: int
    decimals: int
    has_commas: bool

    def write(self, value: Fraction) -> str:
        whole, _, decimals = exact_decimal(value).partition(".")
        decimals = decimals.ljust(self.decimals, "0")
        return (f"{int(whole):,}" if self.has_commas else whole) + (f".{decimals}" if decimals else "")


Template = tuple[str | Slot, ...]


def fill(template: Template, values: Sequence[Fraction]) -> str:
    """The template's text with the values of its nodes filled in."""
    return "".join(part if isinstance(part, str) else part.write(values[part.node]) for part in template)


@dataclass(frozen=True)
class Graph:
    """A problem as templates whose numbers can change.

    leaves: in the order in which the equations use them. stated: the question's other quantities, which don't change.
    """

    results: tuple[Fraction, ...]
    leaves: tuple[Leaf, ...]
    expressions: tuple[Template, ...]
    question: Template
    reasoning: Template
    stated: tuple[Fraction, ...]


@functools.lru_cache(maxsize=65536)
def read_graph(problem: Problem) -> Graph | Refusal:
    """The graph of the problem's numbers, or the reason why there is none."""
    if not problem.equations:
        return Refusal.NO_EQUATION
    if any(equation.rounded for equation in problem.equations):
        return Refusal.ROUNDED_RESULT
    if problem.equations[-1].value != problem.answer:
        return Refusal.ANSWER_IS_NOT_THE_LAST_RESULT
    try:
        return _Reader(problem).read()
    except _RefusalError as error:
        return error.refusal


class _RefusalError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


# ------------------------------------------------------------------------------------------------ numbers of a text

_NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_FRACTION = re.compile(r"(?<![0-9.,/])([0-9]{1,3})/([0-9]{1,3})(?![0-9/])")
_YEAR = re.compile(r"(?:1[89]|20)[0-9]{2}")
_JOINED_BEFORE = re.compile(r"[\w.,:/+*=-]$")
_JOINED_AFTER = re.compile(r"[^\W\d_]|[:/]|[-–][0-9]|[.,][0-9]|\s?[+*/=x]\s?[0-9]")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_UNIT = re.compile(r"[\s-]*(%|[a-z]+)")
_WORD = re.compile(r"[a-z]+")
_TWO = {"half", "halve", "halved", "twice", "double", "doubled", "both", "twin"}

_HOURS, _DAYS, _WEEKS, _MONTHS = {"hour", "hourly"}, {"day", "daily"}, {"week", "weekly"}, {"month", "monthly"}
_YEARS, _FEET = {"year", "yearly", "annual", "annually"}, {"foot", "feet", "inch", "inche"}
# Constants that a solution may use without the question giving them -> words, in the singular, that imply them.
_UNIT_WORDS: dict[str, set[str]] = {
    **{"0.25": {"quarter"}, "0.5": {"half"}, "0.75": {"quarter"}, "1.5": {"half"}, "2": {"weekend"}, "3": {"yard"}},
    **{"4": _MONTHS, "5": {"weekday"}, "7": _WEEKS | _DAYS, "12": _YEARS | _MONTHS | _FEET, "16": {"ounce", "pound"}},
    **{"24": _DAYS | _HOURS, "25": {"quarter"}, "28": _MONTHS, "30": _MONTHS, "31": _MONTHS, "36": {"yard"}},
    **{"52": _YEARS | _WEEKS, "60": _HOURS | {"minute", "second"}, "365": _YEARS, "3600": _HOURS},
    "100": {"percent", "percentage", "cent", "meter", "penny", "pennie"},
    "1000": {"kilogram", "kg", "kilometer", "km", "liter", "ml", "gram"},
}
# Unit after a number -> its maximum: a number up to the maximum gets no new value above it.
_MOST = {"%": 100, "percent": 100, "minute": 59, "second": 59, "hour": 24, "day": 7, "month": 12, "week": 52}


@dataclass(frozen=True)
class _Written:
    """A number in a text: canonical, and as written."""

    number: str
    text: str
    start: int
    end: int


def _numbers(text: str) -> list[_Written]:
    return [_Written(canonical_number(m[0]) or m[0], m[0], *m.span()) for m in _NUMBER.finditer(text)]


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in _WORD.findall(text.lower().replace("%", " percent"))}


def _told(text: str) -> set[str]:
    """The numbers that a text writes as words; not "one", which is as often a pronoun."""
    words = _words(text)
    return {str(WORDS[word]) for word in words & (WORDS.keys() - {"one"})} | ({"2"} if words & _TWO else set())


def _is_quantity(text: str, place: _Written) -> bool:
    """Whether a number may vary: not a year, 0 or 1, nor part of "3/4", "5:30", "2-3", "B2" or "3rd"."""
    before, after = text[max(0, place.start - 1) : place.start], text[place.end : place.end + 4]
    is_year = _YEAR.fullmatch(place.text) and before != "$"
    is_joined = _JOINED_BEFORE.search(before) or _JOINED_AFTER.match(after)
    return not is_year and not is_joined and canonical_number(place.text) not in (None, "0", "1")


# ---------------------------------------------------------------------------------------------------- the graph


class _Reader:
    """_free: the question's numbers that may vary. _fixed: the others, and numbers derived from them alone."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        question = problem.question
        written = _numbers(question)
        self._free = [w for w in written if _is_quantity(question, w)]
        self._fixed = {"1"} | _told(question) | {w.number for w in written if w not in self._free}
        self._words = _words(f"{question} {problem.reasoning}")
        operands = {w.number for equation in problem.equations for w in _numbers(equation.expression)}
        for place in [w for w in self._free if question[w.end : w.end + 1] == "%"]:
            share = Fraction(place.number)
            parts = {exact_decimal(x) for x in (share / 100, 1 - share / 100, 1 + share / 100, 100 - share)}
            if parts & operands:  # the solution writes 20% as 0.2, so it can't vary
                self._free.remove(place)
                self._fixed |= parts | {place.number}
        for part, whole in _FRACTION.findall(question):
            if 0 < int(part) < int(whole):
                shares = (Fraction(int(part), int(whole)), 1 - Fraction(int(part), int(whole)))
                self._fixed |= {str(int(whole) - int(part)), *(decimal_string(share) or "" for share in shares)}
        self._leaves: dict[str, tuple[int, _Written]] = {}
        self._results: dict[str, list[int]] = {}

    def read(self) -> Graph:
        problem = self._problem
        nodes = []
        for index, equation in enumerate(problem.equations):
            nodes.append([self._operand(w.number) for w in _numbers(equation.expression)])
            self._results.setdefault(equation.value, []).append(index)
        if not self._leaves:
            raise _RefusalError(Refusal.NO_LEAF)
        if not set(range(len(nodes) - 1)) <= {node for operands in nodes for node in operands}:
            raise _RefusalError(Refusal.UNUSED_RESULT)
        places = [place for _, place in self._leaves.values()]
        return Graph(
            results=tuple(Fraction(equation.value) for equation in problem.equations),
            leaves=tuple(_leaf(problem.question, place) for place in places),
            expressions=tuple(
                _template(equation.expression, zip(_numbers(equation.expression), operands, strict=True), commas=False)
                for equation, operands in zip(problem.equations, nodes, strict=True)
            ),
            question=_template(problem.question, ((w, self._node(w)) for w in self._free)),
            reasoning=_template(problem.reasoning, self._solution(nodes)),
            stated=tuple(Fraction(w.number) for w in self._free if w not in places),
        )

    def _operand(self, number: str) -> int | None:
        """The node of an operand, None for a constant."""
        places = [w for w in self._free if w.number == number]
        results = self._results.get(number, [])
        is_constant = self._is_constant(number)
        if len(places) + len(results) + is_constant > 1:
            raise _RefusalError(Refusal.TWO_ROLES)
        if is_constant:
            return None
        if places:
            node = len(self._problem.equations) + len(self._leaves)
            return self._leaves.setdefault(number, (node, places[0]))[0]
        if not results:
            raise _RefusalError(Refusal.UNKNOWN_NUMBER)
        return results[0]

    def _node(self, place: _Written) -> int | None:
        return self._leaves[place.number][0] if place.number in self._leaves else None

    def _is_constant(self, number: str) -> bool:
        """Whether the number is fixed, or may be the constant of a unit in the text: 7 days a week."""
        return number in self._fixed or not self._words.isdisjoint(_UNIT_WORDS.get(number, ()))

    def _solution(self, nodes: Sequence[Sequence[int | None]]) -> Iterator[tuple[_Written, int | None]]:
        """Every number of the solution with its node: inside an equation by position, elsewhere by value."""
        text = self._problem.reasoning
        if _told(text) & (self._leaves.keys() | self._results.keys()):
            raise _RefusalError(Refusal.TWO_ROLES)  # "the two of them" does not change with the number
        written, placed = _numbers(text), self._in_equations(nodes)
        stated = {w.number for w in self._free} - self._leaves.keys()
        for place in written:
            if place in placed:
                yield place, placed[place]
                continue
            number = place.number
            found = [self._leaves[number][0]] if number in self._leaves else []
            found += self._results.get(number, [])
            is_constant = number in stated or self._is_constant(number)
            if len(found) + is_constant > 1 or (found and _ORDINAL.match(text, place.end)):
                raise _RefusalError(Refusal.TWO_ROLES)
            if not found and not is_constant:
                raise _RefusalError(Refusal.UNKNOWN_NUMBER)
            yield place, found[0] if found else None

    def _in_equations(self, nodes: Sequence[Sequence[int | None]]) -> dict[_Written, int | None]:
        """The text's numbers inside the annotated equations, with their nodes."""
        text = self._problem.reasoning
        spans = [
            (found.start, [w for w in _numbers(text) if found.start <= w.start and w.end <= found.end])
            for found in find_equations(text)
        ]
        placed: dict[_Written, int | None] = {}
        position = 0
        for index, (equation, operands) in enumerate(zip(self._problem.equations, nodes, strict=True)):
            wanted = [*(w.number for w in _numbers(equation.expression)), equation.value]
            for start, inside in spans:
                if start >= position and [w.number for w in inside] == wanted:
                    placed |= zip(inside, [*operands, index], strict=True)
                    position = inside[-1].end
                    break
        return {w: node for w, node in placed.items() if not (node is not None and _ORDINAL.match(text, w.end))}


def _leaf(question: str, place: _Written) -> Leaf:
    """A leaf whose new values are as long and as round as the old one, and from half to twice of it."""
    decimals = decimals_of(place.text)
    units = int(Fraction(place.number) * 10**decimals)
    digits = len(str(units))
    step = 1
    while units % (10 * step) == 0 and 10 * step < units:
        step *= 10
    low, high = (2, 9) if digits == 1 else (max(units // 2, 10 ** (digits - 1)), min(2 * units, 10**digits - 1))
    if match := _UNIT.match(question, place.end):
        most = _MOST.get(match[1].removesuffix("s"), 0) * 10**decimals
        high = min(high, most) if units <= most else high
    return Leaf(Fraction(place.number), decimals, -(-low // step) * step, high, step)


def _template(text: str, places: Iterable[tuple[_Written, int | None]], *, commas: bool = True) -> Template:
    """The text with a slot for each number that has a node; a value above 999 gets a thousands comma."""
    parts: list[str | Slot] = []
    position = 0
    for place, node in places:
        if node is not None:
            has_commas = commas and ("," in place.text or len(place.text.partition(".")[0]) < 4)
            parts += [text[position : place.start], Slot(node, decimals_of(place.text), has_commas)]
            position = place.end
    return (*parts, text[position:])
