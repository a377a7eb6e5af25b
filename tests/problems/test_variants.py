"""Variants: hand-made rows with changed numbers, the refusals, and properties of every variant."""

import json
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showwork.problems.cleaning import clean_lines, gold_rejects
from showwork.problems.graphs import Graph, fill, read_graph
from showwork.problems.variants import Refusal, make_variant, plan_mark, question_mark
from showwork.reading.arithmetic import evaluate, find_equations
from showwork.records import Problem
from showwork.sources import generator


def problem(question: str, answer: str, style: str = "readable") -> Problem:
    line = json.dumps({"question": question, "answer": answer}).encode()
    (found,) = clean_lines([line], split="train", annotation_style=style).problems
    return found


APPLES = problem(
    "Tom has 5 bags of 12 apples. He eats 8 of them. How many apples are left?",
    "He had 5*12 = <<5*12=60>>60 apples.\nSo 60-8 = <<60-8=52>>52 are left of the 60.\n#### 52",
)


def written(problem: Problem, *values: int) -> tuple[str, str, list[str]]:
    """Question, solution and expressions with these values of the graph: the results, then the leaves."""
    graph = read_graph(problem)
    assert isinstance(graph, Graph)
    numbers = [Fraction(value) for value in values]
    expressions = [fill(expression, numbers) for expression in graph.expressions]
    return fill(graph.question, numbers), fill(graph.reasoning, numbers), expressions


def test_the_graph_of_a_row() -> None:
    # 3 bags of 20 less 4: results 60 and 56, leaves 3, 20, 4.
    question, reasoning, expressions = written(APPLES, 60, 56, 3, 20, 4)
    assert question == "Tom has 3 bags of 20 apples. He eats 4 of them. How many apples are left?"
    assert reasoning == "He had 3*20 = 60 apples.\nSo 60-4 = 56 are left of the 60."
    assert expressions == ["3*20", "60-4"]


def test_thousands_cents_and_signs_are_written_as_before() -> None:
    shop = problem(
        "A $1,200 desk and 3 chairs of $40.50 each. What do they cost?",
        "The chairs cost 3*40.50 = $<<3*40.50=121.5>>121.50.\nIn all 1200+121.5 = $<<1200+121.5=1321.5>>1,321.50.\n"
        "#### $1,321.50",
    )
    question, reasoning, expressions = written(shop, 100, 1100, 2, 50, 1000)
    assert question == "A $1,000 desk and 2 chairs of $50.00 each. What do they cost?"
    assert reasoning == "The chairs cost 2*50.00 = $100.00.\nIn all 1000+100.0 = $1,100.00."
    assert expressions == ["2*50.00", "1000+100.0"]


def test_constants_words_and_joined_numbers_stay() -> None:
    week = problem(
        "Ann runs 4 miles a day, twice on each of three Sundays in 2021. How many miles in 6 weeks, plus 1/2 of them?",
        "In a week 4*7 = <<4*7=28>>28.\nIn all 28*6 = <<28*6=168>>168.\nHalf is 168*1/2 = <<168*1/2=84>>84.\n"
        "So 168+84 = <<168+84=252>>252.\n#### 252",
    )
    graph = read_graph(week)
    assert isinstance(graph, Graph)
    assert [leaf.value for leaf in graph.leaves] == [4, 6]


@pytest.mark.parametrize(
    ("equation", "leaves"),
    [
        ("20/100*50=10", [20, 50]),
        # A number computed from 20% without an equation is right for 20% only.
        ("0.2*50=10", [50]),
        ("50*0.8=40", [50]),
        ("50*1.2=60", [50]),
    ],
)
def test_a_percentage_varies_where_it_stands_as_it_is(equation: str, leaves: list[int]) -> None:
    graph = read_graph(problem("20% of 50 hens?", f"<<{equation}>>\n#### {equation.partition('=')[2]}"))
    assert isinstance(graph, Graph)
    assert [leaf.value for leaf in graph.leaves] == leaves


