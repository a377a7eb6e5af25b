"""Leaks between train and test, and the validation rows."""

import json
from pathlib import Path

import pytest

from showwork.errors import UserError
from showwork.problems.cleaning import clean_lines
from showwork.problems.splits import find_leaks, normalise, split_validation
from showwork.records import Problem

GSM8K = Path(__file__).parents[2] / ".." / "shared" / "gsm8k"
TEST = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def problems(split: str, *questions: str) -> list[Problem]:
    return [Problem(f"{split}-{i:05d}", question, "r", "1", ()) for i, question in enumerate(questions, start=1)]


@pytest.mark.parametrize(
    ("question", "normal"),
    [
        ("He pays $1,080.50!", "he pays 1080.50"),
        ("  Ann's   «TWO»\ncats—ok? ", "ann s two cats ok"),
        ("Straße ﬁve", "strasse five"),
        ("?!", ""),
    ],
)
def test_normalise(question: str, normal: str) -> None:
    assert normalise(question) == normal


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (TEST, "exact"),
        (TEST.upper().replace(",", " ;") + "!!", "exact"),
        ("Maria" + TEST.removeprefix("Natalia"), "near"),
        (TEST + " How many clips did she sell in all of those months?", "near"),
        # 8-grams are shared, but other numbers make another problem
        (TEST.replace("48", "50"), "neither"),
        (TEST + " She is 12.", "neither"),
        # 9 words in a row are shared: 2 of the test question's 12 grams
        ("Tom has 48 cats of her friends in April, and then she sold", "neither"),
        ("Tom has 48 cats.", "neither"),
    ],
)
def test_find_leaks(question: str, kind: str) -> None:
    train, test = problems("train", "Another one?", question), problems("test", "Something else?", TEST)
    leaks = find_leaks(train, test)
    expected = {"train-00002": "test-00002"}
    assert leaks.exact == (expected if kind == "exact" else {})
    assert leaks.near == (expected if kind == "near" else {})
    assert list(leaks.details()) == ([] if kind == "neither" else ["train-00002"])


def test_number_words_are_numbers() -> None:
    leaks = find_leaks(problems("train", TEST.replace("April", "two weeks")), problems("test", TEST))
    assert not leaks.near
    words = "Each of the seven friends buys a very large and rather costly ticket for the show"
    leaks = find_leaks(problems("train", words.replace("seven", "7")), problems("test", words))
    assert list(leaks.near) == ["train-00001"]


def test_a_short_question_is_compared_as_a_whole() -> None:
    leaks = find_leaks(problems("train", "What is 5+3?", "What is 5+3, Tom?"), problems("test", "what is 5 + 3"))
    assert leaks.exact == {"train-00001": "test-00001"}
    assert not leaks.near


def test_half_of_the_grams_is_enough() -> None:
    test = "a b c d e f g h i j k"  # 4 grams
    assert find_leaks(problems("train", "a b c d e f g h i x y"), problems("test", test)).near  # 2 of 4
    assert not find_leaks(problems("train", "a b c d e f g h x y z"), problems("test", test)).near  # 1 of 4


def test_nothing_leaks_from_nothing() -> None:
    assert not find_leaks([], problems("test", TEST)).details()
    assert not find_leaks(problems("train", TEST), []).details()


def test_validation_rows_are_a_part_of_train() -> None:
    rows = problems("train", *map(str, range(100)))
    train, val = split_validation(rows, rows=10, seed=1)
    assert len(val) == 10
    assert sorted([*train, *val], key=lambda p: p.id) == rows
    assert train == sorted(train, key=lambda p: p.id)
    assert split_validation(rows, rows=10, seed=1) == (train, val)
    assert split_validation(rows, rows=10, seed=2)[1] != val
    assert split_validation(rows, rows=0, seed=1) == (rows, [])


def test_validation_moves_little_when_train_changes() -> None:
    rows = problems("train", *map(str, range(100)))
    before = {p.id for p in split_validation(rows, rows=10, seed=1)[1]}
    after = {p.id for p in split_validation(rows[:50] + rows[51:], rows=10, seed=1)[1]}
    assert len(before & after) >= 9


def test_validation_must_leave_something_to_train_on() -> None:
    with pytest.raises(UserError, match="5 rows from 5"):
        split_validation(problems("train", *"abcde"), rows=5, seed=1)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not here")
def test_gsm8k_does_not_leak() -> None:
    train, test = (
        clean_lines((GSM8K / name).read_bytes().splitlines(), split=name, annotation_style="drop").problems
        for name in ("train.jsonl", "test_first_200.jsonl")
    )
    assert (len(train), len(test)) == (7473, 200)
    assert not find_leaks(train, test).details()
    assert len(find_leaks([*train[:50], *test[:5]], test).exact) == 5


def test_a_corpus_made_from_templates_survives() -> None:
    generator = pytest.importorskip("showwork.sources.generator")
    rows = generator.generate(seed=3, train_rows=2000, test_rows=300, difficulty="easy")
    train, test = (
        clean_lines([json.dumps(row).encode() for row in rows[split]], split=split, annotation_style="drop").problems
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (2000, 300)
    assert len(find_leaks(train, test).details()) <= 0.01 * len(train)
