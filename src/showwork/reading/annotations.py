"""Reads, checks and renders GSM8K's calculator annotations, `<<expression=value>>`.

`parse_solution` splits a solution into text and annotations; `render` writes it in one of STYLES:

    readable     48/2 = <<48/2=24>>24 clips  ->  48/2 = 24 clips     (the expression is written once, the value once)
    parenthesis  48/2 = <<48/2=24>>24 clips  ->  48/2 = (48/2=24)24 clips
    drop         48/2 = <<48/2=24>>24 clips  ->  48/2 = 24 clips     (the annotation is removed)
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from showwork.reading.answers import Reason, RowError, canonical_number
from showwork.reading.expressions import (
    CURRENCIES,
    NUMBER,
    OPERATORS,
    VULGAR_FRACTIONS,
    BadExpression,
    decimals_of,
    evaluate,
)
from showwork.records import Equation

STYLES = ("readable", "parenthesis", "drop")

_MARKER = re.compile("<<|>>")
_CANONICAL = str.maketrans({**OPERATORS, "x": "*", "X": "*", " ": None, ",": None, **dict.fromkeys(CURRENCIES)})


@dataclass(frozen=True)
class Annotation:
    """One annotation as the author wrote it, and its equation."""

    expression: str
    value: str
    equation: Equation

    @property
    def is_calculation(self) -> bool:
        """Whether it has an operator: `<<12=12>>` and `<<+10=10>>` have none."""
        return any(operator in self.equation.expression[1:] for operator in "+-*/%")


@dataclass(frozen=True)
class Solution:
    """The text and the annotations of a solution, in order: texts[0], annotations[0], texts[1], …, texts[-1]."""

    texts: tuple[str, ...]
    annotations: tuple[Annotation, ...]

    @property
    def equations(self) -> tuple[Equation, ...]:
        return tuple(annotation.equation for annotation in self.annotations)


def parse_solution(text: str) -> Solution:
    """Reads the annotations of a solution and checks each with exact arithmetic.

    A value less than one unit of its last decimal away from the exact result is rounded: 10/3 = 3.33, 7/2 = 3 buses.
    Raises RowError if a marker has no partner, or an annotation can't be evaluated or is false.
    """
    texts, annotations, position = [], [], 0
    start = None
    for marker in _MARKER.finditer(text):
        if (marker[0] == "<<") != (start is None):
            raise RowError(
                Reason.UNBALANCED_ANNOTATION, f"{marker[0]} without its partner: {_excerpt(text, marker.start())}"
            )
        if start is None:
            start = marker.end()
            texts.append(text[position : marker.start()])
        else:
            annotations.append(_read_annotation(text[start : marker.start()]))
            position, start = marker.end(), None
    if start is not None:
        raise RowError(Reason.UNBALANCED_ANNOTATION, f"<< without its partner: {_excerpt(text, start)}")
    return Solution(texts=(*texts, text[position:]), annotations=tuple(annotations))


def _excerpt(text: str, position: int) -> str:
    return repr(text[max(0, position - 30) : position + 30])


def _read_annotation(inside: str) -> Annotation:
    expression, equals, written = (part.strip() for part in inside.rpartition("="))
    value = canonical_number(written)
    if not equals or value is None:
        raise RowError(Reason.ANNOTATION_DOES_NOT_COMPUTE, f"<<{inside[:80]}>> is not expression=number")
    expression = expression.replace("//", "/")  # two rows of GSM8K; a quotient that is not whole counts as rounded
    try:
        exact = evaluate(expression)
    except BadExpression as error:
        raise RowError(Reason.ANNOTATION_DOES_NOT_COMPUTE, f"<<{inside[:80]}>>: {error}") from None
    equation = Equation(_canonical(expression), value)
    # "20%" may mean 20 or 0.2.
    if exact == (Fraction(value) if "." in value else int(value)) or (
        "%" in written and exact * 100 == Fraction(value)
    ):
        return Annotation(expression, written, equation)
    if abs(exact - Fraction(value)) * 10 ** decimals_of(written) >= 1:
        raise RowError(Reason.ANNOTATION_DOES_NOT_COMPUTE, f"<<{inside[:80]}>>: the result is {float(exact):.6g}")
    return Annotation(expression, written, replace(equation, rounded=True))


def _canonical(expression: str) -> str:
    return expression.translate(_CANONICAL)


def render(solution: Solution, style: str) -> str:
    """The solution's text in one of STYLES, without markers."""
    if style == "drop":
        return "".join(solution.texts)
    if style == "parenthesis":
        pairs = zip(solution.texts, solution.annotations, strict=False)
        body = "".join(f"{text}({annotation.expression}={annotation.value})" for text, annotation in pairs)
        return body + solution.texts[-1]
    if style != "readable":
        raise ValueError(f"no annotation style {style!r}; there are {', '.join(STYLES)}")
    output = solution.texts[0]
    for annotation, following in zip(solution.annotations, solution.texts[1:], strict=True):
        output = _join(output, annotation, following)
    return output


