"""The numbers of a question and of an expression, to check where a step's numbers come from.

A question writes numbers in figures and in words ("three-fifths", "a dozen"), and relies on common knowledge such as
the minutes in an hour. A step that uses any other number has made it up.
"""

import re
from fractions import Fraction
from functools import lru_cache

from showwork.reading.answers import canonical_number, decimal_string
from showwork.reading.expressions import NUMBER

WORDS = {
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17},
    **{"eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60},
    **{"seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000, "million": 1_000_000},
    **{"half": 2, "twice": 2, "double": 2, "pair": 2, "couple": 2, "third": 3, "triple": 3, "thrice": 3, "quarter": 4},
    **{"fourth": 4, "quadruple": 4, "fifth": 5, "nickel": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9},
    **{"tenth": 10, "dime": 10, "decade": 10, "dozen": 12, "score": 20, "century": 100},
}
# Common knowledge: halves and wholes, coins and percents, and the units of times and measures. Together with the
# question's own numbers they explain 96% of the steps of GSM8K's solutions.
KNOWN = frozenset("0 0.01 0.05 0.1 0.25 0.5 1 2 3 4 7 10 12 16 24 30 36 52 60 100 365 1000 3600".split())  # noqa: SIM905

_NUMBER = re.compile(NUMBER)
_SPOKEN = re.compile(rf"(?P<number>{NUMBER})(?P<percent>\s?(?:%|percent))?|(?P<word>[^\W\d_]+)", re.IGNORECASE)


def operands(expression: str) -> list[str]:
    """The numbers of an expression in order, as canonical decimals without signs; "1/2" has 1 and 2."""
    return [number for text in _NUMBER.findall(expression) if (number := canonical_number(text)) is not None]


@lru_cache(maxsize=4096)  # a group of completions shares its question
def quantities(question: str) -> frozenset[str]:
    """The question's own numbers, in figures and in words, as canonical decimals.

    20 percent also counts as 0.2, 80, 0.8, 120 and 1.2: the share, the rest, and the increased whole.
    """
    found: set[str] = set()
    for match in _SPOKEN.finditer(question):
        if word := (match["word"] or "").lower():
            value = WORDS.get(word, WORDS.get(word.removesuffix("s")))
            found.update(() if value is None else {str(value)})
        elif (number := canonical_number(match["number"])) is not None:
            found.add(number)
            if match["percent"]:
                share = Fraction(number)
                parts = [part / whole for part in (share, 100 - share, 100 + share) for whole in (1, 100)]
                found.update(text for part in parts if (text := decimal_string(abs(part))) is not None)
    return frozenset(found)
