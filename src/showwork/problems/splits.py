"""Detects leaks between train and test, and splits off the validation rows."""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from showwork.errors import UserError
from showwork.records import Problem

NEAR_WORDS = 8  # words of an n-gram
NEAR_SHARE = 0.5  # of the test question's n-grams

_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3})")
_WORD = re.compile(r"[0-9]+(?:\.[0-9]+)?|[^\W\d_]+|\d+")
# Without "one", which is a pronoun as often as a number.
_NUMBER_WORDS = {
    **{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
    **{"ten": "10", "eleven": "11", "twelve": "12", "twenty": "20", "thirty": "30", "fifty": "50", "hundred": "100"},
}


@dataclass(frozen=True)
class Leaks:
    """Train questions that are also in test: train id -> test id.

    exact: the same after `normalise`.
    near: at least NEAR_SHARE of the test question's word 8-grams, and the same numbers.
    """

    exact: dict[str, str]
    near: dict[str, str]

    def details(self) -> dict[str, str]:
        """Train id -> description of the leak."""
        exact = {train: f"the same question as {test}" for train, test in self.exact.items()}
        return exact | {train: f"nearly the same question as {test}" for train, test in self.near.items()}


def normalise(question: str) -> str:
    """Only words and numbers, in lower case and single-spaced: "He pays $1,080.50!" becomes "he pays 1080.50"."""
    return " ".join(_words(question))


def _words(question: str) -> list[str]:
    if not question.isascii():
        question = unicodedata.normalize("NFKC", question)
    return _WORD.findall(_COMMA.sub("", question.casefold()))


def find_leaks(train: Sequence[Problem], test: Sequence[Problem]) -> Leaks:
    """Train questions that equal or nearly equal a test question.

    Numbers count as words. A near match has the same numbers as the test question (each as often, in any order): with
    other numbers it is another problem, like two rows from one template. Questions of fewer than 8 words match only
    exactly. Linear in the words of both.
    """
    whole: dict[str, str] = {}
    grams: dict[str, list[int]] = defaultdict(list)
    sizes, numbers = [], []
    for index, problem in enumerate(test):
        words = _words(problem.question)
        whole.setdefault(" ".join(words), problem.id)
        found = _grams(words)
        sizes.append(len(found))
        numbers.append(_numbers(words))
        for gram in found:
            grams[gram].append(index)
    exact, near = {}, {}
    known = grams.keys()
    for problem in train:
        words = _words(problem.question)
        if (source := whole.get(" ".join(words))) is not None:
            exact[problem.id] = source
            continue
        hits = Counter(index for gram in known & _grams(words) for index in grams[gram])
        for index, count in hits.most_common():
            if count < NEAR_SHARE * sizes[index]:
                continue
            if _numbers(words) == numbers[index]:
                near[problem.id] = test[index].id
                break
    return Leaks(exact=exact, near=near)


def _grams(words: list[str]) -> set[str]:
    return {" ".join(words[i : i + NEAR_WORDS]) for i in range(len(words) - NEAR_WORDS + 1)}


def _numbers(words: list[str]) -> Counter[str]:
    return Counter(_NUMBER_WORDS.get(word, word) for word in words if word[0].isdigit() or word in _NUMBER_WORDS)


def split_validation(train: Sequence[Problem], *, rows: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(train, val): val gets the `rows` problems with the smallest hash of (seed, id); both keep their order.

    The hash depends on the id alone, so adding or removing a row moves at most one other. Raises UserError if no
    train row would be left.
    """
    if not 0 <= rows < len(train):
        raise UserError(
            f"params.yaml: clean.validation_rows takes {rows} rows from {len(train)} clean train rows; set it lower"
        )
    ranked = sorted(train, key=lambda problem: hashlib.sha256(f"{seed}:{problem.id}".encode()).digest())
    chosen = {problem.id for problem in ranked[:rows]}
    return [p for p in train if p.id not in chosen], [p for p in train if p.id in chosen]
