"""The reference recipe's four rewards, computed by hand, and how each is gamed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showwork.reading.answers import TAGS
from tests.rewards.made import pay, score


def around(answer: str, reasoning: str = "5+3") -> str:
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (around("8"), 3),
        (around("9"), 3),
        (around("eight"), 3),
        (around(" "), 3),
        (around("8") + "\n", 3),
        ("\n  " + around("8"), 3),
        ("<reasoning>\n5+3\n</reasoning>\n<answer>\n8\n</answer>", 3),
        ("<reasoning> </reasoning><answer>8</answer>", 3),
        ("<reasoning>5</reasoning> so <answer>8</answer>", 3),
        (around("8") + around("8"), 3),  # the answer is then all from the first <answer> to the last </answer>
        (around("8", "<reasoning>5+3"), 3),
        ("<reasoning>5</reasoning></reasoning><answer>8</answer>", 3),
        ("<reasoning></reasoning><answer>8</answer>", 0),
        (around(""), 0),
        (around("8") + ".", 0),
        ("It is " + around("8"), 0),
        ("<answer>8</answer><reasoning>5+3</reasoning>", 0),
        ("<answer>8</answer>", 0),
        ("<reasoning>5+3</reasoning>8", 0),
        ("<reasoning>5+3<answer>8</answer>", 0),
        ("<reasoning>5+3</reasoning><answer>8", 0),
        ("<reasoning><answer>8</answer></reasoning>", 0),
        ("", 0),
    ],
)
def test_format(text, value):
    assert score("cookbook_format", text) == value


@given(st.lists(st.sampled_from([*TAGS, "8", " ", "\n", "<"]), max_size=12).map("".join))
def test_the_linear_format_is_the_recipes_expression(text):
    recipe = r"\s*<reasoning>.+?</reasoning>.*?<answer>(.+?)</answer>\s*"
    assert score("cookbook_format", text) == 3 * bool(re.fullmatch(recipe, text, re.DOTALL))


@pytest.mark.parametrize(
    ("text", "once"),  # how many of the four tags occur exactly once
    [
        (around("8"), 4),
        ("", 0),
        ("8", 0),
        ("<reasoning>", 1),
        ("</answer>", 1),
        ("<reasoning></reasoning>", 2),
        ("<answer>8</answer>", 2),
        ("</answer></reasoning><answer><reasoning>", 4),  # in any order
        ("<reasoning><answer></reasoning></answer>", 4),  # nested crosswise
        ("<reasoning><answer>8</answer></reasoning>", 4),  # nested
        (around("8") + "<answer>", 3),
        (around("8") + "</answer>", 3),
        (around("8") + "<reasoning>", 3),
        (around("8") + around("8"), 0),
        (around("8") + "<answer>8</answer>", 2),
        ("<reasoning>5+3</reasoning><answer>8", 3),
        ("<reasoning>5+3<answer>8</answer>", 3),
        ("5+3</reasoning><answer>8</answer>", 3),
        ("<reasoning>" * 3, 0),
        ("<Reasoning></Reasoning><answer></answer>", 2),
        ("< reasoning ></ reasoning >", 0),
    ],
)
def test_tags(text, once):
    assert score("cookbook_tags", text) == once * 0.5 - (4 - once) * 0.5


@pytest.mark.parametrize(
    ("inside", "gold", "value"),
    [
        ("8", "8", 3),
        ("-8", "-8", 3),
        ("0.5", "0.5", 3),
        (" 8", "8", 1.5),
        ("8 ", "8", 1.5),
        ("\n8\n", "8", 1.5),
        ("8.0", "8", 0.5),  # 8.0 / 8 = 1
        ("+8", "8", 0.5),
        ("11", "10", 0.5),  # 1.1
        ("9", "10", 0.5),  # 0.9
        ("105", "100", 0.5),
        ("12", "10", 0.25),  # 1.2
        ("8", "10", 0.25),  # 0.8
        ("85", "100", 0.25),
        ("121", "100", -1),
        ("79", "100", -1),
        ("7", "10", -1),
        ("-10", "10", -1),
        ("0", "10", -1),
        ("1e9", "10", -1),
        ("1e1", "10", 0.5),
        ("eight", "8", -0.5),
        ("$8", "8", -0.5),
        ("1,080", "1080", -0.5),  # a right answer
        ("8 apples", "8", -0.5),
        ("7 or 8", "8", -0.5),
        ("1", "0", -0.5),
        ("0", "0", 3),
    ],
)
def test_answer(inside, gold, value):
    assert score("cookbook_answer", around(inside), gold=gold) == value


@pytest.mark.parametrize("text", ["", "8", "<answer>8</answer>", around("8") + " Done.", "<reasoning>8</reasoning>"])
def test_an_answer_outside_the_format_is_none(text):
    assert score("cookbook_answer", text) == 0


@pytest.mark.parametrize(
    ("text", "gold", "value"),
    [
        ("<answer>8</answer>", "8", 1.5),
        ("<answer>8.0</answer>", "8", 1.5),
        ("<answer> 8 </answer>", "8", 1.5),
        ("<answer>$8</answer>", "8", 1.5),
        ("<answer>8 apples</answer>", "8", 1.5),
        ("<answer>It is 8</answer>", "8", 1.5),
        ("<answer>8", "8", 1.5),
        ("<answer></answer>8", "8", 1.5),  # after the tag, inside or not
        ("<answer>8 9 10 11</answer>", "8", 1.5),
        ("<answer>8</answer><answer>9</answer>", "8", 1.5),
        ("<answer>-8</answer>", "8", 1.5),
        ("<answer>0.5</answer>", "0.5", 1.5),
        ("<answer>.5</answer>", "0.5", 1.5),
        ("<answer>9</answer><answer>8</answer>", "8", 0),
        ("<answer>9 8</answer>", "8", 0),
        ("<answer>1,080</answer>", "1080", 0),  # 1
        ("<answer>-8</answer>", "-8", 0),  # 8
        ("<answer>1.2.3</answer>", "1.2", 0),
        ("<answer>...8</answer>", "8", 0),
        ("<answer>eight</answer>", "8", 0),
        ("<answer>80</answer>", "8", 0),
        ("8</answer>", "8", 0),
        ("8", "8", 0),
        ("", "8", 0),
    ],
)
def test_number(text, gold, value):
    assert score("cookbook_number", text, gold=gold) == value


NAMES = ("cookbook_format", "cookbook_tags", "cookbook_answer", "cookbook_number")


def total(text: str) -> float:
    return sum(pay(name, text) for name in NAMES)


def test_boilerplate_in_the_form_earns_most_of_what_a_solution_does():
    boilerplate = around("0", "I think about it step by step.")
    assert total(boilerplate) == 3 + 2 - 1 + 0
    assert total(around("46", "7*6 = 42, 42+4 = 46")) == 3 + 2 + 3 + 1.5
    assert pay("trajectory", boilerplate) == pay("dual_stream", boilerplate) == 0


def test_a_near_miss_is_paid():
    near = around("45", "7*6 = 42, 42+4 = 45")
    assert pay("cookbook_answer", near) == 0.5
    # One step of two holds: 0.6 * 1/4 * 1/2 for the work, nothing for being near.
    assert pay("trajectory", near) == pay("trajectory", near.replace("45", "1")) == 0.075
    assert pay("dual_stream", near) == 0


def test_two_answers_and_sprayed_digits_earn_the_number():
    for text in (around("46 47 48 49"), "<answer>46</answer><answer>47</answer>", around("46 or 47")):
        assert pay("cookbook_number", text) == 1.5
        assert pay("trajectory", text) == pay("dual_stream", text) == 0


def test_nested_and_repeated_tags_and_an_answer_outside_its_tags_are_paid():
    nested, outside = "<reasoning><answer>46</answer></reasoning>", "<answer></answer>46"
    assert pay("cookbook_tags", nested) == 2
    assert pay("cookbook_number", outside) == 1.5
    repeated = around("9", "5") + around("46")
    assert pay("cookbook_format", repeated) == 3
    assert all(pay(name, text) == 0 for name in ("trajectory", "dual_stream") for text in (nested, outside, repeated))


def test_a_right_answer_with_a_comma_or_a_unit_is_fined():
    assert score("cookbook_answer", around("1,080"), gold="1080") == -0.5
    assert score("trajectory", around("1,080"), gold="1080") == 0.4