_VULGAR = "".join(VULGAR_FRACTIONS)
_SIGN = rf"[{CURRENCIES}%]"
_VALUE = re.compile(rf"\s*[-−]?{_SIGN}?[-−]?(?:{NUMBER})")
_LAST_NUMBER = re.compile(rf"=\s*([-−]?{_SIGN}?(?:{NUMBER}))$")
_EQUALS = re.compile(r"=(?: [A-Za-z' ]{1,40})?$")  # "=", or a few words after it: "4 * 2 = will take"
_CLAUSE_END = re.compile(r"\n|=|[.!?;]\s+(?=[A-Z])")
_SENTENCE_END = re.compile(r"\n|[.!?]\s+(?=[A-Z])")
_NUMBER_WORDS = {
    **{"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8"},
    **{"nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "twenty": "20", "thirty": "30", "hundred": "100"},
    **{"half": "2", "twice": "2", "double": "2", "doubled": "2", "dozen": "12", "triple": "3", "tripled": "3"},
    **{"third": "3", "thirds": "3", "quarter": "4", "quarters": "4", "fourth": "4", "fifth": "5", "tenth": "10"},
}
_OPERAND = re.compile(rf"{NUMBER}|\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)
# A dash or a slash is an operator only before a number: "push-ups" and "miles/hour" have none.
_OPERATOR = re.compile(
    rf"[+*×·÷^√%²³]|(?<![A-Za-z])[xX](?![A-Za-z])|[-−–—/]\s*[{CURRENCIES}]?\s*[0-9.({_VULGAR}]|[0-9)]\("
    r"|\b(?:times|plus|minus|divided|multiplied|of|half|twice|double|doubled|triple|tripled|added|subtracted)\b",
    re.IGNORECASE,
)
_NEAR = 60
_WINDOW = 200  # characters before an annotation that are searched for its expression


def _join(before: str, annotation: Annotation, following: str) -> str:
    """The text before an annotation, its expression unless the text has it, and the value once."""
    shown = _VALUE.match(following)
    if shown and (not shown[0][0].isspace() or canonical_number(shown[0]) == annotation.equation.value):
        following = following.lstrip()
    else:
        last = _LAST_NUMBER.search(before[-_WINDOW:])
        if last and canonical_number(last[1]) == annotation.equation.value:
            return before + following  # 5+3 = 8<<5+3=8>> apples
        following = annotation.value + following
    head = before.rstrip(f" \t%{CURRENCIES}")
    gap = before[len(head) :]
    if _is_written(head, annotation):
        # 20*.50 $<<20*.50=10>>10 has no equals sign
        return f"{head} = {gap.lstrip()}{following}" if head[-1:] in tuple("0123456789)") else before + following
    sign = gap.strip()
    space = " " if head[-1:].isalnum() or gap[:1] == " " else ""
    return f"{head}{space}{annotation.expression}={sign}{following}"


def _is_written(head: str, annotation: Annotation) -> bool:
    """Whether no expression is to be inserted: there is no calculation, or head has it in signs or in words."""
    if not head.strip():
        return not annotation.is_calculation
    if not annotation.is_calculation or head[-1] in OPERATORS:
        return True
    head = head[-_WINDOW:]
    if head[-1] == "=" and head[-_NEAR:-1].translate(_CANONICAL).endswith(annotation.equation.expression):
        return True
    if equals := _EQUALS.search(head):
        clause = _last_part(_CLAUSE_END, head[: equals.start()].rstrip(" \t\n="))
        operands = list(_OPERAND.finditer(clause))
        return len(operands) > 1 and _has_operator(clause, operands[0].start(), operands[-1].end())
    sentence = _last_part(_SENTENCE_END, head)
    places = {_NUMBER_WORDS.get(m[0].lower()) or canonical_number(m[0]): m.span() for m in _OPERAND.finditer(sentence)}
    needed = {canonical_number(number) for number in re.findall(NUMBER, annotation.expression)}
    if not needed <= places.keys():
        return False
    spans = [places[number] for number in needed]
    start, end = min(start for start, _ in spans), max(end for _, end in spans)
    # "4 times 4 equals" uses one number twice
    return _has_operator(sentence, start if len(spans) > 1 else 0, end)


def _last_part(boundary: re.Pattern[str], text: str) -> str:
    start = 0
    for match in boundary.finditer(text):
        start = match.end()
    return text[start:]


def _has_operator(text: str, start: int, end: int) -> bool:
    match = _OPERATOR.search(text, start)
    return match is not None and match.start() < end
