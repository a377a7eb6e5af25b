"""The built-in source: grade-school word problems in GSM8K's row form, made by random walks through `scenarios`.

A problem is drawn in two parts: a `Plan` of moves and numbers, then its wording (names, nouns, phrasings, a spare
fact). A stable hash of the plan's equations assigns it to train or test, whatever the seed and the difficulty, so
that no test problem is a train problem under other names.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from showwork.errors import UserError
from showwork.sources import scenarios
from showwork.sources.levels import LEVELS, Difficulty, Level, beyond
from showwork.sources.scenarios import Family, Line, Move

Split = Literal["train", "test"]

FAMILIES = tuple(scenarios.FAMILIES)
# Never in train or test: generalisation to new scenarios is measured on them.
HELD_OUT_FAMILIES = ("garden", "fuel", "animals", "bus")
SEEN_FAMILIES = tuple(name for name in FAMILIES if name not in HELD_OUT_FAMILIES)
TEST_SHARE = 0.2  # of all plans; the number of rows is set for each split
MAX_ATTEMPTS = 4000  # draws for one row before giving up
WORDS = (12, 45)  # fewest and most of a question


_SCALED = {"each", "amount", "part", "more", "dividend"}


@dataclass(frozen=True)
class Plan:
    """A problem before its wording. numbers: each move's new ones; equations: each step's (left, op, right, result)."""

    family: str
    moves: tuple[int, ...]
    numbers: tuple[tuple[int, ...], ...]
    equations: tuple[tuple[int, str, int, int], ...]

    @property
    def signature(self) -> tuple[object, ...]:
        return (self.family, self.moves, self.numbers)

    @property
    def split(self) -> Split:
        """By a hash of the equations; operands of + and * are sorted, so "3 bags of 5" stays with "5 bags of 3"."""
        sides = tuple((min(a, b), op, max(a, b)) if op in "+*" else (a, op, b) for a, op, b, _ in self.equations)
        digest = hashlib.blake2b(repr((self.family, self.moves, sides)).encode(), digest_size=4).digest()
        return "test" if int.from_bytes(digest) < TEST_SHARE * 2**32 else "train"


@dataclass(frozen=True)
class Draft:
    plan: Plan
    question: str
    answer: str


def draw_slot(rng: random.Random, kind: str, base: int, level: Level) -> int | None:
    """A number of the kind, or None if none fits; base is the quantity that the number relates to.

    A kind in `Level.ranges` is drawn from its range; part is less than base, more is greater, cash is a round payment
    above base, divisor divides base, and dividend is the product of an each and a divisor.
    """
    if kind == "part":
        high = min(base - 2, level.ranges["amount"][1])
        return rng.randint(2, high) if high >= 2 else None
    if kind == "more":
        return base + rng.randint(2, max(9, base))
    if kind == "cash":
        notes = [note for note in (10, 20, 50, 100) if note > base + 1] or [base // 100 * 100 + 100]
        return rng.choice(notes[:2])
    if kind == "divisor":
        low, high = level.ranges["divisor"]
        fits = [d for d in range(low, min(high, base // 2) + 1) if base % d == 0]
        return rng.choice(fits) if fits else None
    if kind == "dividend":
        return rng.randint(*level.ranges["each"]) * rng.randint(*level.ranges["divisor"])
    return rng.randint(*level.ranges[kind])


def apply(op: str, left: int, right: int) -> int | None:
    """The result, or None unless it is a whole number of at least 2."""
    if op == "/":
        quotient, rest = divmod(left, right)
        return None if rest or quotient < 2 else quotient
    result = left + right if op == "+" else left - right if op == "-" else left * right
    return result if result >= 2 else None


def draw_walk(rng: random.Random, family: Family, steps: int) -> list[Move] | None:
    """Distinct moves with `steps` solution lines in all, or None if the walk gets stuck."""
    walk: list[Move] = []
    state = ""
    while steps:
        fits = [m for m in family.moves if m.source == state and len(m.lines) <= steps and m not in walk]
        if not fits:
            return None
        walk.append(rng.choice(fits))
        state = walk[-1].target
        steps -= len(walk[-1].lines)
    return walk


def draw_plan(rng: random.Random, families: Sequence[Family], level: Level, steps: int) -> Plan | None:
    """One plan, or None if the numbers drawn do not work out."""
    large = [family for family in families if family.is_large]
    is_large = bool(large) and rng.random() < level.large
    family = rng.choice(large if is_large else families)
    scale = rng.choice(level.scales) if is_large else 1
    walk = draw_walk(rng, family, steps)
    if walk is None:
        return None
    value = peak = 0
    numbers, equations = [], []
    for move in walk:
        names = {"v": value}
        for name, kind in move.slots:
            base = peak if kind == "more" else names["a"] if name == "b" else value
            number = draw_slot(rng, kind, base // scale, level)
            if number is None:
                return None
            names[name] = number * scale if kind in _SCALED else number
        for line in move.lines:
            result = apply(line.op, names[line.left], names[line.right])
            if result is None or result > level.top * scale:
                return None
            equations.append((names[line.left], line.op, names[line.right], result))
            names["w"] = result
            peak = max(peak, names[line.left], names[line.right], result)  # a tank must be larger than all it has held
        value = names["w"]
        numbers.append(tuple(names[name] for name, _ in move.slots))
    if is_large and max(e[3] for e in equations) < 1000:
        return None
    return Plan(family.name, tuple(move.place for move in walk), tuple(numbers), tuple(equations))


def write_line(line: Line, equation: tuple[int, str, int, int], words: dict[str, str]) -> str:
    """A solution line with its calculator annotation directly before the result."""
    left, op, right, result = equation
    shown = f"{left:,}{op}{right:,} = "
    note = f"<<{left}{op}{right}={result}>>{result:,}"
    return line.text.format_map({**words, "eq": shown + note, "usd": f"{shown}${note}"})


def write_draft(rng: random.Random, plan: Plan, has_spare: bool) -> Draft:
    """Puts a plan into words."""
    family = scenarios.FAMILIES[plan.family]
    walk = [family.moves[place] for place in plan.moves]
    gender = rng.choice(("she", "he"))
    name = rng.choice(scenarios.NAMES[gender])
    other = rng.choice(scenarios.NAMES["he" if gender == "she" else "she"])  # so that no pronoun is ambiguous
    words = {**scenarios.PRONOUNS[gender], "N": name, "M": other, "x": rng.choice(family.nouns)}
    sentences = [
        rng.choice(move.facts).format_map(
            {**words, **{slot: f"{n:,}" for (slot, _), n in zip(move.slots, numbers, strict=True)}}
        )
        for move, numbers in zip(walk, plan.numbers, strict=True)
    ]
    if has_spare:
        taken = {n for a, _, b, result in plan.equations for n in (a, b, result)}
        fits = [(text, sorted(set(range(low, high + 1)) - taken)) for low, high, text in family.spare]
        text, unused = rng.choice([fit for fit in fits if fit[1]])
        number = rng.choice(unused)
        sentences.insert(rng.randint(1, len(sentences)), text.format_map({**words, "d": str(number)}))
    asks = family.asks[walk[-1].target]
    sentences.append(rng.choice(asks if len(walk) > 1 else asks[:1]).format_map(words))
    lines = [
        write_line(line, equation, words)
        for line, equation in zip((line for move in walk for line in move.lines), plan.equations, strict=True)
    ]
    answer = "\n".join([*lines, f"#### {plan.equations[-1][3]:,}"])
    return Draft(plan, " ".join(sentences), answer)


def drafts(
    *, seed: int, split: Split, difficulty: Difficulty, families: Sequence[str] | None = None,
    is_beyond: bool = False,
) -> Iterator[Draft]:  # fmt: skip
    """Endless drafts of a split: train never repeats a question, test never repeats a plan.

    is_beyond draws all numbers from above the difficulty's ranges.

    Raises UserError if no new problem is found.
    """
    chosen = select_families(families)
    level = beyond(LEVELS[difficulty]) if is_beyond else LEVELS[difficulty]
    rng = random.Random(f"{seed}:{split}:{difficulty}:{','.join(family.name for family in chosen)}:{is_beyond}")
    seen: set[object] = set()
    rows = 0
    while True:
        steps = rng.choices((1, 2, 3, 4), level.steps)[0]
        has_spare = rng.random() < level.spare
        for _ in range(MAX_ATTEMPTS):
            plan = draw_plan(rng, chosen, level, steps)
            if plan is None or plan.split != split or (split == "test" and plan.signature in seen):
                continue
            draft = write_draft(rng, plan, has_spare)
            key = plan.signature if split == "test" else draft.question
            if key not in seen and WORDS[0] <= len(draft.question.split()) <= WORDS[1]:
                break
        else:
            raise UserError(
                f"data: the generator found no new {split} problem of {steps} steps after {rows} rows"
                f" ({difficulty}, {len(chosen)} of {len(FAMILIES)} families);"
                " ask for fewer rows, more families or a harder difficulty"
            )
        seen.add(key)
        rows += 1
        yield draft


def select_families(names: Sequence[str] | None) -> list[Family]:
    """The named families, or all, in the order of FAMILIES whatever the order of names."""
    unknown = sorted(set(names or ()) - set(FAMILIES))
    if unknown or (names is not None and not names):
        raise UserError(f"data: families {unknown or 'is empty'}; the families are {', '.join(FAMILIES)}")
    return [family for name, family in scenarios.FAMILIES.items() if names is None or name in names]


def generate(
    *, seed: int, train_rows: int, test_rows: int, shifted_rows: int = 0, difficulty: Difficulty
) -> dict[str, list[dict[str, str]]]:
    """{"train", "test", "families", "numbers"}: rows {"question", "answer"} as in GSM8K.

    The last two share shifted_rows and hold what train never has: other scenario families, and numbers beyond the
    difficulty's ranges. Asking for more rows keeps the first ones. Raises UserError for an unknown difficulty, or if
    there are fewer distinct problems than rows.
    """
    if difficulty not in LEVELS:
        raise UserError(f"data: difficulty {difficulty!r} is unknown; it is one of {', '.join(LEVELS)}")
    half = shifted_rows // 2
    wanted: dict[str, tuple[int, Split, tuple[str, ...], bool]] = {
        "train": (train_rows, "train", SEEN_FAMILIES, False),
        "test": (test_rows, "test", SEEN_FAMILIES, False),
        "families": (shifted_rows - half, "test", HELD_OUT_FAMILIES, False),
        "numbers": (half, "test", SEEN_FAMILIES, True),
    }
    made: dict[str, list[dict[str, str]]] = {}
    for name, (rows, split, families, is_beyond) in wanted.items():
        if rows < 0:
            raise UserError(f"data: {name} rows are {rows}; they must be 0 or more")
        stream = drafts(seed=seed, split=split, difficulty=difficulty, families=families, is_beyond=is_beyond)
        try:
            made[name] = [{"question": d.question, "answer": d.answer} for d in itertools.islice(stream, rows)]
        except UserError as error:
            raise UserError(f"{error} (asked: {rows} {name} rows)") from None
    return made
