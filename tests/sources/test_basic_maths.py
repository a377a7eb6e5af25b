from pathlib import Path

import pytest

from showwork.errors import UserError
from showwork.problems.cleaning import clean_lines
from showwork.records import Equation
from showwork.sources import basic_maths

HEADER = "question,answer,reasoning,calc_expr\n"


def read(text: str):
    lines = basic_maths.to_lines(text.encode(), Path("maths.csv"))
    return clean_lines(lines, split="train", annotation_style="readable")


def test_a_row_is_a_problem():
    result = read(HEADER + "What is 7 times 8?,56,Seven times eight: 7*8 = 56.,7*8\n")
    (problem,) = result.problems
    assert problem.question == "What is 7 times 8?"
    assert problem.reasoning == "Seven times eight: 7*8 = 56."
    assert (problem.answer, problem.equations) == ("56", (Equation("7*8", "56"),))
    assert result.rows == {problem.id: 1}


@pytest.mark.parametrize(
    ("reasoning", "calculation", "answer", "written", "equation"),
    [
        ("I multiply.", "7*8 = 56", "56", "I multiply.\n7*8 = 56", Equation("7*8", "56")),
        ("", "7*8", "56", "7*8 = 56", Equation("7*8", "56")),
        ("So 7 × 8 = $56.", "7*8", "56", "So 7 × 8 = $56.", Equation("7*8", "56")),
        ("8*7 = 56 it is", "7*8", "56", "8*7 = 56 it is", Equation("7*8", "56")),
        ("Divide.", "10/3", "3.33", "Divide.\n10/3 = 3.33", Equation("10/3", "3.33", rounded=True)),
        ("Add.", '"1,000+80"', '"1,080"', "Add.\n1,000+80 = 1,080", Equation("1000+80", "1080")),
    ],
)
def test_the_calculation_stands_in_the_reasoning_once(reasoning, calculation, answer, written, equation):
    (problem,) = read(HEADER + f"How many?,{answer},{reasoning},{calculation}\n").problems
    assert problem.reasoning == written
    assert problem.equations == (equation,)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("How many?,57,Times.,7*8", "annotation_does_not_compute"),
        ("How many?,56,Times.,7*8 = 54", "annotation_does_not_compute"),
        ("How many?,65,Times.,7*8 = 56", "annotation_does_not_compute"),
        ("How many?,56,Times.,", "annotation_does_not_compute"),
        ("How many?,56,Times.,__import__('os')", "annotation_does_not_compute"),
        ("How many?,56,Times.,<<7*8", "unbalanced_annotation"),
        ("How many?,many,Times.,7*8", "answer_not_a_number"),
        (",56,Times.,7*8", "empty_field"),
        ("How many?,56,Times.", "missing_field"),
        ("How many?", "missing_field"),
        ("How many?,56,#### 56,7*8", "several_final_answers"),
        ("How <answer>?,56,Times.,7*8", "reserved_tag"),
        ("How many?,56,Times\x00.,7*8", "control_character"),
    ],
)
def test_a_bad_row_is_rejected_by_name(row, reason):
    result = read(HEADER + row + "\nAnd now?,3,Plus.,1+2\n")
    assert [(r["reason"], r["row"]) for r in result.rejected] == [(reason, 1)]
    assert list(result.rows.values()) == [2]
    assert result.read == 2


def test_spreadsheets_of_all_kinds():
    text = '\ufeffcalc_expr, Question ,note,ANSWER,reasoning\r\n1+2,"One, two\r\nand?",x,3,"It is ""3""."\r\n\r\n'
    (problem,) = read(text).problems
    assert problem.question == "One, two\nand?"
    assert problem.reasoning == 'It is "3".\n1+2 = 3'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no row"),
        (HEADER.encode(), "no row"),
        (b"question,answer,reasoning\nHow many?,56,Times.\n", "no column calc_expr"),
        (b"question;answer;reasoning;calc_expr\nHow many?;56;Times.;7*8\n", "no column question and answer"),
        (HEADER.encode() + b"How m\xffny?,56,Times.,7*8\n", "not UTF-8"),
        (HEADER.encode() + b'"' + b"x" * 200_000 + b'",56,Times.,7*8\n', "not CSV"),
    ],
)
def test_a_file_that_is_no_such_table_is_an_error(content, message):
    with pytest.raises(UserError, match=message) as error:
        basic_maths.to_lines(content, Path("data/maths.csv"))
    assert str(error.value).startswith("data/maths.csv: ")
