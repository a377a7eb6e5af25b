"""The last number of a text, beside lm-evaluation-harness's filter "flexible-extract", and where the two differ."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.reading.answers import last_number, render_completion
from showwork.reading.completion import read


def harness(text: str, gold: str) -> bool:
    """The task gsm8k, version 3: the filter, then exact_match with its regexes_to_ignore, in their order."""
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    last = next(group for group in found[-1] if group).strip() if found else "[invalid]"
    for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
        last, gold = re.sub(ignored, "", last), re.sub(ignored, "", gold)
    return last.lower() == gold.lower()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"),
        ("She has 72 clips.", "72"),
        ("It costs $1,234.50", "1234.5"),
        ("It costs 1,234.50$.", "1234.5"),
        ("1,000,000", "1000000"),
        ("-5", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("3.", "3"),
        ("3,", "3"),
        ("12 apples and 5%", "5"),
        ("3*4 = 12\n#### 12", "12"),
        ("####", None),
        ("####12", "12"),
        ("no number at all", None),
        ("", None),
        ("$", None),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("1/2", "2"),  # a slash ends a number
        ("at 12:30", "30"),
        ("10-5", "-5"),  # a hyphen is a sign
        ("10 - 5", "5"),
        ("1,2", "12"),  # a comma is dropped wherever it is
        ("x2", "2"),
        ("½", None),  # only ASCII digits
        ("７", None),
        ("1.2.3", None),
        ("9" * 31, None),
        (render_completion("3*4 = 12", "12"), "12"),
        (render_completion("3*4 = 12", "12") + "\nQuestion: What is 7 times 8?", "8"),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == read(text).last_number == number
    if number is not None:
        # All but the decimals, which it compares as they are written: its 1234.50 is not 1234.5.
        assert harness(text, f"3*4 = <<3*4=12>>12\n#### {number}") is ("." not in number)
    assert read(text).is_flexibly_correct("12") is (number == "12")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 18.00", "18"),  # the harness compares spellings: 18.00 is not its 18
        ("It is 18...", "18"),  # it drops one dot
        ("It is 18 ...", "18"),  # and takes the dots for the last number
        ("It is 18, .,", "18"),
        ("It is 18 $$", "18"),
        ("It is 018", "18"),
        ("It is -0", "0"),
    ],
)
def test_where_the_harness_counts_a_right_number_as_wrong(text: str, number: str) -> None:
    assert last_number(text) == number
    assert not harness(text, number)


numbers = st.sampled_from(["18", "-5", "1,234", "$18", "18.00", "18.", "...", "$", "1.5", "-", " ", "a", "\n", "#### "])


@given(st.lists(numbers).map("".join), st.integers(-2000, 2000) | st.sampled_from([18, -5, 1234]))
def test_what_is_right_by_the_harness_is_right_here(text: str, gold: int) -> None:
    assert read(text).is_flexibly_correct(str(gold)) or not harness(text, f"So {gold}.\n#### {gold:,}")


@pytest.mark.parametrize("piece", ["1", "1 ", "$", "-", ".", "-1", "$ "])
def test_a_long_text_is_read_at_once(piece: str) -> None:
    last_number(piece * 200_000)
