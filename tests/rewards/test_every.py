"""Properties of every reward: its declared ranges, and work linear in the length of the text."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork import rewards
from showwork.reading.answers import TAGS, is_correct
from showwork.reading.completion import read
from showwork.reading.dual import CALC, HEADINGS
from showwork.rewards import RewardSpec
from tests.rewards.made import ALL, DUAL, MUFFINS, WORKED, pay, score

# Words that the rewards look at, beside any text.
WORDS = [*TAGS, *(f"\n{heading}" for heading in HEADINGS), f"\n{CALC}", "#### ", "7*6 = 42", "42+4 = 46", "46", "add"]
hostile = st.one_of(
    st.text(), st.lists(st.sampled_from([*WORDS, *"0123456789+-*/=()%$,.<> \n", "½", "−"])).map("".join)
)
# Worked completions with something cut out or put in.
mended = st.builds(
    lambda text, start, length, word: text[:start] + word + text[start + length :],
    st.sampled_from([DUAL, WORKED]), st.integers(0, len(DUAL)), st.integers(0, 20), st.sampled_from(["", *WORDS]),
)  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@given(text=hostile | mended, truncated=st.booleans())
def test_the_declared_ranges_hold(name, text, truncated):
    spec = ALL[name]
    value = score(name, text, truncated=truncated, problem=MUFFINS)
    assert spec.low <= value <= spec.high
    if is_correct(text, MUFFINS.answer):
        assert spec.right_low is None or value >= spec.right_low
    else:
        assert spec.wrong_high is None or value <= spec.wrong_high


@pytest.mark.parametrize("name", ALL)
def test_the_ends_of_a_range_are_in_order(name):
    spec = ALL[name]
    assert spec.low < spec.high
    assert all(end is None or spec.low <= end <= spec.high for end in (spec.wrong_high, spec.right_low))


def test_only_a_right_answer_is_an_outcome():
    assert [name for name, spec in rewards.builtin().items() if spec.is_outcome] == [
        "answer",
        "dual_stream",
        "trajectory",
    ]


def test_the_lead_of_a_right_answer():
    split = RewardSpec("split", lambda completions, problems: [], 0.0, 1.0, wrong_high=0.3, right_low=0.4)
    whole = RewardSpec("whole", lambda completions, problems: [], -2.0, 2.0)
    assert split.lead(2.0) == pytest.approx(2 * (0.4 - 0.3))
    assert whole.lead(0.5) == 0.5 * (-2 - 2)  # all of it may be earned with a wrong answer
    assert whole.lead(-0.5) == -0.5 * (2 - -2)
    assert split.lead(-1.0) == -1  # the best right answer against the worst wrong one


@pytest.mark.parametrize("name", ["answer", "trajectory", "dual_stream"])
def test_a_gold_answer_that_is_no_number_is_an_error_and_no_zero(name):
    with pytest.raises(ValueError, match="is no number"):
        score(name, WORKED, gold="eight")


OPENED = DUAL.partition("CALC: 42+4")[0]
HOSTILE = {
    "tags": "<answer>", "closing tags": "</reasoning>", "brackets": "<", "digits": "9", "commas": "1,", "points": "1.",
    "sums": "1+", "parentheses": "(1+", "equations": "1+1=", "chains": "1 + 1 = 2 = ", "of": "1 of ", "spaces": " ",
    "headings": "\nPlan:", "calculations": "\nCALC: 7*6 = 42", "marks": "#", "verbs": "add ", "bounds": "\n46 < 47",
    "way": "\nCALC: 42+4 = 46\nCALC: 46-4 = 42", "undone": "\n46-4 = 42", "units": "46 muffins ",
}  # fmt: skip


def grown(text: str, size: int, place: str) -> str:
    """The text again and again, alone or inside an otherwise good monologue."""
    filler = (text * size)[:size]
    match place:
        case "alone":
            return filler
        case "evidence":
            return DUAL.replace("\nCALC: 42+4", f"{filler}\nCALC: 42+4")
        case "check":
            return DUAL.replace("\n</reasoning>", f"{filler}\n</reasoning>")
        case "answer":
            return f"<reasoning>7*6 = 42</reasoning><answer>{filler}</answer>"


PLACES = ("alone", "evidence", "check", "answer")


def calls(name: str, text: str) -> int:
    """Number of Python and C function calls that a reward makes for a text."""
    count = 0

    def listen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    pay(name, "")  # what is kept of the problem is not counted
    read.cache_clear()  # what another reward read of the text is
    sys.setprofile(listen)
    try:
        pay(name, text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ALL)
def test_twice_the_text_takes_twice_the_calls(name, place):
    for text in HOSTILE.values():
        once, twice = (calls(name, grown(text, size, place)) for size in (1000, 2000))
        assert twice <= 2 * once + 400, text  # a quadratic rule takes 4 times as many


@pytest.mark.parametrize("name", ALL)
def test_a_hundred_thousand_characters_are_judged(name):
    # Calls don't show the work inside a regular expression: a quadratic one would not return in time.
    for text, place in (
        ("9", "check"), ("1,", "evidence"), ("(1+", "alone"), ("1 + 1 = 2 = ", "check"), ("#", "alone"),
        ("<answer>", "alone"), ("\nCALC: 7*6 = 42", "evidence"), (" ", "answer"), ("1.", "answer"),
    ):  # fmt: skip
        assert ALL[name].low <= pay(name, grown(text, 100_000, place)) <= ALL[name].high
