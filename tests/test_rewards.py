"""Each reward's values, its declared range, and its time on hostile text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.problems.answers import TAGS
from showwork.records import Completion, Problem
from showwork.rewards import REWARDS


def score(name: str, text: str, *, gold: str = "8", truncated: bool = False) -> float:
    (value,) = REWARDS[name].function([Completion(text, 1, truncated)], [Problem("0", "", "", gold, ())])
    return value


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
    assert REWARDS["answer"].function(completions, problems) == [1, 0, 0]


def test_a_gold_answer_that_is_no_number_is_an_error_and_no_zero():
    with pytest.raises(ValueError, match="is no number"):
        score("answer", GOOD, gold="eight")


# Letters that the rewards look at, beside any text.
hostile = st.one_of(st.text(), st.lists(st.sampled_from([*TAGS, *"0123456789+-*/=()%$,.<> \n", "½", "−"])).map("".join))


@pytest.mark.parametrize("name", REWARDS)
@given(text=hostile, truncated=st.booleans())
def test_the_declared_range_holds(name, text, truncated):
    assert REWARDS[name].low <= score(name, text, truncated=truncated) <= REWARDS[name].high


SIZE = 100_000
HOSTILE = {
    text: (text * SIZE)[:SIZE]
    for text in (
        "<answer>", "</answer>", "<reasoning>", "<", "9", "1,", "1.", "1+", "-", "(", ")", "=", "1=", "1+1=", " ", "\n",
        "1 + 1 = 2 = ", "(1+", "1/", "a-", "a ", "$", "½", "%", "1%", "of ", "1 of ", "x", "1x", "/sq. ft. ", "²",
    )
} | {"in an answer": "<answer>" + "1," * (SIZE // 2) + "</answer>"}  # fmt: skip


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("text", HOSTILE)
def test_a_long_hostile_completion_takes_linear_time(name, text):
    # Some 0.1 s of 100,000 steps; a quadratic rule would take 1e10 and minutes.
    started = time.process_time()
    value = score(name, HOSTILE[text])
    assert REWARDS[name].low <= value <= REWARDS[name].high
    assert time.process_time() - started < 3


def test_only_a_right_answer_is_an_outcome():
    assert [name for name, spec in REWARDS.items() if spec.is_outcome] == ["answer"]
    assert all(spec.low < spec.high for spec in REWARDS.values())
