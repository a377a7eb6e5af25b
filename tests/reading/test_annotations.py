"""Annotations: read, checked, and written in the three styles."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.reading.annotations import parse_solution, render
from showwork.reading.answers import Reason, RowError
from showwork.reading.arithmetic import find_equations
from showwork.records import Equation

GSM8K = Path(__file__).parents[2] / ".." / "shared" / "gsm8k"


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        # the expression is before the annotation
        ("48/2 = <<48/2=24>>24 clips", "48/2 = 24 clips"),
        ("so 12*2 = $<<12*2=24>>24", "so 12*2 = $24"),
        ("12 x 2 = $<<12*2=24>>24", "12 x 2 = $24"),
        ("12 × 2 = <<12*2=24>>24", "12 × 2 = 24"),
        ("24 ÷ 2 = <<24/2=12>>12", "24 ÷ 2 = 12"),
        ("100 – 28 = €<<100-28=72>>72", "100 – 28 = €72"),
        ("100 − 28 = <<100−28=72>>72", "100 − 28 = 72"),
        ("2.50*2 = $<<2.5*2=5.00>>5.00", "2.50*2 = $5.00"),
        ("700*1.5 = <<700*1.5=1050>>1,050", "700*1.5 = 1,050"),
        ("50% of 40 = <<50/100*40=20>>20", "50% of 40 = 20"),
        ("$30 x 20% = $<<30*20*.01=6>>6", "$30 x 20% = $6"),
        ("1/2*40 = <<1/2*40=20>>20", "1/2*40 = 20"),
        ("¼ * 24 = <<1/4*24=6>>6", "¼ * 24 = 6"),
        ("5(4)=<<5*4=20>>20", "5(4)=20"),
        ("20 miles/day * 3 days = <<20*3=60>>60 miles", "20 miles/day * 3 days = 60 miles"),
        ("5 push-ups - 2 push-ups = <<5-2=3>>3", "5 push-ups - 2 push-ups = 3"),
        ("$500 - $ 155= $<<500-155=345>>345.", "$500 - $ 155= $345."),
        ("21 sq. ft + 4 sq. ft. = <<21+4=25>>25 sq. ft.", "21 sq. ft + 4 sq. ft. = 25 sq. ft."),
        # in words, or joined by a word
        ("because 5 times 3 equals <<5*3=15>>15.", "because 5 times 3 equals 15."),
        ("because five times three equals <<5*3=15>>15", "because five times three equals 15"),
        ("4 times 4 equals <<4*4=16>>16", "4 times 4 equals 16"),
        ("Half of 318 is <<318/2=159>>159", "Half of 318 is 159"),
        ("120 credits / 3 credits is <<120/3=40>>40.", "120 credits / 3 credits is 40."),
        ("He had 100+36+4 coins, or <<100+36+4=140>>140 coins", "He had 100+36+4 coins, or 140 coins"),
        # no expression there
        ("She has <<5+3=8>>8 apples", "She has 5+3=8 apples"),
        ("<<5+3=8>>8 apples", "5+3=8 apples"),
        ("Total = <<5+3=8>>8", "Total = 5+3=8"),
        ("won $65, for a total of $<<100+65=165>>165.", "won $65, for a total of 100+65=$165."),
        ("9 km = <<9*1000=9000>>9000 m", "9 km = 9*1000=9000 m"),
        ("2*3=6. Then <<6+1=7>>7 remain", "2*3=6. Then 6+1=7 remain"),
        # a chain, and a repeated annotation
        ("2+3=<<2+3=5>>5 and 5*2=<<5*2=10>>10", "2+3=5 and 5*2=10"),
        ("2+3 = <<2+3=5>>5 + 1 = <<5+1=6>>6", "2+3 = 5 + 1 = 6"),
        ("is 2+3 = <<2+3=5>>5, 2+3 = <<2+3=5>>5", "is 2+3 = 5, 2+3 = 5"),
        # nothing to calculate
        ("Roy is <<36=36>>36 inches tall", "Roy is 36 inches tall"),
        ("H + <<+7=7>>7", "H + 7"),
        ("3N = <<-153=-153>>-153", "3N = -153"),
        # the value is not written again, or in another form
        ("5+3 = <<5+3=8>> apples", "5+3 = 8 apples"),
        ("5+3 = <<5+3=8>> 8 apples", "5+3 = 8 apples"),
        ("5+3 = 8<<5+3=8>> apples", "5+3 = 8 apples"),
        ("5+3 = $<<5+3=8>>8.00 left", "5+3 = $8.00 left"),
        ("10/3 = <<10/3=3.33>>3.33", "10/3 = 3.33"),
        ("10/3 = <<10/3=3.333>>3.3", "10/3 = 3.3"),
        ("5-13 = <<5-13=-8>>-8", "5-13 = -8"),
        ("each is 20*.50 $<<20*.50=10>>10.00", "each is 20*.50 = $10.00"),
        ("no annotation", "no annotation"),
    ],
)
def test_readable(text: str, readable: str) -> None:
    assert render(parse_solution(text), "readable") == readable


def test_the_other_styles() -> None:
    solution = parse_solution("48/2 = <<48/2=24>>24 clips, <<24=24>>24")
    assert render(solution, "parenthesis") == "48/2 = (48/2=24)24 clips, (24=24)24"
    assert render(solution, "drop") == "48/2 = 24 clips, 24"
    with pytest.raises(ValueError, match="readable, parenthesis, drop"):
        render(solution, "pretty")


@pytest.mark.parametrize(
    ("annotation", "equation"),
    [
        ("<<48/2=24>>", Equation("48/2", "24")),
        ("<<20-2=18.00>>", Equation("20-2", "18")),
        ("<<$1,000 × 2=$2,000>>", Equation("1000*2", "2000")),
        ("<<12 x 2 = 24>>", Equation("12*2", "24")),
        ("<<50%*40=20>>", Equation("50%*40", "20")),
        ("<<1/5=20%>>", Equation("1/5", "20")),
        ("<<560//10=56>>", Equation("560/10", "56")),
        ("<<10/3=3.33>>", Equation("10/3", "3.33", rounded=True)),
        ("<<2/3=0.66>>", Equation("2/3", "0.66", rounded=True)),
        ("<<7/2=3>>", Equation("7/2", "3", rounded=True)),
        ("<<7/2=4>>", Equation("7/2", "4", rounded=True)),
        ("<<-3=-3>>", Equation("-3", "-3")),
    ],
)
def test_equations(annotation: str, equation: Equation) -> None:
    assert parse_solution(annotation).equations == (equation,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5+3 = <<5+3=8", Reason.UNBALANCED_ANNOTATION),
        ("5+3 = 5+3=8>>8", Reason.UNBALANCED_ANNOTATION),
        ("<<5+3=<<8>>8>>", Reason.UNBALANCED_ANNOTATION),
        (">>5+3=8<<", Reason.UNBALANCED_ANNOTATION),
        ("<<>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<5+3>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<5+3=>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<=8>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<5+=8>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<x+3=8>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<5/0=8>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<5+3=9>>9", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<10/3=3.5>>3.5", Reason.ANNOTATION_DOES_NOT_COMPUTE),
        ("<<5+3=eight>>8", Reason.ANNOTATION_DOES_NOT_COMPUTE),
    ],
)
def test_parse_refuses(text: str, reason: Reason) -> None:
    with pytest.raises(RowError) as error:
        parse_solution(text)
    assert error.value.reason is reason


@given(st.text(alphabet="ab 1+=.$\n", max_size=30), st.integers(0, 99), st.integers(0, 99))
def test_no_style_leaves_a_marker_or_loses_text(text: str, left: int, right: int) -> None:
    solution = parse_solution(f"{text}<<{left}+{right}={left + right}>>{left + right} {text}")
    for style in ("readable", "parenthesis", "drop"):
        out = render(solution, style)
        assert "<<" not in out
        assert ">>" not in out
        assert out.endswith(f"{left + right} {text}")
        assert out.startswith(text.rstrip(" \n$"))


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not here")
def test_gsm8k_reads_well() -> None:
    rows = [json.loads(line)["answer"] for line in (GSM8K / "train.jsonl").open(encoding="utf-8")]
    solutions = [parse_solution(row) for row in rows]
    assert sum(len(solution.annotations) for solution in solutions) == 23_716
    assert not any(equation.rounded for solution in solutions for equation in solution.equations)
    texts = [render(solution, "readable") for solution in solutions]
    assert not any("<<" in text or ">>" in text for text in texts)
    # No value is doubled and no expression repeated: `24 = 24`, `48/2 = 48/2=24`.
    assert sum(bool(re.search(r"(?<![-+*/] )\b(\d+[-+*/]\d+) ?= ?\1 ?=", text)) for text in texts) == 0
    # A sample: what the reader of free text finds in the teacher's text is true.
    found = [equation for text in texts[::10] for equation in find_equations(text)]
    assert len(found) > 2300
    assert sum(equation.holds for equation in found) / len(found) > 0.99
