"""Plain equations without words, for the arithmetic that a model from scratch has never seen."""

import random
from collections.abc import Iterator

from showwork.reading.expressions import SPOKEN

# Ranges of (first, second) operand, with the share of lines that use them: two like numbers, or a large one and
# a small one, as word problems have them. The last kind of a sum is in hundreds.
_SUMS = (((2, 12), (2, 12), 0.5), ((2, 25), (2, 8), 0.4), ((2, 20), (2, 20), 0.1))
_PRODUCTS = (((2, 6), (2, 6), 0.8), ((2, 12), (2, 5), 0.2))
_HUNDREDS = 2
_IN_WORDS = 0.25  # share of the lines
# Sums are as many facts as a model must carry digits for; products are a small table.
_OPERATIONS = {"+": 0.35, "-": 0.35, "*": 0.15, "/": 0.15}


def drills(*, seed: int) -> Iterator[tuple[str, str]]:
    """Lines without end as (question, answer): ("12+30 =", " 42"), with thousands commas, never below zero.

    A difference is drawn as a sum and a quotient as a product, so that both come out whole.
    """
    rng = random.Random(seed)
    while True:
        (operation,) = rng.choices(list(_OPERATIONS), list(_OPERATIONS.values()))
        table = _SUMS if operation in "+-" else _PRODUCTS
        kind = rng.choices(range(len(table)), [share for *_, share in table])[0]
        first, second = (rng.randint(*bounds) for bounds in table[kind][:2])
        if operation in "+-" and kind == _HUNDREDS:
            first, second = 100 * first, 100 * second
        if rng.random() < 0.5:
            first, second = second, first
        match operation:
            case "+":
                result = first + second
            case "-":
                first, result = first + second, first
            case "*":
                result = first * second
            case "/":
                first, result = first * second, first
        if rng.random() < _IN_WORDS:
            yield f"{first}{SPOKEN[operation]}{second} is", f" {result}."
        else:
            yield f"{first:,}{operation}{second:,} =", f" {result:,}"
