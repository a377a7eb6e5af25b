"""The trajectory reward, as the notebook has it and corrected; values computed by hand."""

import pytest

from showwork.reading.answers import render_completion
from showwork.records import Equation, Problem
from tests.rewards.made import MUFFINS, WORKED, pay, score

FIFTY = "x" * 50


def inside(reasoning: str) -> str:
    return f"<reasoning>{reasoning}</reasoning>"


@pytest.mark.parametrize(
    ("text", "gold", "q", "a"),
    [
        ("", "8", 0, 0),
        ("5+3 = 8", "8", 0, 0),
        (inside(""), "8", 1, 0),
        (inside("x"), "8", 1, 0),
        (inside(FIFTY), "8", 1, 0),  # not more than 50
        (inside(FIFTY + "x"), "8", 1.5, 0),
        (inside("1."), "8", 1.5, 0),
        (inside("10."), "8", 1, 0),  # no 1 to 9 before the point
        (inside("2.5"), "8", 1.5, 0),
        (inside("-"), "8", 1.5, 0),
        (inside("well-known"), "8", 1.5, 0),
        (inside("1. 5+3"), "8", 2, 0),
        (inside("1. 5+3 " + FIFTY), "8", 2.5, 0),
        ("<reasoning>1. 5+3", "8", 0, 0),
        (FIFTY + "1. 5+3" + inside(""), "8", 1, 0),
        (inside("") + "<answer>8</answer>", "8", 1, 0),  # the format asked for has no answer
        (inside("") + "#### 8", "8", 1, 3),
        (inside("#### 8"), "8", 1, 3),
        ("####8", "8", 0, 3),
        ("#### 1,080", "1080", 0, 3),
        ("#### 8.0", "8", 0, 3),
        ("#### 8 #### 9", "8", 0, 3),
        ("#### 11", "10", 0, 0.5),
        ("#### 9", "10", 0, 0.5),
        ("#### 12", "10", 0, 0.25),
        ("#### 8", "10", 0, 0.25),
        ("#### 7", "10", 0, -1),
        ("#### -8", "8", 0, -1),
        ("#### 1", "0", 0, -1),
        ("#### eight", "8", 0, 0),
        ("### 8", "8", 0, 0),
        (inside("1. 5+3 " + FIFTY) + "#### 8", "8", 2.5, 3),
    ],
)
def test_notebook(text, gold, q, a):
    assert score("trajectory_notebook", text, gold=gold) == pytest.approx(0.6 * (q / 2.5 * 3) + 0.4 * a)


def test_one_line_of_boilerplate_earns_all_of_the_notebooks_process():
    boilerplate = inside("1. I look at the question, think about it step-by-step, and solve it.") + "<answer>0</answer>"
    assert pay("trajectory_notebook", boilerplate) == pytest.approx(0.6 * 3)
    assert pay("trajectory_notebook", boilerplate) == pay("trajectory_notebook", WORKED)  # whose `2.` ends a sentence
    assert pay("trajectory", boilerplate) == 0


# The problem: 7 muffins at $6, a drink for $4, 46 in all; it needs two operations.
@pytest.mark.parametrize(
    ("reasoning", "answer", "process"),
    [
        ("7*6 = 42\n42+4 = 46", "46", 1),
        ("7*6+4 = 46", "46", 1),
        ("7*6+4 = 42+4 = 46", "46", 1),
        ("4+6*7 = 46", "46", 1),
        ("6+6+6+6+6+6+6 = 42\n42+4 = 46", "46", 1),  # more operations than needed: no more
        ("7*6 = 42\n42+4 = 46\n7+6 = 13\n42+4 = 46", "46", 1),  # beside the way: nothing
        ("7*6 = 42\n42+4 = 46\n46*1 = 46", "46", 1),
        ("7*6 = 42\n42+4 = 46\n7+6 = 12\n42+4 = 46", "46", 2 / 3),  # a false one beside the way
        ("7*6 = 41\n41+4 = 45\n42+4 = 46", "46", 1 / 2 * 1 / 2 * 0),  # 42 comes from nowhere
        ("50-4 = 46", "46", 0),  # so does 50
        ("46*1 = 46", "46", 0),
        ("46*1 = 46\n46+0 = 46", "46", 0),
        ("7*6 = 42", "46", 0),  # the last result is another number
        ("7*6 = 42\n42+4 = 46\n46-4 = 42", "46", 0),
        ("1=1 1=1 1=1", "46", 0),
        ("", "46", 0),
    ],
)
def test_process_of_a_right_answer(reasoning, answer, process):
    assert pay("trajectory", render_completion(reasoning, answer)) == pytest.approx(0.6 * process + 0.4)


@pytest.mark.parametrize(
    ("reasoning", "answer", "process"),
    [
        ("7*6 = 42\n42-4 = 38", "38", 1),  # sound work to a wrong answer
        ("7+6 = 13", "13", 1 / 2),  # one operation of two
        ("7+6 = 13\n13+0 = 13", "13", 1 / 2),
        ("7+6 = 13\n13-6 = 7\n7+6 = 13", "13", 1 / 2),  # undone and done again
        ("7*6 = 43\n43+4 = 47", "47", 1 / 2 * 1 / 2),  # one of two is false, one of two is made of known numbers
        ("7*6 = 42\n42+4 = 46", "47", 0),
        ("", "47", 0),
    ],
)
def test_process_of_a_wrong_answer_counts_a_quarter(reasoning, answer, process):
    assert pay("trajectory", render_completion(reasoning, answer)) == pytest.approx(0.6 * process / 4)


@pytest.mark.parametrize(
    "text",
    [
        "7*6 = 42\n42+4 = 46",
        "<reasoning>7*6 = 42\n42+4 = 46</reasoning>46",
        "<reasoning>7*6 = 42\n42+4 = 46<answer>46</answer></reasoning>",
        WORKED * 2,
        WORKED.replace("46</answer>", "46 or 47</answer>"),
        WORKED.replace("<answer>", "<answer><answer>"),
        WORKED.replace("<answer>46</answer>", "#### 46"),
    ],
)
def test_an_answer_out_of_its_place_earns_nothing(text):
    assert pay("trajectory", text) == 0


def test_numbers_in_words_percents_and_what_everyone_knows_are_quantities():
    problem = Problem("0", "A dozen eggs, 20% broken, in three hours: minutes?", "", "2160", (Equation("3*60", "180"),))
    right = render_completion("12*0.2 = 2.4\n3*60 = 180\n180*12 = 2160", "2160")
    assert score("trajectory", right, problem=problem) == 1


def test_a_row_whose_equations_end_elsewhere_needs_all_of_them():
    problem = Problem("0", "7, 6 and 4?", "", "99", (Equation("7*6", "42"), Equation("42+4", "46")))
    assert score("trajectory", render_completion("7*6 = 42", "42"), problem=problem) == pytest.approx(0.15 * 1 / 2)


def test_the_rows_own_work_earns_all():
    assert pay("trajectory", WORKED) == 1
    assert MUFFINS.answer == "46"
