"""Solved examples before a question: which, the prompt to the letter, and where a completion ends."""

from dataclasses import replace

import pytest

from showwork.errors import UserError
from showwork.evaluation import few_shot
from showwork.problems.cleaning import gold_rejects
from showwork.reading.answers import matches_format
from showwork.reading.completion import read
from showwork.records import Completion, Equation, Problem

PENS = Problem("train-a", "Ann has 3 packs of 4 pens. How many?", "3*4 = 12 pens.", "12", (Equation("3*4", "12"),))
EGGS = Problem("train-b", "A box has 10 eggs. 4 break.\nHow many are left?", "10-4 = 6 eggs.", "6", ())


def problem(number: int) -> Problem:
    return Problem(f"train-{number}", f"What is {number} and {number}?", f"{number}+{number}", str(2 * number), ())


TRAIN = [problem(number) for number in range(1, 41)]


def chosen(train: list[Problem] = TRAIN, *, count: int = 5, unseen: list[Problem] | None = None, seed: int = 0):
    return few_shot.choose(train, count=count, unseen=unseen or [], seed=seed)


# -------------------------------------------------------------------------------------------------- the examples


def test_the_same_rows_for_the_same_seed_whatever_their_order() -> None:
    assert chosen() == chosen(TRAIN[::-1])
    assert chosen(count=8)[:5] == chosen()  # more examples keep the first ones
    assert chosen() != chosen(seed=1)
    assert len({row.id for row in chosen(count=40)}) == 40


def test_an_added_row_takes_the_place_of_one_other_at_most() -> None:
    assert all(len({*chosen([row, *TRAIN[:20]])} - {*chosen(TRAIN[:20])}) <= 1 for row in TRAIN[20:])


def test_no_example_is_a_test_question_or_twice_the_same() -> None:
    asked = [replace(row, id=f"test-{row.answer}", question=row.question.upper()) for row in TRAIN[:35]]
    assert {row.id for row in chosen(unseen=asked)} == {row.id for row in TRAIN[35:]}
    again = [replace(row, id=f"{row.id}-2") for row in TRAIN[:6]]
    assert len({row.question for row in chosen([*TRAIN[:6], *again], count=6)}) == 6


def test_no_example_is_long_or_has_a_blank_line() -> None:
    long = replace(problem(50), question="x" * (few_shot.MOST_CHARACTERS - 4), reasoning="50+50")  # one too many
    parted = replace(problem(51), reasoning="51+51\n\n= 102")
    fitting = replace(problem(52), question="x" * (few_shot.MOST_CHARACTERS - 5), reasoning="52+52")
    assert chosen([long, parted, fitting], count=1) == [fitting]


@pytest.mark.parametrize("count", [6, 41])
def test_too_few_rows_are_a_mistake(count: int) -> None:
    asked = [replace(row, id=f"test-{row.answer}") for row in TRAIN[:35]]
    message = rf"evaluate\.few_shot takes {count} solved rows of train, and of its 40 only 5 have at most 800 char"
    with pytest.raises(UserError, match=message):
        chosen(count=count, unseen=asked)


# ------------------------------------------------------------------------------------------------------ the prompt


def test_the_prompt_to_the_letter() -> None:
    assert few_shot.prompt("What is 7 times 8?", [PENS, EGGS]) == (
        "Question: Ann has 3 packs of 4 pens. How many?\n"
        "Answer: <reasoning>\n"
        "3*4 = 12 pens.\n"
        "</reasoning>\n"
        "<answer>12</answer>\n"
        "\n"
        "Question: A box has 10 eggs. 4 break.\n"
        "How many are left?\n"
        "Answer: <reasoning>\n"
        "10-4 = 6 eggs.\n"
        "</reasoning>\n"
        "<answer>6</answer>\n"
        "\n"
        "Question: What is 7 times 8?\n"
        "Answer:"
    )
    assert gold_rejects([PENS, EGGS]) == []


# --------------------------------------------------------------------------------------------------------- the cut

SOLVED = "<reasoning>\n7*8 = 56\n</reasoning>\n<answer>56</answer>"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f" {SOLVED}\n\nQuestion: And 3*3?\nAnswer: <reasoning>\n9", SOLVED),  # goes on as the prompt does
        (f" {SOLVED}", SOLVED),
        (f" {SOLVED} 57 58", SOLVED),
        (f" {SOLVED}\n{SOLVED}", SOLVED),
        (" 7*8 = 56. The answer is 56.\n\nQuestion: And 3*3?\nAnswer: 9", "7*8 = 56. The answer is 56."),
        ("56 Question: And 3*3?", "56"),  # the harness stops there, on a line of its own or not
        (" It is\n\n56", "It is\n\n56"),  # a blank line is no end
        ("Question: And 3*3?", ""),
        ("\n", ""),
        ("56</answer> 57", "56</answer>"),
        ("A question: is it 56?", "A question: is it 56?"),
    ],
)
def test_a_completion_ends_with_its_answer_or_before_the_next_question(text: str, kept: str) -> None:
    found = few_shot.cut(Completion(text, 160, True))
    assert found == Completion(kept, 160, truncated=text.strip() == kept and not kept.endswith("</answer>"))
    assert few_shot.cut(found).text == kept


def test_what_is_cut_is_read_by_the_tags_and_by_the_last_number() -> None:
    text = f" {SOLVED}\n\nQuestion: And 3*3?\nAnswer: <reasoning>\n3*3 = 9\n</reasoning>\n<answer>9</answer>"
    assert (read(text).answer, read(text).last_number) == (None, "9")  # uncut: two answers, and the wrong one last
    found = read(few_shot.cut(Completion(text, 99, False)).text)
    assert (found.answer, found.last_number) == ("56", "56")
    assert matches_format(found.text)


# ------------------------------------------------------------------------------------------------ the size of a call


@pytest.mark.parametrize(
    ("rows", "columns", "longer", "fitting"),
    [
        (256, 320, 1760, 32),  # 32 * 1760 <= 256 * 320 = 81,920 < 64 * 1760
        (256, 320, 320, 256),
        (64, 1000, 1500, 32),
        (3, 10, 1000, 1),
        (1, 10, 1000, 1),
    ],
)
def test_longer_prompts_take_fewer_rows_of_the_same_memory(rows: int, columns: int, longer: int, fitting: int) -> None:
    assert few_shot.rows_per_call(rows, columns=columns, longer=longer) == fitting
