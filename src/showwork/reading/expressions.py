"""A bounded, exact evaluator of arithmetic expressions.

The input is untrusted text from a model, so neither `eval` nor a symbolic package is used: a small
operator-precedence parser works on exact fractions, within limits on length, depth, digits and magnitude,
in time linear in the text.
"""

import re
from fractions import Fraction
from math import floor

MAX_LENGTH = 200  # characters of an expression
MAX_DEPTH = 20
# Operators as spoken words.
SPOKEN = {"+": " plus ", "-": " minus ", "*": " times ", "/": " divided by "}
MAX_DIGITS = 30
MAX_MAGNITUDE = 10**30

CURRENCIES = "$€£¢¥₹"
VULGAR_FRACTIONS = {
    **{"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5)},
    **{"⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8)},
}
OPERATORS = {
    **dict.fromkeys("+", "+"),
    **dict.fromkeys("-−–—‒", "-"),
    **dict.fromkeys("*×✕·∙⋅•∗", "*"),
    **dict.fromkeys("/÷∕⁄", "/"),
}

_ASCII = str.maketrans({**OPERATORS, "x": "*", "X": "*", "[": "(", "]": ")", **dict.fromkeys(CURRENCIES, " ")})
_VULGAR = f"[{''.join(VULGAR_FRACTIONS)}]"
_MIXED = rf"[0-9]{{1,9}}(?: [1-9][0-9]{{0,2}}/[0-9]{{1,3}}(?![0-9.,/])| ?{_VULGAR})"
NUMBER = rf"{_MIXED}|{_VULGAR}|[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+"
_EXPRESSION_TOKEN = re.compile(rf"(?:{NUMBER})\.?|\S")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_PRECEDENCE = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2, "negate": 3}


class BadExpression(ValueError):
    """The expression can't be evaluated within the limits; the message says why."""


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression such as "2 × ($1,080 − 5%)" or "1 1/2*4".

    A percent sign divides by 100; "5(4)" multiplies. Raises BadExpression.
    """
    if len(expression) > MAX_LENGTH:
        raise BadExpression(f"longer than {MAX_LENGTH} characters")
    return _calculate(_EXPRESSION_TOKEN.findall(expression.translate(_ASCII)))


def _calculate(tokens: list[str]) -> Fraction:
    """The shunting-yard algorithm; values are (numerator, denominator), since Fraction reduces at every step."""
    values: list[tuple[int, int]] = []
    waiting: list[str] = []
    depth = 0
    wants_operand = True
    for token in tokens:
        if wants_operand:
            if token == "(":
                depth += 1
                if depth > MAX_DEPTH:
                    raise BadExpression(f"nested deeper than {MAX_DEPTH}")
                waiting.append("(")
            elif token == "-":
                waiting.append("negate")
            elif token != "+":
                values.append(_number(token))
                wants_operand = False
        elif token in "+-*/(":
            operator = "*" if token == "(" else token
            while waiting and _PRECEDENCE[waiting[-1]] >= _PRECEDENCE[operator]:
                _apply(waiting.pop(), values)
            waiting.append(operator)
            wants_operand = True
            if token == "(":
                depth += 1
                if depth > MAX_DEPTH:
                    raise BadExpression(f"nested deeper than {MAX_DEPTH}")
                waiting.append("(")
        elif token == ")":
            while waiting and waiting[-1] != "(":
                _apply(waiting.pop(), values)
            if not waiting:
                raise BadExpression("a ) without its (")
            waiting.pop()
            depth -= 1
        elif token == "%":
            values[-1] = (values[-1][0], values[-1][1] * 100)
        else:
            raise BadExpression(f"no operator before {token[:MAX_DIGITS]!r}")
    if wants_operand:
        raise BadExpression("ends without a number" if tokens else "empty")
    while waiting:
        if waiting[-1] == "(":
            raise BadExpression("a ( without its )")
        _apply(waiting.pop(), values)
    return Fraction(*values[0])


def _number(token: str) -> tuple[int, int]:
    token = token.removesuffix(".") or token  # the full stop of a sentence: "6.5."
    if not (token[0] in "0123456789." or token in VULGAR_FRACTIONS):
        raise BadExpression(f"a number is missing before {token!r}")
    if len(token) > MAX_DIGITS + MAX_DIGITS // 3:
        raise BadExpression(f"a number of more than {MAX_DIGITS} digits")
    if token[-1] in VULGAR_FRACTIONS:
        numerator, denominator = VULGAR_FRACTIONS[token[-1]]
        return int(token[:-1] or 0) * denominator + numerator, denominator
    if "/" in token:
        whole, numerator, denominator = map(int, re.findall("[0-9]+", token))
        if not numerator < denominator:
            raise BadExpression(f"{token!r} is no mixed number")
        return whole * denominator + numerator, denominator
    if not has_good_commas(token):
        raise BadExpression(f"{token!r} has its commas in the wrong places")
    whole, _, decimals = token.replace(",", "").partition(".")
    if len(whole) + len(decimals) > MAX_DIGITS:
        raise BadExpression(f"a number of more than {MAX_DIGITS} digits")
    if not whole and not decimals:
        raise BadExpression("a point without digits")
    return int(whole + decimals), 10 ** len(decimals)


def has_good_commas(number: str) -> bool:
    """Whether the commas of an unsigned number, if any, separate thousands: "1,080" but not "1,08"."""
    return "," not in number or _THOUSANDS.fullmatch(number) is not None


def _apply(operator: str, values: list[tuple[int, int]]) -> None:
    numerator, denominator = values.pop()
    if operator == "negate":
        values.append((-numerator, denominator))
        return
    left, left_denominator = values.pop()
    if operator == "*":
        numerator, denominator = left * numerator, left_denominator * denominator
    elif operator == "/":
        if not numerator:
            raise BadExpression("division by zero")
        numerator, denominator = left * denominator, left_denominator * numerator
        if denominator < 0:
            numerator, denominator = -numerator, -denominator
    else:
        addend = left * denominator
        numerator *= left_denominator
        numerator = addend + numerator if operator == "+" else addend - numerator
        denominator *= left_denominator
    if abs(numerator) > MAX_MAGNITUDE * denominator:
        raise BadExpression("a result above 1e30")
    values.append((numerator, denominator))


def is_rounding(exact: Fraction, value: Fraction, decimals: int) -> bool:
    """Whether value, written with that many decimals, is exact rounded half up or half to even."""
    scaled = exact * 10**decimals
    half_up = floor(abs(scaled) + Fraction(1, 2)) * (1 if scaled >= 0 else -1)
    return value * 10**decimals in (round(scaled), half_up)


def decimals_of(number: str) -> int:
    """Digits written after the decimal point: 2 for "1,080.50"."""
    return sum(c.isdigit() for c in number.partition(".")[2])
