"""The three rewards of the dual-stream notebook, with its values and its faults.

Where the notebook is ambiguous, a docstring says how it is interpreted. The bounded parser checks the CALC lines; the
notebook evaluated them as code.
"""

import re
from collections.abc import Sequence

from showwork.reading.answers import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    REASONING_CLOSE,
    REASONING_OPEN,
    TAGS,
)
from showwork.reading.dual import HEADINGS, read_calculations
from showwork.records import Completion, Problem
from showwork.rewards import reward
from showwork.rewards.cookbook import nearness, read_float

LONG_ENOUGH = 300  # characters of reasoning for the full score
_FIRST_NUMBER = re.compile(r"[-+]?[0-9][0-9,]*(?:\.[0-9]+)?")


@reward(low=0.0, high=3.0, name="dsa_structure")
def structure(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """3 if the whole text is one reasoning block and one answer block, with only whitespace around them, and the
    reasoning has the four headings in order.

    Interpreted as: each tag once; a heading anywhere in a line, any number of times.
    """
    return [3.0 * _has_exact_structure(completion.text.strip()) for completion in completions]


@reward(low=-6.0, high=6.0, name="dsa_soft_structure")
def soft_structure(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """±1 for each pair of tags, ±0.75 for each of the four headings, ±1 for the headings' order; within ±6.

    Interpreted as: a pair counts if both tags occur, a heading if it occurs anywhere, and the order if the first
    occurrences of all four are in order.
    """
    scores = []
    for completion in completions:
        text = completion.text
        pairs = [REASONING_OPEN in text and REASONING_CLOSE in text, ANSWER_OPEN in text and ANSWER_CLOSE in text]
        score = sum(1.0 if pair else -1.0 for pair in pairs)
        score += sum(0.75 if heading in text else -0.75 for heading in HEADINGS)
        scores.append(score + (1.0 if _in_order(text) else -1.0))
    return scores


@reward(low=0.0, high=7.0, name="dsa_composite")
def composite(completions: Sequence[Completion], problems: Sequence[Problem]) -> list[float]:
    """3·accuracy + 2·completeness + 1·format + 1·calc.

    accuracy: 1 equal, 0.5 within 10%, 0.25 within 20%, else 0, of the first number after the first <answer>, its
    commas dropped. completeness: the mean of the share of headings that occur, their order (1 or 0), and the characters
    between the reasoning tags / 300, at most 1. format: 1 for both pairs of tags and the headings in order, 0.5 for the
    tags alone. calc: the share of CALC lines anywhere that hold, 0 without one.
    """
    return [_composite(c.text, p.answer) for c, p in zip(completions, problems, strict=True)]


def _composite(text: str, gold: str) -> float:
    is_ordered = _in_order(text)
    headings = sum(heading in text for heading in HEADINGS) / len(HEADINGS)
    reasoning = _between(text, REASONING_OPEN, REASONING_CLOSE)
    length = min(1.0, len((reasoning or "").strip()) / LONG_ENOUGH)
    has_tags = reasoning is not None and _between(text, ANSWER_OPEN, ANSWER_CLOSE) is not None
    lines = read_calculations(text)
    return (
        3 * _accuracy(text, gold)
        + 2 * (headings + is_ordered + length) / 3
        + (0.0 if not has_tags else 1.0 if is_ordered else 0.5)
        + (sum(line.holds for line in lines) / len(lines) if lines else 0.0)
    )


def _accuracy(text: str, gold: str) -> float:
    found = _FIRST_NUMBER.search(text.partition(ANSWER_OPEN)[2])
    guess = read_float(found[0].replace(",", "")) if found else None
    if guess is None:
        return 0.0
    if guess == float(gold):
        return 1.0
    return (nearness(guess, float(gold)) or 0.0) if float(gold) else 0.0


def _has_exact_structure(text: str) -> bool:
    if any(text.count(tag) != 1 for tag in TAGS) or not text.startswith(REASONING_OPEN):
        return False
    reasoning, _, rest = text.partition(REASONING_CLOSE)
    rest = rest.strip()
    return _in_order(reasoning) and rest.startswith(ANSWER_OPEN) and rest.endswith(ANSWER_CLOSE)


def _in_order(text: str) -> bool:
    places = [text.find(heading) for heading in HEADINGS]
    return places[0] >= 0 and places == sorted(places)


def _between(text: str, opening: str, closing: str) -> str | None:
    """The text between the first opening tag and the next closing one."""
    _, opened, rest = text.partition(opening)
    inside, closed, _ = rest.partition(closing)
    return inside if opened and closed else None
