"""Answer extraction: canonical numbers, the answer block, the strict format."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.reading.answers import (
    Reason,
    RowError,
    canonical_number,
    decimal_string,
    extract_answer,
    gold_answer,
    is_correct,
    matches_format,
    render_completion,
)
from showwork.reading.completion import read


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("72", "72"),
        ("1,080", "1080"),
        ("$1,080.00", "1080"),
        ("109,200,000", "109200000"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("3.", "3"),
        ("-3", "-3"),
        ("−3", "-3"),
        ("+3", "3"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("8€", "8"),
        ("50%", "50"),
        ("5 %", "5"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("007", "7"),
        (" 42\n", "42"),
        ("½", "0.5"),
        ("1½", "1.5"),
        ("1/2", "0.5"),
        ("1 1/2", "1.5"),
        ("1/3", None),
        ("1/0", None),
        ("1,08", None),
        ("1,0800", None),
        ("0,080", None),
        ("1,080,", None),
        ("12 34", None),
        ("", None),
        (".", None),
        ("-", None),
        ("--5", None),
        ("nan", None),
        ("inf", None),
        ("1e5", None),
        ("５", None),
        ("72 clips", None),
        ("9" * 30, "9" * 30),
        ("9" * 31, None),
        ("1" * 100_000, None),
    ],
)
def test_canonical_number(text: str, canonical: str | None) -> None:
    assert canonical_number(text) == canonical


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
def test_canonical_numbers_are_exact_and_stable(number: object) -> None:
    canonical = canonical_number(f"{number:,}")
    assert canonical is not None
    assert Fraction(canonical) == Fraction(str(number))
    assert canonical_number(canonical) == canonical
    assert decimal_string(Fraction(str(number))) == canonical


def block(inside: str) -> str:
    return f"<reasoning>\n5+3=8\n</reasoning>\n<answer>{inside}</answer>"


@pytest.mark.parametrize(
    ("inside", "answer"),
    [
        ("72", "72"),
        ("72 clips", "72"),
        ("72clips", "72"),
        ("$1,080.", "1080"),
        ("1,080 dollars", "1080"),
        ("about 5", "5"),
        ("x = 5", "5"),
        ("**42**", "42"),
        ("50 percent", "50"),
        ("1/2 cup", "0.5"),
        ("1 1/2 cups", "1.5"),
        ("½ cup", "0.5"),
        ("it is -$5", "-5"),
        ("B-2", "2"),
        ("12 or 13", None),
        ("12-13", None),
        ("5+3=8", None),
        ("10:30", None),
        ("1.2.3", None),
        ("1,08", None),
        ("5²", None),
        ("5^2", None),
        ("５", None),
        ("1e5", None),
        ("none", None),
        ("", None),
        ("8" + " " * 10 + "x" * 300, None),
    ],
)
def test_extract_answer(inside: str, answer: str | None) -> None:
    assert extract_answer(block(inside)) == answer


@pytest.mark.parametrize(
    ("completion", "answer", "is_format"),
    [
        (block("8"), "8", True),
        (block("8") + "\n \n", "8", True),
        (block("eight"), None, True),
        ("<reasoning>a</reasoning><answer>8</answer>", "8", True),
        ("<answer>8</answer>", "8", False),
        (" " + block("8"), "8", False),
        (block("8") + ".", "8", False),
        ("<reasoning>a</reasoning> so <answer>8</answer>", "8", False),
        ("<reasoning> \n</reasoning><answer>8</answer>", "8", False),
        (block(" "), None, False),
        ("<answer>8</answer><reasoning>a</reasoning>", "8", False),
        (block("8") + "<answer>8</answer>", None, False),
        ("<answer>8</answer>" + block("8"), None, False),
        ("<reasoning>a</reasoning><answer><answer>8</answer>", None, False),
        ("<reasoning>a</reasoning><answer>8</answer></answer>", None, False),
        ("<reasoning>a<answer>8</answer></reasoning>", None, False),
        ("<reasoning>a<answer>8</answer>", None, False),
        ("<reasoning>a</reasoning><reasoning>b<answer>8</answer></reasoning>", None, False),
        ("<reasoning>a</reasoning><answer><reasoning>8</reasoning></answer>", None, False),
        ("</answer>8<answer>", None, False),
        ("<answer>8", None, False),
        ("8", None, False),
        ("", None, False),
    ],
)
def test_blocks(completion: str, answer: str | None, is_format: bool) -> None:
    assert extract_answer(completion) == answer
    assert matches_format(completion) is is_format


@pytest.mark.parametrize("gold", ["1080", "1,080", "$1,080.00"])
def test_one_number_in_all_its_forms_is_correct(gold: str) -> None:
    assert all(is_correct(block(form), gold) for form in ("1080", "1,080", "$1,080.00", "1080.0 dollars"))
    assert not is_correct(block("1081"), gold)
    assert not is_correct("1080", gold)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("110", "100", True),
        ("90", "100", True),
        ("110.01", "100", False),
        ("1.1", "1", True),
        ("-110", "-100", True),
        ("-100", "100", False),
        ("0", "0", True),
        ("0.01", "0", False),
        ("none", "100", False),
    ],
)
def test_within_a_tenth(answer: str, gold: str, expected: bool) -> None:
    assert read(block(answer)).is_within(gold, 0.1) is expected


def test_a_gold_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="no number"):
        is_correct(block("8"), "eight")


def test_gold_answer() -> None:
    assert gold_answer("5+3=8\n#### 8") == "8"
    assert gold_answer("a\n#### 109,200,000") == "109200000"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("5+3=8", Reason.NO_FINAL_ANSWER),
        ("a\n#### 8\n#### 9", Reason.SEVERAL_FINAL_ANSWERS),
        ("a\n#### eight", Reason.ANSWER_NOT_A_NUMBER),
        ("a\n####", Reason.ANSWER_NOT_A_NUMBER),
        ("a\n#### 1,08", Reason.ANSWER_NOT_A_NUMBER),
        ("a\n#### 8 apples", Reason.ANSWER_NOT_A_NUMBER),
    ],
)
def test_gold_answer_refuses(answer: str, reason: Reason) -> None:
    with pytest.raises(RowError) as error:
        gold_answer(answer)
    assert error.value.reason is reason


@given(st.text(alphabet="ab+=1\n ", min_size=1).filter(str.strip), st.integers(-(10**9), 10**9))
def test_what_is_rendered_is_accepted(reasoning: str, answer: int) -> None:
    completion = render_completion(reasoning, str(answer))
    assert matches_format(completion)
    assert is_correct(completion, f"{answer:,}")


@pytest.mark.parametrize("piece", ["<answer>", "</answer>", "<reasoning>", "1", "1,", "<", "- "])
def test_long_completions_are_read_at_once(piece: str) -> None:
    text = piece * 100_000
    assert extract_answer(text) is None
    assert not matches_format(text)
    assert extract_answer(block(text)) is None
