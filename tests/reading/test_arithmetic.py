"""The evaluator and the reader of equations; every expected value can be worked out by hand."""

import time
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.reading import arithmetic
from showwork.reading.arithmetic import BadExpression, evaluate, find_equations
from showwork.reading.expressions import is_rounding


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", 24),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10-4-3", 3),
        ("24/4/2", 3),
        ("-3--2", -1),
        ("40*-2", -80),
        ("+5+3", 8),
        ("18/(2/3)", 27),
        ("1,080+20", 1100),
        ("$1,080 − $80", 1000),
        ("12 × 2", 24),
        ("12 x 2", 24),
        ("3·4∙2", 24),
        ("12 ÷ 5", Fraction(12, 5)),
        ("50%*40", 20),
        (".5+3.", Fraction(7, 2)),
        ("½*4", 2),
        ("2½*2", 5),
        ("3*1 1/2", Fraction(9, 2)),
        ("5(4)", 20),
        ("(2)(3)", 6),
        ("0.1+0.2", Fraction(3, 10)),
        ("1/3*3", 1),
    ],
)
def test_evaluate(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "empty"),
        ("1+", "ends without a number"),
        ("(1", "without its )"),
        ("1)", "without its ("),
        ("3 4", "no operator"),
        ("1e5", "no operator"),
        ("2**3", "number is missing"),
        ("abc", "number is missing"),
        ("__import__('os')", "number is missing"),
        ("5/0", "division by zero"),
        ("5/(2-2)", "division by zero"),
        ("1,08+1", "commas"),
        ("9" * 31, "digits"),
        ("0." + "1" * 30, "digits"),
        ("9" * 30 + "*9", "1e30"),
        ("(" * 21 + "1" + ")" * 21, "nested"),
        ("1+" * 100 + "1", "longer than 200"),
        (".", "point without digits"),
    ],
)
def test_evaluate_refuses(expression: str, reason: str) -> None:
    with pytest.raises(BadExpression) as error:
        evaluate(expression)
    assert reason in str(error.value)


def test_limits_are_met_exactly() -> None:
    assert evaluate("(" * 20 + "1" + ")" * 20) == 1
    assert evaluate("9" * 30) == 10**30 - 1
    assert evaluate("1" + "+1" * 99) == 100


@given(st.text(alphabet="0123456789.,+-*/()%x½ $a", max_size=60))
def test_evaluate_gives_a_number_or_refuses(expression: str) -> None:
    with suppress(BadExpression):
        assert isinstance(evaluate(expression), Fraction)


@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda e: st.tuples(e, st.sampled_from("+-*"), e).map("({0[0]}{0[1]}{0[2]})".format),
        max_leaves=8,
    )
)
def test_evaluate_agrees_with_python_on_whole_numbers(expression: str) -> None:
    assert evaluate(expression) == eval(expression)


