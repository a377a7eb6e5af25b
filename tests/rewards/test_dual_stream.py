"""The corrected dual-stream reward on one problem, changed one part at a time."""

import pytest

from tests.rewards.made import DUAL, MUFFINS, pay, score


def changed(old: str, new: str) -> str:
    assert DUAL.count(old) == 1
    return DUAL.replace(old, new)


def right(quality: float) -> float:
    return 0.5 + 0.5 * quality


def test_the_monologue_in_question():
    assert DUAL == (
        "<reasoning>\nPlan: multiply, then add\nReasoning: The muffins cost 7*6 = $42.\nWith the drink he pays 42+4 = "
        "$46.\nEvidence:\nCALC: 7*6 = 42\nCALC: 42+4 = 46\nSanity_check: 46-4 = 42\n</reasoning>\n<answer>46</answer>"
    )
    assert pay("dual_stream", DUAL) == 1


@pytest.mark.parametrize(
    ("plan", "share"),
    [
        ("First I multiply the muffins, then I add the drink.", 1),
        ("multiplying and adding", 1),
        ("multiply", 1 / 2),
        ("add, then multiply", 0),
        ("multiply, then add, then subtract, then divide", 2 / 4),
        ("I read the question with care", 0),
    ],
)
def test_the_plan_names_the_operations_in_order(plan, share):
    assert pay("dual_stream", changed("multiply, then add", plan)) == pytest.approx(right(0.5 + 0.25 * share + 0.25))


@pytest.mark.parametrize(
    ("check", "value"),
    [
        ("46-4 = 42", 1),
        ("46 - 4 = 42, as it should be", 1),
        ("46-42 = 4", 1),
        ("$46 - $4 = $42", 1),
        ("46 > 42", 0.5),
        ("42 < 46", 0.5),
        ("46 muffins", 0.5),  # a unit, though the wrong one
        ("46 < 42", 0),
        ("46-4 = 41", 0),
        ("46-4 = 42\n42-7 = 36", 0),
        ("42+4 = 46", 0),  # the same again
        ("4+42 = 46", 0),
        ("46/46 = 1", 0),
        ("46 = 46", 0),
        ("46 > 45", 0),  # 45 is no number of the problem
        ("7 > 6", 0),
        ("46 of them", 0),
        ("It looks right.", 0),
    ],
)
def test_the_check_checks(check, value):
    assert pay("dual_stream", changed("46-4 = 42", check)) == pytest.approx(right(0.5 + 0.25 + 0.25 * value))


@pytest.mark.parametrize(
    ("old", "new", "evidence"),
    [
        ("CALC: 7*6 = 42\n", "", 0),  # 42 comes from nowhere
        ("CALC: 7*6 = 42\n", "CALC: 7*6 = 43\n", 0),
        ("CALC: 7*6 = 42\n", "CALC: 1 = 1\nCALC: 7*6 = 42\n", 2 / 3),  # a line that calculates nothing
        ("CALC: 7*6 = 42\n", "CALC: 7*6 = 42\nCALC: 7-6 = 1\n", 0.75 + 0.25 / 3),  # only the plan misses it
        ("CALC: 42+4 = 46", "CALC: 42+4 = 47", 0),
        ("CALC: 42+4 = 46", "42+4 = 46", 0),
        ("CALC: 7*6 = 42\nCALC: 42+4 = 46", "none", 0),
        ("CALC: 7*6 = 42\nCALC: 42+4 = 46", "CALC: 46 = 46", 0),
        ("cost 7*6 = $42", "cost 7*6 = $43", 1 / 2),  # one of the two equations of the Reasoning
        ("42+4 = $46.", "42+4 = $46. The change is 50-46 = 4.", 2 / 3),
        ("The muffins cost 7*6 = $42.\nWith the drink he pays 42+4 = $46.", "In words.", 1),
    ],
)
def test_the_evidence_covers_the_steps(old, new, evidence):
    assert pay("dual_stream", changed(old, new)) >= 0.5
    assert pay("dual_stream", changed(old, new)) == pytest.approx(right(evidence))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Plan:", "plan:"),
        ("Plan:", "So: Plan:"),
        ("Plan:", "Well.\nPlan:"),
        ("\nEvidence:", ""),
        ("\nEvidence:", "\nPlan:"),
        ("\nEvidence:", "\nEvidence:\nEvidence:"),
        ("\nEvidence:", " Evidence:"),
        ("</reasoning>\n", "</reasoning>\nSo "),
        ("</answer>", "</answer>."),
    ],
)
def test_another_form_earns_the_answer_alone(old, new):
    assert pay("dual_stream", changed(old, new)) == 0.5


def test_a_wrong_answer_earns_at_most_a_quarter():
    wrong = (
        DUAL.replace("42+4", "42-4").replace("46-4", "38+4").replace("46", "38").replace("then add", "then subtract")
    )
    assert pay("dual_stream", wrong) == 0.25
    assert pay("dual_stream", changed("<answer>46", "<answer>47")) == 0  # not the monologue's conclusion
    assert pay("dual_stream", changed("<answer>46", "<answer>46 or 47")) == 0
    assert pay("dual_stream", changed("<answer>46", "<answer>")) == 0


def test_the_answer_counts_where_the_monologue_is_cut_off():
    assert score("dual_stream", "<answer>46</answer>", problem=MUFFINS, truncated=True) == 0.5
