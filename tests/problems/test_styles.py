"""Solution styles: each keeps the answer and adds nothing to the row."""

from collections import Counter

import pytest

from showwork.evaluation.scoring import is_faithful, score_arm
from showwork.problems.styles import STYLES, assign, render
from showwork.reading.answers import is_correct, matches_format
from showwork.records import Completion, Equation, Problem

MUFFINS = Problem(
    "train-1",
    "Ben orders 7 muffins at $6 each and a drink for $4. How much does Ben pay in total?",
    "The muffins cost 7*6 = $42.\nWith the drink he pays 42+4 = $46.",
    "46",
    (Equation("7*6", "42"), Equation("42+4", "46")),
)
# The last step uses no other result.
APART = Problem(
    "train-2", "?", "First 2+3 = 5. Then 9-2 = 7.", "7", (Equation("2+3", "5"), Equation("9-2", "7"))
)  # fmt: skip


def test_the_same_solution_in_each_style():
    assert STYLES["equations"](MUFFINS) == MUFFINS.reasoning
    assert STYLES["words"](MUFFINS) == "7 times 6 is 42.\n42 plus 4 is 46."
    assert STYLES["at_once"](MUFFINS) == "(7*6)+4 = 46"


def test_an_earlier_result_is_taken_once_and_whole():
    # 4 is an operand of its own beside the 4 that is a result, and 42 is not 4 and a 2.
    steps = (Equation("2*2", "4"), Equation("42-4", "38"), Equation("38+4", "42"))
    problem = Problem("train-3", "?", "", "42", steps)
    assert STYLES["at_once"](problem) == "(42-(2*2))+4 = 42"


def test_a_step_that_the_last_one_does_not_stand_on_is_left_out():
    assert STYLES["at_once"](APART) == "9-2 = 7"


def test_where_one_equation_would_give_another_result_the_row_stays_as_it_is():
    rounded = Problem("train-4", "?", "10/3 = 3.33, 3.33*3 = 9.99", "9.99", (
        Equation("10/3", "3.33", rounded=True), Equation("3.33*3", "9.99"),
    ))  # fmt: skip
    assert STYLES["at_once"](rounded) == rounded.reasoning


@pytest.mark.parametrize("problem", [MUFFINS, APART], ids=["muffins", "apart"])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_right_and_in_form(style, problem):
    completion = render(problem, style)
    assert matches_format(completion)
    assert is_correct(completion, problem.answer)


def test_words_alone_are_right_but_not_faithful():
    found = {}
    for style in STYLES:
        _, (prediction,) = score_arm([MUFFINS], [Completion(render(MUFFINS, style), 10, False)])
        found[style] = is_faithful(prediction)
    assert found == {"equations": True, "words": False, "at_once": True, "dual": True, "dual_at_once": True}


def test_shares_decide_how_often_and_the_id_which():
    problems = [Problem(f"train-{i}", "?", "1+1 = 2", "2", ()) for i in range(4000)]
    chosen = assign(problems, {"equations": 3, "words": 1}, seed=0)
    assert Counter(chosen)["words"] == pytest.approx(1000, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)
    assert assign(problems[100:200], {"equations": 3, "words": 1}, seed=0) == chosen[100:200]
    assert assign(problems, {"equations": 3, "words": 1}, seed=1) != chosen
