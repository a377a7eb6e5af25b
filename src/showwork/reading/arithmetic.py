"""Finds the equations of free text; re-exports the evaluator.

One pass over the tokens, with each side of an equation bounded in length, so the time is linear on any text.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction

from showwork.reading.expressions import (
    CURRENCIES,
    MAX_LENGTH,
    NUMBER,
    OPERATORS,
    VULGAR_FRACTIONS,
    BadExpression,
    decimals_of,
    evaluate,
    has_good_commas,
    is_rounding,
)

__all__ = ["BadExpression", "FoundEquation", "evaluate", "find_equations"]


@dataclass(frozen=True)
class FoundEquation:
    """`expression = value` in a text, at text[start:end].

    expression is written without units, currency signs and spaces; value is as written, without currency sign and unit,
    and is itself an expression in a chain such as 2*3+4 = 6+4 = 10.
    """

    expression: str
    value: str
    start: int
    end: int
    holds: bool


_TEXT_TOKEN = re.compile(
    rf"(?P<number>{NUMBER})"
    r"|(?P<word>[^\W\d_]+(?:[-'’][^\W\d_]+)*)"
    rf"|(?P<operator>[{re.escape(''.join(OPERATORS))}])"
    rf"|(?P<currency>[{CURRENCIES}])"
    r"|(?P<newline>\n)"
    r"|(?P<other>\S)"
)
# A number after one of these belongs to a calculation in words, which is not parsed; so does one after "of" if a
# number or a share precedes it: "3 of 40", "half of 40", but not "a total of 40".
_IN_WORDS = frozenset(
    ["times", "plus", "minus", "by", "than", "less", "more", "twice", "double", "triple", "half", "over", "x"]
)
_SHARES = frozenset("half third thirds quarter quarters fourth fourths fifth fifths tenth tenths percent".split())  # noqa: SIM905
_BREAKS = frozenset(',;:?!|"“”<>')


def find_equations(text: str) -> list[FoundEquation]:
    """Every `expression = value` of a text, in order, with at least one operator on the left.

    Units may follow the numbers ("5 apples + 3 apples = 8 apples", "$5/pound * 2 pounds = $10"). In a chain
    a + b = c = d the expression is a + b both times. An equation with a variable, or in words, is skipped.
    It holds if both sides are exactly equal, or if the value has decimals and is the exact result rounded to them;
    "20%" on the right may mean 20 or 0.2.
    """
    if "=" not in text:
        return []
    tokens = [(m.lastgroup or "", m[0], m.start(), m.end()) for m in _TEXT_TOKEN.finditer(text)]
    edge = ("newline", "", -1, -1)
    reader = _Reader([])
    for before, token, after in zip([edge, *tokens], [*tokens, edge], [*tokens[1:], edge, edge], strict=True):
        reader.read(before, token, after)
    return reader.found


_Token = tuple[str, str, int, int]  # kind, text, start, end


@dataclass
class _Reader:
    """Parser state: the side of an equation being read, and the last earlier side with an operator (the anchor).

    is_lost: the side can't be a whole expression; tokens are skipped up to the next restart.
    is_in_words: the next number continues a calculation in words.
    """

    found: list[FoundEquation]
    side: list[_Token] = field(default_factory=list)
    anchor: tuple[str, int, Fraction | None] | None = None
    is_lost: bool = False
    is_in_words: bool = False

    def read(self, before: _Token, token: _Token, after: _Token) -> None:
        kind, text, _, _ = token
        if kind == "number":
            self.read_number(before, token)
        elif kind == "word":
            self.read_word(before, token, after)
        elif kind == "operator":
            self.read_operator(before, token, after)
        elif text == "=":
            self.close_side(token)
        elif text == "%":
            if self.ends_in_operand():
                self.push("percent", token)
        elif text in ("(", "["):
            self.read_open(before, token, after)
        elif text in (")", "]"):
            if self.open_parentheses() and self.ends_in_operand():
                self.push("close", token)
            else:
                self.restart()
        elif text == ".":
            is_abbreviation = before[0] == "word" and after[0] == "word" and after[1].islower()  # sq. ft.
            if after[0] != "operator" and after[1] != "=" and not is_abbreviation:
                self.restart()
        elif kind == "newline":
            if before[1] != "=" and after[1] != "=":
                self.restart()
        elif text in _BREAKS:
            self.restart()
        elif kind == "other" and text not in "'’`":
            self.lose()

    def read_number(self, before: _Token, token: _Token) -> None:
        is_name = before[0] == "word" and before[3] == token[2] and before[1] not in ("x", "X")  # B2
        is_split = before[0] == "number" or (before[1] == ":" and before[3] == token[2])  # 80 000, 7:50
        if is_name or is_split or not has_good_commas(token[1]):
            self.lose()
            return
        if self.ends_in_operand():
            self.restart()
        if not self.side and before[0] == "word":
            self.is_lost = self.is_in_words
        self.push("number", token)

    def read_word(self, before: _Token, token: _Token, after: _Token) -> None:
        text = token[1]
        is_after_share = before[0] in ("number", "other") or before[1].lower() in _SHARES
        self.is_in_words = text.lower() in _IN_WORDS or (text == "of" and is_after_share)
        if self.ends_in_operand():
            is_joined = before[3] == self.side[-1][3]
            is_times = text in ("x", "X") and (after[0] in ("number", "currency") or after[1] == "(")
            if is_times or (text == "of" and is_joined and self.is_share()):
                self.push("operator", ("operator", "*", *token[2:]))
            elif is_joined and before[3] == token[2] and len(text) == 1:
                self.lose()  # a variable: 2x
        elif self.side and self.side[-1][0] == "operator":
            is_dash = len(self.side) > 1 and OPERATORS[self.side[-1][1]] == "-" and self.anchor is not None
            self.restart() if is_dash else self.lose()
        elif self.side:
            self.restart() if all(kind == "open" for kind, *_ in self.side) else self.lose()

    def read_operator(self, before: _Token, token: _Token, after: _Token) -> None:
        _, text, start, end = token
        operator = OPERATORS[text]
        is_sign = operator in "+-" and after[0] in ("number", "currency") and after[2] == end
        if self.ends_in_operand():
            is_unit = after[0] == "word" and (operator == "/" or (operator == "-" and after[2] == end))
            if not is_unit:
                self.push("operator", token)
            elif len(after[1]) == 1 and before[0] == "number":
                self.lose()  # 12/x
        elif self.side:
            if is_sign:
                self.push("operator", token)
            elif self.anchor and text == self.side[-1][1] == "*" and after[0] != "number":
                self.restart()  # the end of bold text: **5 + 3 = 8**
            else:
                self.lose()
        elif is_sign and (before[3] < start or before[0] == "newline" or before[1] in ("=", "(")):
            self.push("operator", token)
        elif before[0] == "word" or before[1] in (")", "]"):
            self.lose()

    def read_open(self, before: _Token, token: _Token, after: _Token) -> None:
        if self.ends_in_operand():
            if before[3] == token[2] == self.side[-1][3] and after[0] in ("number", "currency"):
                self.push("operator", ("operator", "*", *token[2:]))
            else:
                self.restart()
        self.push("open", token)

    def push(self, kind: str, token: _Token) -> None:
        if self.is_lost:
            return
        if len(self.side) >= MAX_LENGTH // 2 or token[3] - token[2] > MAX_LENGTH:
            self.lose()
        else:
            self.side.append((kind, *token[1:]))

    def lose(self) -> None:
        self.side, self.anchor, self.is_lost = [], None, True

    def restart(self) -> None:
        self.close_side(None)
        self.side, self.anchor, self.is_lost = [], None, False

    def ends_in_operand(self) -> bool:
        return bool(self.side) and self.side[-1][0] in ("number", "percent", "close")

    def open_parentheses(self) -> int:
        return sum((kind == "open") - (kind == "close") for kind, *_ in self.side)

    def is_share(self) -> bool:
        """Whether the side ends in a percentage or a fraction, after which "of" multiplies."""
        kind, text, *_ = self.side[-1]
        return (
            kind == "percent"
            or "/" in text
            or text in VULGAR_FRACTIONS
            or (len(self.side) > 2 and self.side[-2][1] == "/")
        )

    def close_side(self, equals: _Token | None) -> None:
        """Ends the side at an equals sign or at the end of its chain (None); records the equation that it completes."""
        side, self.side, self.is_lost = self.side, [], False
        if equals is None:
            while side and side[-1][0] in ("operator", "open"):
                side.pop()
        depth = 0
        for index in range(len(side) - 1, -1, -1):
            depth += (side[index][0] == "close") - (side[index][0] == "open")
            if depth < 0:
                side, self.anchor = side[index + 1 :], None
                break
        if not side or side[-1][0] == "operator":
            self.anchor = None
            return
        expression = "".join(OPERATORS.get(text, text) for _, text, *_ in side)
        has_operator = any(kind == "operator" for kind, *_ in side[1:])
        if self.anchor is None and not (has_operator and equals):
            return
        try:
            exact = evaluate(expression)
        except BadExpression:
            exact = None
        if self.anchor is not None:
            left, start, result = self.anchor
            holds = (
                result is not None and exact is not None and _holds(result, exact, expression=left, written=expression)
            )
            self.found.append(FoundEquation(left, expression, start, side[-1][3], holds))
        if has_operator:
            self.anchor = (expression, side[0][2], exact)


def _holds(result: Fraction, value: Fraction, *, expression: str, written: str) -> bool:
    if result == value:
        return True
    if any(operator in written[1:] for operator in "+-*/") and " " not in written:
        return False
    decimals = decimals_of(written)
    results = [result, result * 100] if expression.endswith("*100%") else [result]
    values = [value, value * 100] if written.endswith("%") else [value]
    return any(r == v or (decimals > 0 and is_rounding(r, v, decimals)) for r in results for v in values)