def test_rounding_half_up_and_half_to_even() -> None:
    assert is_rounding(Fraction(10, 3), Fraction("3.33"), 2)
    assert is_rounding(Fraction(1, 8), Fraction("0.13"), 2)
    assert is_rounding(Fraction(1, 8), Fraction("0.12"), 2)
    assert not is_rounding(Fraction(3, 8), Fraction("0.37"), 2)
    assert is_rounding(Fraction(-1, 8), Fraction("-0.13"), 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She has 5+3=8 apples", [("5+3", "8", True)]),
        ("48/2 = 24 clips", [("48/2", "24", True)]),
        ("48/2 = (48/2=24)24 clips", [("48/2", "24", True)]),
        ("5+3 = 9", [("5+3", "9", False)]),
        ("12 * 2 = $24.00, so", [("12*2", "24.00", True)]),
        ("$600 + $480 = $1,080.", [("600+480", "1,080", True)]),
        ("5 apples + 3 apples = 8 apples.", [("5+3", "8", True)]),
        ("$5/pound * 2 pounds = $10", [("5*2", "10", True)]),
        ("8 sq. ft. * 2 = 16 sq. ft.", [("8*2", "16", True)]),
        ("a 4-hour shift * 3 = 12", [("4*3", "12", True)]),
        ("12 x 2 = 24 and 12×2=25", [("12*2", "24", True), ("12*2", "25", False)]),
        ("5(4) = 20", [("5*(4)", "20", True)]),
        ("50% of 40 = 20", [("50%*40", "20", True)]),
        ("1/2 of 40 + 5 = 25", [("1/2*40+5", "25", True)]),
        ("a total of 5 + 3 = 8", [("5+3", "8", True)]),
        ("19/20 * 100 = 95%", [("19/20*100", "95%", True)]),
        ("1/5 + 0 = 20%", [("1/5+0", "20%", True)]),
        ("9/27 * 100% = 33.33%", [("9/27*100%", "33.33%", True)]),
        ("1 1/2 * 4 = 6", [("1 1/2*4", "6", True)]),
        ("5 - 10 = -$5", [("5-10", "-5", True)]),
        ("-21/3 = -7", [("-21/3", "-7", True)]),
        ("10 + 6 =\n16", [("10+6", "16", True)]),
        ("- 5 + 3 = 8", [("5+3", "8", True)]),
        ("**5 + 3 = 8**", [("5+3", "8", True)]),
        ("1+2 = 3 = 4", [("1+2", "3", True), ("1+2", "4", False)]),
        ("2*3+4 = 6+4 = 10", [("2*3+4", "6+4", True), ("6+4", "10", True)]),
        ("5*3 = 15+2 = 17", [("5*3", "15+2", False), ("15+2", "17", True)]),
        ("10/3 = 3.33", [("10/3", "3.33", True)]),
        ("10/3 = 3.34", [("10/3", "3.34", False)]),
        ("10/3 = 3 and 7/2 = 3", [("10/3", "3", False), ("7/2", "3", False)]),
        ("5/0 = 3", [("5/0", "3", False)]),
        ("x + 5 = 12", []),
        ("2x + 3 = 9", []),
        ("S + 30 + 46 = 76", []),
        ("5 + H = 12", []),
        ("half of 40 + 5 = 25", []),
        ("3 times 5 + 2 = 17", []),
        ("7 = 7", []),
        ("80 000 + 1 = 1", []),
        ("at 7:50 + 30 minutes = 8:20", []),
        ("no sums here", []),
        ("", []),
    ],
)
def test_find_equations(text: str, expected: list[tuple[str, str, bool]]) -> None:
    assert [(e.expression, e.value, e.holds) for e in find_equations(text)] == expected


def test_the_span_is_where_the_equation_stands() -> None:
    text = "He pays $5 + $3 = $8 in all"
    (equation,) = find_equations(text)
    assert text[equation.start : equation.end] == "5 + $3 = $8"


LONG = {
    "digits": "1",
    "equals": "=",
    "open": "(",
    "close": ")",
    "sum": "1+",
    "chain": "1+1=",
    "products": "(1+1)=",
    "signs": "-",
    "words": "a",
    "hyphens": "a-",
    "commas": "1,",
    "points": "1.",
    "mixed": "1 1/",
    "percent": "1% of ",
    "spaces": " 1",
    "deep": "(" * 90 + "1" + ")" * 90 + "=1 ",
    "long sides": "1+" * 99 + "1=1 ",
}


@pytest.mark.parametrize("name", LONG)
def test_linear_on_any_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = []

    def count(expression: str) -> Fraction:
        evaluated.append(len(expression))
        return evaluate(expression)

    monkeypatch.setattr(arithmetic, "evaluate", count)
    text = (LONG[name] * 100_000)[:100_000] + "=1"
    start = time.process_time()
    find_equations(text)
    # The work is counted; the time limit is a generous bound on the rest.
    assert sum(evaluated) <= 2 * len(text)
    assert time.process_time() - start < 3


@given(st.text(alphabet="0123456789.,+-*/()%x½ $a=\n:", max_size=80))
def test_every_equation_found_is_one(text: str) -> None:
    for equation in find_equations(text):
        assert "=" in text[equation.start : equation.end]
        if equation.holds and not any(c in equation.value for c in "%.½"):
            assert evaluate(equation.expression) in (
                evaluate(equation.value),
                evaluate(equation.value) / 100,
            )


@pytest.mark.parametrize(("written", "value"), [("6.5.", "13/2"), ("2½.", "5/2"), ("3*6.5. + 1", "41/2")])
def test_the_point_of_a_sentence_after_a_number(written, value):
    # A model wrote "6.5." in a calculation: int("65.") would have ended the training.
    assert evaluate(written) == Fraction(value)
