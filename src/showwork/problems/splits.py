"""Keeping train, validation and test apart."""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from showwork.errors import UserError
from showwork.records import Problem

NEAR_WORDS = 8  # words of a gram
NEAR_SHARE = 0.5  # of the test question's grams

_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3})")
_WORD = re.compile(r"[0-9]+(?:\.[0-9]+)?|[^\W\d_]+|\d+")
# Without "one", which is a pronoun as often as a number.
_NUMBER_WORDS = {
    **{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
    **{"ten": "10", "eleven": "11", "twelve": "12", "twenty": "20", "thirty": "30", "fifty": "50", "hundred": "100"},
}


@dataclass(frozen=True)
class Leaks:
    """Ids of train questions that stand in test, each with the id of the test question.

    exact: the same after `normalise`.
    near: at least NEAR_SHARE of the test question's word 8-grams, and the same numbers.
    """

    exact: dict[str, str]
    near: dict[str, str]

    def details(self) -> dict[str, str]:
        """Train id -> what it leaks from, in words."""
        exact = {train: f"the same question as {test}" for train, test in self.exact.items()}
        return exact | {train: f"nearly the same question as {test}" for train, test in self.near.items()}


def normalise(question: str) -> str:
    """The words and numbers alone, in lower case, with single spaces: "He pays $1,080.50!" is "he pays 1080.50"."""
    return " ".join(_words(question))


def _words(question: str) -> list[str]:
    if not question.isascii():
        question = unicodedata.normalize("NFKC", question)
    return _WORD.findall(_COMMA.sub("", question.casefold()))


def find_leaks(train: Sequence[Problem], test: Sequence[Problem]) -> Leaks:
    """Train questions that are test questions, or nearly.

    Numbers are words here, and a near one has the same numbers as the test question (each as often, in any order): with
    other numbers it is another problem, as two rows from one template are. Questions of fewer than 8 words are compared
    as a whole only. Linear in the words of both.
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
    """(train, val): val has that many rows, those whose hash of (seed, id) is least; both keep their order.

    A row's place hangs on its id alone, so a row more or less elsewhere moves at most one other. Raises UserError where
    nothing would be left to train on.
    """
    if not 0 <= rows < len(train):
        raise UserError(
            f"params.yaml: a validation set of {rows} rows from {len(train)} clean train rows; ask for fewer"
        )
    ranked = sorted(train, key=lambda problem: hashlib.sha256(f"{seed}:{problem.id}".encode()).digest())
    chosen = {problem.id for problem in ranked[:rows]}
    return [p for p in train if p.id not in chosen], [p for p in train if p.id in chosen]
