"""The basic rewards."""

import pytest

from showwork import rewards
from showwork.records import Completion, Problem
from tests.rewards.made import score

GOOD = "<reasoning>\n5 + 3 = 8\n</reasoning>\n<answer>8</answer>"


@pytest.mark.parametrize(
    ("text", "gold", "value"),
    [
        (GOOD, "8", 1),
        ("<answer>8</answer>", "8", 1),  # the format is another reward's matter
        ("<answer>$8.00</answer>", "8", 1),
        ("<answer>1,080</answer>", "1080", 1),
        ("<answer>8 apples</answer>", "8", 1),
        ("<answer>-8</answer>", "8", 0),
        ("<answer>8.5</answer>", "8", 0),
        ("<answer>7 or 8</answer>", "8", 0),
        ("<answer>8</answer><answer>8</answer>", "8", 0),
        ("<answer>8", "8", 0),
        ("8", "8", 0),
        ("0 1 2 3 4 5 6 7 8 9", "8", 0),
        ("", "8", 0),
    ],
)
def test_answer(text, gold, value):
    assert score("answer", text, gold=gold) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (GOOD, 1),
        (GOOD.replace("8</answer>", "9</answer>"), 1),  # form alone
        (GOOD + "\n", 1),
        (GOOD + " So it is 8.", 0),
        ("Well: " + GOOD, 0),
        (GOOD + GOOD, 0),
        ("<reasoning></reasoning><answer>8</answer>", 0),
        ("<reasoning>5 + 3</reasoning><answer> </answer>", 0),
        ("<answer>8</answer><reasoning>5 + 3</reasoning>", 0),
        ("<answer>8</answer>", 0),
        ("", 0),
    ],
)
def test_format(text, value):
    assert score("format", text) == value


def test_a_truncated_completion_has_no_format_but_may_have_an_answer():
    assert score("format", GOOD, truncated=True) == 0
    assert score("answer", GOOD, truncated=True) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5 + 3 = 8", 1),
        ("5 + 3 = 9", 0),
        ("5 + 3 = 8\n2 * 2 = 5", 1 / 2),
        ("5 + 3 = 8\n2 * 2 = 5\n9 - 1 = 7", 1 / 3),
        ("10 / 4 = 2.5", 1),
        ("8 = 8", 0),  # no operator: no equation
        ("no equation", 0),
        ("", 0),
    ],
)
def test_equations(text, value):
    assert score("equations", text) == pytest.approx(value)


@pytest.mark.parametrize(("truncated", "value"), [(False, 1), (True, 0)])
def test_ended(truncated, value):
    assert score("ended", "any text", truncated=truncated) == value


def test_rewards_are_batched_in_order():
    completions = [Completion(text, 1, False) for text in (GOOD, "", GOOD)]
    problems = [Problem(str(i), "", "", gold, ()) for i, gold in enumerate(("8", "8", "9"))]
    assert rewards.load("answer").function(completions, problems) == [1, 0, 0]
