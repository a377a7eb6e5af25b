"""Difficulty levels of generated problems: how many steps, and how large the numbers."""

from dataclasses import dataclass, replace
from typing import Literal

Difficulty = Literal["easy", "medium", "hard"]


@dataclass(frozen=True)
class Level:
    """The settings of a difficulty.

    steps: weights of 1 to 4 steps. spare, large: shares of rows with a spare fact, and with round thousands.
    scales: factors for the quantities of a large row. top: greatest value, before scaling.
    ranges: slot kind -> lowest and highest number.
    """

    steps: tuple[int, int, int, int]
    spare: float
    large: float
    scales: tuple[int, ...]
    top: int
    ranges: dict[str, tuple[int, int]]


LEVELS: dict[Difficulty, Level] = {
    "easy": Level(
        steps=(38, 48, 11, 3),
        spare=0.16,
        large=0.08,
        scales=(100,),
        top=30,
        ranges={
            "count": (2, 5),
            "each": (2, 5),
            "price": (2, 5),
            "few": (2, 6),
            "amount": (2, 12),
            "hours": (2, 5),
            "days": (2, 5),
            "factor": (2, 4),
            "divisor": (2, 5),
        },
    ),
    "medium": Level(
        steps=(15, 40, 32, 13),
        spare=0.2,
        large=0.12,
        scales=(10, 100),
        top=400,
        ranges={
            "count": (3, 16),
            "each": (5, 30),
            "price": (4, 25),
            "few": (8, 40),
            "amount": (12, 150),
            "hours": (2, 10),
            "days": (3, 14),
            "factor": (2, 8),
            "divisor": (2, 12),
        },
    ),
    "hard": Level(
        steps=(8, 30, 34, 28),
        spare=0.35,
        large=0.15,
        scales=(10,),
        top=9_999,
        ranges={
            "count": (4, 40),
            "each": (12, 140),
            "price": (6, 90),
            "few": (20, 120),
            "amount": (100, 900),
            "hours": (3, 12),
            "days": (4, 30),
            "factor": (3, 9),
            "divisor": (2, 25),
        },
    ),
}


def beyond(level: Level) -> Level:
    """The level with every range of numbers moved above its old end."""
    ranges = {kind: (high + 1, 2 * high) for kind, (_, high) in level.ranges.items()}
    return replace(level, ranges=ranges, top=4 * level.top)
