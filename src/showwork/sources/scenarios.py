"""The scenario table that `generator` draws word problems from, and its parser.

A family is a small state machine over one running quantity. A move without a source opens the problem; every
other move takes the quantity from its source state to its target state. So every walk is a problem, and its last
state decides the question. The table's lines:

    # family (large) | nouns                 large: its quantities may be round thousands
    ? state | question | ...                 the questions of a state; only the first is used after a single move
    ~ low high | fact                        a spare fact with a number {d} that the solution does not use
    source>target slots | fact | ... = formula: solution line = ...

An indented line continues the one above. Bars separate phrasings, one of which is drawn. Slots name the new numbers,
a and b, with their kind (`generator.draw_slot`). A formula combines two of a, b, v (the quantity so far) and w (the
result of the line before in the same move); {eq} or {usd} is the place of the worked equation. N and M are two
names, x is the noun of the problem, and he, him, his are the pronouns of N. Every number is at least 2, so that
nouns are always plural. A move's index in its family is part of a problem's identity: add new moves at the end.
"""

import re
from dataclasses import dataclass
from pathlib import Path

NAMES = {
    "she": ("Mia", "Anna", "Lily", "Emma", "Nora", "Zoe", "Ruth", "Ella", "Sara", "Kate"),
    "he": ("Tom", "Ben", "Leo", "Max", "Sam", "Omar", "Jack", "Noah", "Finn", "Paul"),
}
PRONOUNS = {
    "she": {"he": "she", "He": "She", "him": "her", "his": "her", "His": "Her"},
    "he": {"he": "he", "He": "He", "him": "him", "his": "his", "His": "His"},
}


@dataclass(frozen=True)
class Line:
    """A step of a solution: left and right are slot names, text has {eq} or {usd}."""

    left: str
    op: str
    right: str
    text: str


@dataclass(frozen=True)
class Move:
    """One fact of a problem and the lines that use it. place is its index in the family."""

    place: int
    source: str
    target: str
    slots: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Family:
    """asks: state -> its questions; spare: (lowest number, highest number, fact)."""

    name: str
    is_large: bool
    nouns: tuple[str, ...]
    asks: dict[str, tuple[str, ...]]
    spare: tuple[tuple[int, int, str], ...]
    moves: tuple[Move, ...]


def _parse_move(text: str, place: int) -> Move:
    head, *lines = re.split(r" = ", text)
    path, *facts = head.split(" | ")
    source, target, slots = _groups(r"(\w*)>(\w+) (.+)", path)
    pairs = tuple((name, kind) for name, kind in (slot.split(":") for slot in slots.split()))
    parsed = tuple(Line(*_groups(r"([abvw])([-+*/])([abvw]): (.+)", line)) for line in lines)
    return Move(place, source, target, pairs, tuple(facts), parsed)


def _groups(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a line of the table. Raises ValueError if the pattern does not match."""
    match = re.fullmatch(pattern, text)
    if not match:
        raise ValueError(f"not a line of the table: {text}")
    return match.groups()


def parse_family(text: str) -> Family:
    """Parses one paragraph of the table."""
    title, *rows = re.sub(r"\n +", " ", text).split("\n")
    name, _, nouns = title.removeprefix("# ").partition(" | ")
    asks = dict(row[2:].split(" | ", 1) for row in rows if row[0] == "?")
    spare = [_groups(r"~ (\d+) (\d+) \| (.+)", row) for row in rows if row[0] == "~"]
    moves = [row for row in rows if row[0] not in "?~"]
    return Family(
        name=name.removesuffix(" (large)"),
        is_large=name.endswith(" (large)"),
        nouns=tuple(nouns.split(", ")),
        asks={state: tuple(questions.split(" | ")) for state, questions in asks.items()},
        spare=tuple((int(low), int(high), fact) for low, high, fact in spare + SPARE),
        moves=tuple(_parse_move(row, place) for place, row in enumerate(moves)),
    )


# Spare facts that fit every family.
SPARE = [
    (12, 35, "It is {d} degrees outside."),
    (4, 19, "{His} house has {d} windows."),
    (20, 60, "{He} is {d} years old."),
]

TABLE = Path(__file__).with_name("scenarios.txt").read_text("utf-8")

FAMILIES = {family.name: family for family in map(parse_family, TABLE.strip().split("\n\n"))}
