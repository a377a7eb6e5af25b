"""The dual stream: writing a row's monologue, and parsing any text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork import rewards
from showwork.problems.cleaning import clean_lines
from showwork.reading.answers import TAGS, extract_answer, matches_format, render_completion
from showwork.reading.dual import (
    HEADINGS,
    calculations,
    invert,
    operations,
    parse_monologue,
    read_calculations,
    write_monologue,
)
from showwork.records import Completion, Problem
from showwork.sources import generator

STYLE = "readable"


def problem(question: str, worked: str) -> Problem:
    line = json.dumps({"question": question, "answer": worked}).encode()
    result = clean_lines([line], split="train", annotation_style=STYLE)
    assert not result.rejected
    return result.problems[0]


def sections(row: Problem):
    return parse_monologue(render_completion(write_monologue(row), row.answer))


def test_a_monologue():
    row = problem(
        "Ann packs 3 boxes of 12 eggs and eats 2. How many are left?",
        "She packs 3*12 = <<3*12=36>>36 eggs.\nShe has 36-2 = <<36-2=34>>34 left.\n#### 34",
    )
    assert write_monologue(row) == (
        "Plan: multiply, then subtract\n"
        "Reasoning: She packs 3*12 = 36 eggs.\nShe has 36-2 = 34 left.\n"
        "Evidence:\nCALC: 3*12 = 36\nCALC: 36-2 = 34\n"
        "Sanity_check: 34+2 = 36"
    )


@pytest.mark.parametrize(
    ("worked", "lines", "check"),
    [
        # one calculation of several operations
        ("20*3+5*2 = <<20*3+5*2=70>>70\n#### 70", ["20*3+5*2 = 70"], "70-5*2 = 20*3"),
        ("That is <<(60+72+42)/3=58>>58.\n#### 58", ["(60+72+42)/3 = 58"], "58*3 = (60+72+42)"),
        # percent, decimals and fractions
        ("20%*50 = <<20*.01*50=10>>10\n#### 10", ["20*.01*50 = 10"], "10/50/.01 = 20"),
        ("3*1/4 = <<3*1/4=.75>>0.75\n#### 0.75", ["3*1/4 = 0.75"], "0.75*4/1 = 3"),
        # rounded to decimals, and to a whole number, which gets its rounding error as a term
        ("10/3 = <<10/3=3.33>>3.33\n#### 3.33", ["10/3 = 3.33"], "3.33 < 10"),
        ("7/2 = <<7/2=3>>3 buses\n#### 3", ["7/2-0.5 = 3"], "3+0.5 = 7/2"),
        ("7/3 = <<7/3=3>>3 buses\n#### 3", ["7/3+2/3 = 3"], "3-2/3 = 7/3"),
        # where nothing undoes it
        ("5*0 = <<5*0=0>>0\n#### 0", ["5*0 = 0"], "0 < 5"),
        # a step that the author did not annotate, also as the last one
        ("2+3 = 5, 5*4 = <<5*4=20>>20\n#### 20", ["2+3 = 5", "5*4 = 20"], "20/4 = 5"),
        ("2+3 = <<2+3=5>>5, so 5*4 = 20\n#### 20", ["2+3 = 5", "5*4 = 20"], "20/4 = 5"),
        # an unknown, and a share as a percentage
        ("3x+3=96\n3x=93\nx = 31\n#### 31", ["93/3 = 31"], "31*3 = 93"),
        ("12/30 = <<12/30=.4>>.4, which is 40%\n#### 40", ["12/30 = 0.4", "0.4*100 = 40"], "40/100 = 0.4"),
        # the answer is not the last result
        ("5*60 = <<5*60=300>>300, 5*50 = <<5*50=250>>250\n#### 300", ["5*50 = 250", "5*60 = 300"], "300/60 = 5"),
        # an annotation that calculates nothing, and no equation at all
        ("<<12=12>>12 eggs, 12+1 = <<12+1=13>>13\n#### 13", ["12+1 = 13"], "13-1 = 12"),
        ("It is plain to see.\n#### 7", [], "7 < 90"),
    ],
)
def test_every_kind_of_row(worked, lines, check):
    row = problem("Of 90 eggs?", worked)
    assert [f"{line.expression} = {line.value}" for line in calculations(row)] == lines
    monologue = sections(row)
    assert monologue.sanity_check == check
    assert [(c.expression, c.value) for c in monologue.calculations] == [tuple(line.split(" = ")) for line in lines]
    assert all(c.holds for c in monologue.calculations)
    assert monologue.conclusion == (row.answer if lines else None)


@pytest.mark.parametrize(
    ("expression", "value", "undone"),
    [
        ("8*2", "16", "16/2 = 8"),
        ("12+5", "17", "17-5 = 12"),
        ("17-5", "12", "12+5 = 17"),
        ("16/2", "8", "8*2 = 16"),
        ("100-50-30-15", "5", "5+15+30+50 = 100"),
        ("2*3*4", "24", "24/4/3 = 2"),
        ("(2+3)*4", "20", "20/4 = (2+3)"),
        ("(2+3)", "5", "5-3 = 2"),
        ("3-5", "-2", "-2+5 = 3"),
        ("-2*5", "-10", "-10/5 = -2"),
        ("100*20%", "20", "20/20% = 100"),
        ("10/3", "3.33", None),
        ("0*5", "0", "0/5 = 0"),
        ("5*0", "0", None),
        ("5", "5", None),
        ("", "5", None),
    ],
)
def test_invert(expression, value, undone):
    assert invert(expression, value) == undone


def test_operations():
    assert operations("-2*(3 + 4)/5-1") == ["*", "+", "/", "-"]
    assert operations("20%*50") == ["*"]
    assert operations("-2") == operations("12") == operations("") == []


def test_a_row_that_writes_headings_of_its_own_is_read_back():
    row = problem("Of 5?", "Plan: think.\nEvidence: 2+3 = <<2+3=5>>5\nCALC: 9 = 9\n#### 5")
    monologue = sections(row)
    assert monologue.reasoning == "Plan: think.\n Evidence: 2+3 = 5\nCALC: 9 = 9"
    assert [line.expression for line in monologue.calculations] == ["2+3"]


def test_generated_rows_are_read_back_and_earn_all():
    rows = generator.generate(seed=0, train_rows=300, test_rows=0, difficulty="hard")["train"]
    lines = (json.dumps(row).encode() for row in rows)
    problems = clean_lines(lines, split="train", annotation_style=STYLE).problems
    texts = [render_completion(write_monologue(row), row.answer) for row in problems]
    for text, row in zip(texts, problems, strict=True):
        assert matches_format(text)
        assert extract_answer(text) == parse_monologue(text).conclusion == row.answer
    assert rewards.load("dual_stream").function([Completion(t, 1, False) for t in texts], problems) == [1] * 300


GOOD = (
    "<reasoning>\nPlan: a\nReasoning: b\nc\nEvidence:\nCALC: 5+3 = 8\nSanity_check: d\n</reasoning><answer>8</answer>"
)


def test_parse():
    monologue = parse_monologue(GOOD)
    assert (monologue.plan, monologue.reasoning, monologue.sanity_check) == ("a", "b\nc", "d")
    assert monologue.evidence == "CALC: 5+3 = 8"
    assert monologue.conclusion == "8"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        GOOD.replace("<reasoning>", ""),
        GOOD.replace("</reasoning>", ""),
        GOOD.replace("<reasoning>", "<reasoning><reasoning>"),
        GOOD + "</reasoning>",
        "</reasoning>" + GOOD.replace("</reasoning>", ""),
        GOOD.replace("Plan:", "Plan"),
        GOOD.replace("Plan: a\n", ""),
        GOOD.replace("Plan: a", "Plan: a\nPlan: a"),
        GOOD.replace("\nPlan:", "\nLet me see.\nPlan:"),
        GOOD.replace("\nEvidence:", " Evidence:"),
        GOOD.replace("Evidence:", "Sanity_check:", 1).replace("Sanity_check: d", "Evidence: d"),
    ],
)
def test_what_is_no_monologue(text):
    assert parse_monologue(text) is None


@given(
    st.lists(st.sampled_from([*TAGS, *(f"\n{h}" for h in HEADINGS), "\nCALC:", "1+1 = 2", "\n", "=", "x"])).map("".join)
)
def test_any_text_is_read_or_refused(text):
    monologue = parse_monologue(text)
    assert (
        monologue is None or [text.count(f"\n{heading}") + text.count(f">{heading}") for heading in HEADINGS] >= [1] * 4
    )


@pytest.mark.parametrize(
    ("line", "value", "holds"),
    [
        ("CALC: 48/2 = 24", "24", True),
        ("  CALC:48/2=24", "24", True),
        ("CALC: 48/2 = $24.00", "24", True),
        ("CALC: 10/3 = 3.33", "3.33", True),
        ("CALC: 10/3 = 3.34", "3.34", False),
        ("CALC: 7/2 = 3", "3", False),
        ("CALC: 7/2 = 4", "4", False),
        ("CALC: 48/2 = 25", "25", False),
        ("CALC: 48/2 = 24 clips", None, False),
        ("CALC: 48/2 = 12*2 = 24", None, False),
        ("CALC: 48/2", None, False),
        ("CALC: = 24", "24", False),
        ("CALC: 1/0 = 1", "1", False),
        ("CALC: 9**9**9 = 1", "1", False),
        ("CALC: len('12') = 2", "2", False),
        ("CALC:", None, False),
    ],
)
def test_a_calc_line(line, value, holds):
    (found,) = read_calculations(f"text\n{line}\n5+3 = 8")
    assert (found.value, found.holds) == (value, holds)
