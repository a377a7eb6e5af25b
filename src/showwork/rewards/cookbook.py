"""The four rewards of the reference recipe, which sums them, with its values and its faults.

Strings are compared before numbers, the extractor is this file's own, and a near miss is rewarded.
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
from showwork.rewards import reward

_DIGITS = re.compile(r"[0-9.]+")


@reward(low=0.0, high=3.0, name="cookbook_format")
def format(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """3 if the stripped text is a reasoning block and then an answer block, neither empty.

    Anything may be between the two, and a tag may occur twice.
    """
    return [3.0 * (_answer_text(completion.text) is not None) for completion in completions]


@reward(low=-2.0, high=2.0, name="cookbook_tags")
def tags(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """For each of the four tags: +0.5 if it occurs exactly once, anywhere, else −0.5."""
    return [sum(0.5 if completion.text.count(tag) == 1 else -0.5 for tag in TAGS) for completion in completions]


@reward(low=-1.0, high=3.0, name="cookbook_answer")
def answer(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """3 for the gold string, 1.5 for it with whitespace around, 0.5 within 10%, 0.25 within 20%, −1 for another
    number, −0.5 for no number; 0 if the text doesn't match `format`, which the recipe leaves open.

    The string is all text between the tags, and a number is what float() accepts: "1,080" and "$18" are not. With a
    gold 0 nothing counts as a number, because the ratio is undefined.
    """
    return [_compare(_answer_text(c.text), p.answer) for c, p in zip(completions, problems, strict=True)]


@reward(low=0.0, high=1.5, name="cookbook_number")
def number(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """1.5 if the first digits after the first <answer> are the gold number, whatever follows them.

    Digits and points are read without a sign, up to a comma: "-8" is 8, "1,080" is 1.
    """
    scores = []
    for completion, problem in zip(completions, problems, strict=True):
        _, _, inside = completion.text.partition(ANSWER_OPEN)
        digits = _DIGITS.search(inside)
        guess = read_float(digits[0]) if digits else None
        scores.append(1.5 * (guess is not None and guess == float(problem.answer)))
    return scores


def read_float(text: str) -> float | None:
    """float(text), None if that fails or the text is longer than an answer may be."""
    if len(text) > MAX_ANSWER_LENGTH:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def nearness(guess: float, gold: float) -> float | None:
    """The recipe's reward for a near miss: 0.5 if guess / gold is in 0.9..1.1, 0.25 in 0.8..1.2, else None."""
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
    """The text from the first <answer> after the first </reasoning> to the last </answer>, None without a match."""
    text = completion.strip()
    if not text.startswith(REASONING_OPEN) or not text.endswith(ANSWER_CLOSE):
        return None
    close = text.find(REASONING_CLOSE, len(REASONING_OPEN) + 1)
    start = text.find(ANSWER_OPEN, close) + len(ANSWER_OPEN) if close >= 0 else -1
    end = len(text) - len(ANSWER_CLOSE)
    return text[start:end] if len(ANSWER_OPEN) <= start < end else None
