"""The four rewards of the reference recipe, summed there, with its numbers and its faults.

Strings are compared before numbers, the extractor is this file's own, and a near miss is paid.
"""

import re
from collections.abc import Sequence

from showwork.reading.answers import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    MAX_ANSWER_LENGTH,
    REASONING_CLOSE,
    REASONING_OPEN,
    TAGS,
)
from showwork.records import Completion, Problem

_DIGITS = re.compile(r"[0-9.]+")


def format(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """3 where the whole text, but for whitespace around it, is reasoning tags and then answer tags, something in each.

    Anything may stand between the two, and a tag may stand there twice.
    """
    return [3.0 * (_answer_text(completion.text) is not None) for completion in completions]


def tags(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """For each of the four tags, wherever it stands: +0.5 where it occurs exactly once, else −0.5."""
    return [sum(0.5 if completion.text.count(tag) == 1 else -0.5 for tag in TAGS) for completion in completions]


def answer(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """3 for the gold string, 1.5 for it with whitespace around, 0.5 within 10%, 0.25 within 20%, −1 for another
    number, −0.5 for no number; 0 where the text doesn't match `format`, which the recipe leaves open.

    The string is all that stands between the tags, and a number is what float() reads: "1,080" and "$18" are none, nor
    is anything beside a gold 0, by which the ratio can't be formed.
    """
    return [_compare(_answer_text(c.text), p.answer) for c, p in zip(completions, problems, strict=True)]


def number(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1.5 where the first digits after the first <answer> are the gold number, whatever follows them.

    The digits and points are read without a sign, and up to a comma: "-8" is 8, "1,080" is 1.
    """
    scores = []
    for completion, problem in zip(completions, problems, strict=True):
        _, _, inside = completion.text.partition(ANSWER_OPEN)
        digits = _DIGITS.search(inside)
        guess = read_float(digits[0]) if digits else None
        scores.append(1.5 * (guess is not None and guess == float(problem.answer)))
    return scores


def read_float(text: str) -> float | None:
    """What float() reads, of a text no longer than an answer may be."""
    if len(text) > MAX_ANSWER_LENGTH:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def nearness(guess: float, gold: float) -> float | None:
    """The recipe's pay for a near miss: 0.5 where guess / gold is in 0.9..1.1, 0.25 in 0.8..1.2, else None."""
    ratio = guess / gold
    return 0.5 if 0.9 <= ratio <= 1.1 else 0.25 if 0.8 <= ratio <= 1.2 else None


def _compare(guess: str | None, gold: str) -> float:
    if guess is None:
        return 0.0
    if guess == gold:
        return 3.0
    if guess.strip() == gold:
        return 1.5
    value = read_float(guess)
    if value is None or float(gold) == 0:
        return -0.5
    near = nearness(value, float(gold))
    return -1.0 if near is None else near


def _answer_text(completion: str) -> str | None:
    """What stands between the first <answer> after the first </reasoning> and the last </answer>; None: no match."""
    text = completion.strip()
    if not text.startswith(REASONING_OPEN) or not text.endswith(ANSWER_CLOSE):
        return None
    close = text.find(REASONING_CLOSE, len(REASONING_OPEN) + 1)
    start = text.find(ANSWER_OPEN, close) + len(ANSWER_OPEN) if close >= 0 else -1
    end = len(text) - len(ANSWER_CLOSE)
    return text[start:end] if len(ANSWER_OPEN) <= start < end else None