@pytest.mark.parametrize(
    ("question", "answer", "refusal"),
    [
        ("Is it 5 or 3?", "It is 5.\n#### 5", Refusal.NO_EQUATION),
        ("Share 10 pies among 3.", "10/3 = <<10/3=3.33>>3.33\n#### 3.33", Refusal.ROUNDED_RESULT),
        ("Add 5 and 4.", "5+4 = <<5+4=9>>9, so ten.\n#### 10", Refusal.ANSWER_IS_NOT_THE_LAST_RESULT),
        # 17 has no equation, so it would not change with the others.
        ("Ann has 20, loses some, doubles 5.", "17+5 = <<17+5=22>>22\n#### 22", Refusal.UNKNOWN_NUMBER),
        ("Ann has 5 and 4.", "5+4 = <<5+4=9>>9, which is 14 less than 23.\n#### 9", Refusal.UNKNOWN_NUMBER),
        # Which 5 is it?
        ("5 boys eat 5 pies each.", "5*5 = <<5*5=25>>25\n#### 25", Refusal.TWO_ROLES),
        ("Five boys eat 5 pies each.", "5*5 = <<5*5=25>>25\n#### 25", Refusal.TWO_ROLES),
        # A result that is a number of the question, and used.
        ("Of 9, 4 go, and 5 more.", "9-4 = <<9-4=5>>5\n5-5 = <<5-5=0>>0\n#### 0", Refusal.TWO_ROLES),
        # 7 pies, or 7 days of the week?
        ("7 pies a week for 6 weeks.", "7*6 = <<7*6=42>>42\n#### 42", Refusal.TWO_ROLES),
        ("Ann and Bo have 6 and 2.", "6/2 = <<6/2=3>>3, so three.\n#### 3", Refusal.TWO_ROLES),
        ("From 9, down 7.", "9-7 = <<9-7=2>>2, the 2nd floor.\n#### 2", Refusal.TWO_ROLES),
        # The longer of 6*8 and 9*4: with other numbers it could be the other.
        ("Ann: 6 of 8. Bo: 9 of 4. More?", "9*4 = <<9*4=36>>36\n6*8 = <<6*8=48>>48\n#### 48", Refusal.UNUSED_RESULT),
        ("How many hours do three days have?", "24*3 = <<24*3=72>>72\n#### 72", Refusal.NO_LEAF),
        # 5-4 = 1 has no annotation: with other numbers it stays in the text and is false.
        ("Of 9 pies 4 go.", "9-4 = <<9-4=5>>5, and 5-4 = 1 more stays than goes.\n#### 5", Refusal.FALSE_EQUATION),
    ],
)
def test_refusals(question: str, answer: str, refusal: Refusal) -> None:
    assert make_variant(problem(question, answer), seed=0, number=0) == refusal


def test_numbers_that_can_only_be_what_they_are() -> None:
    # Numbers of one digit that keep their order among the others: only 8 and 9 lie between 7 and 10.
    bound = problem("Of 9 pies 8 go, and 7, 6, 5, 4, 3, 2 are bad.", "9-8 = <<9-8=1>>1\n#### 1")
    assert make_variant(bound, seed=0, number=0) == Refusal.NO_SENSIBLE_NUMBERS


def test_a_draw_hangs_on_seed_problem_and_number_alone() -> None:
    first = make_variant(APPLES, seed=1, number=2)
    assert isinstance(first, Problem)
    assert first == make_variant(replace(APPLES), seed=1, number=2)
    assert first.id == f"{APPLES.id}~2"
    others = {make_variant(APPLES, seed=s, number=n).question for s in range(4) for n in range(4)}
    assert len(others) > 8


def test_what_is_taken_is_not_made() -> None:
    hats = problem("Tom has 2 hats and buys 3. How many hats?", "He has 2+3 = <<2+3=5>>5 hats.\n#### 5")
    # Two leaves of one digit in order, 2 <= a < b <= 9: 28 of them, less the row itself.
    made = set()
    while isinstance(variant := make_variant(hats, seed=0, number=len(made), taken=made), Problem):
        made.add(question_mark(variant))
    assert len(made) == 27
    plans = {plan_mark(problem("?", f"<<{b}+{a}={a + b}>>\n#### {a + b}")) for a in range(2, 10) for b in range(2, 10)}
    assert make_variant(hats, seed=0, number=0, taken=plans) == Refusal.NO_SENSIBLE_NUMBERS


def test_the_plan_is_what_is_calculated() -> None:
    def plan(*equations: str) -> str:
        notes = " ".join(f"<<{equation}>>" for equation in equations)
        return plan_mark(problem("?", f"x {notes}\n#### {equations[-1].partition('=')[2]}"))

    assert plan("2*3=6", "6-1=5") == plan("3*2=6", "6-1=5")
    assert len({plan("2*3=6"), plan("2+3=5"), plan("6/3=2"), plan("2*3=6", "6-1=5"), plan("8-1=7", "2*3=6")}) == 5


ROWS = [
    problem(draft.question, draft.answer)
    for difficulty in generator.LEVELS
    for draft in islice(generator.drafts(seed=5, split="train", difficulty=difficulty), 60)
]


@settings(max_examples=60, deadline=None)
@given(row=st.sampled_from(ROWS), seed=st.integers(0, 2**32), style=st.sampled_from([" = ", "="]))
def test_every_variant_is_a_sound_problem(row: Problem, seed: int, style: str) -> None:
    row = replace(row, reasoning=row.reasoning.replace(" = ", style))
    variant = make_variant(row, seed=seed, number=0)
    if isinstance(variant, Refusal):
        return
    assert gold_rejects([variant]) == []
    assert variant.question != row.question
    assert variant.answer == variant.equations[-1].value
    for equation, old in zip(variant.equations, row.equations, strict=True):
        # The generator's quantities are whole and at least 2: nouns are always plural.
        assert evaluate(equation.expression) == int(equation.value) >= 2
        assert [c for c in equation.expression if not c.isdigit()] == [c for c in old.expression if not c.isdigit()]
    found = find_equations(variant.reasoning)
    assert len(found) == len(find_equations(row.reasoning))
    assert all(equation.holds for equation in found)
    # Nothing but numbers has changed.
    words = [" ".join(c for c in p.question.replace(",", "") if not c.isdigit()) for p in (variant, row)]
    assert words[0] == words[1]


def test_most_generated_rows_have_a_variant() -> None:
    made = [make_variant(row, seed=0, number=0) for row in ROWS]
    assert sum(isinstance(variant, Problem) for variant in made) > 0.7 * len(ROWS)
