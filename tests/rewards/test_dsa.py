"""The dual-stream notebook's three rewards, computed by hand, and how each is gamed."""

import pytest

from tests.rewards.made import DUAL, pay, score

SECTIONS = "Plan: a Reasoning: b Evidence: c Sanity_check: d"


def around(answer: str, reasoning: str = SECTIONS) -> str:
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (around("8"), 3),
        (around("nothing"), 3),
        (around(""), 3),
        (around("8").replace("</reasoning>", "</reasoning>\n\n"), 3),
        ("\n" + around("8") + "\n", 3),
        (DUAL, 3),
        (around("8", SECTIONS.replace(" ", "\n")), 3),
        (around("8", "Plan:Reasoning:Evidence:Sanity_check:"), 3),  # empty sections
        (around("8", SECTIONS + " Plan: again"), 3),
        (around("8", "First. " + SECTIONS), 3),
        (around("8", "Plan: a Evidence: c Reasoning: b Sanity_check: d"), 0),
        (around("8", "Plan: a Reasoning: b Evidence: c"), 0),
        (around("8", SECTIONS.lower()), 0),
        (around("8", "5+3"), 0),
        (around("8") + ".", 0),
        ("So: " + around("8"), 0),
        (around("8").replace("</reasoning>", "</reasoning> so "), 0),
        (around("8") + around("8"), 0),
        (around("8", "<reasoning>" + SECTIONS), 0),
        (around("<answer>8"), 0),
        ("<reasoning></reasoning>" + SECTIONS + "<answer>8</answer>", 0),
        (SECTIONS, 0),
        ("", 0),
    ],
)
def test_structure(text, value):
    assert score("dsa_structure", text) == value


@pytest.mark.parametrize(
    ("text", "pairs", "headings", "in_order"),
    [
        (around("8"), 2, 4, True),
        (DUAL, 2, 4, True),
        ("", 0, 0, False),
        ("8", 0, 0, False),
        ("<answer>8</answer>", 1, 0, False),
        ("<reasoning></reasoning>", 1, 0, False),
        ("<reasoning><answer>", 0, 0, False),
        ("<reasoning></reasoning><answer>", 1, 0, False),
        ("</answer><answer>", 1, 0, False),  # in any order
        ("<answer></answer>" * 5, 1, 0, False),
        (around("8") * 2, 2, 4, True),
        ("<reasoning><answer></reasoning></answer>", 2, 0, False),
        (SECTIONS, 0, 4, True),
        ("Sanity_check: Evidence: Reasoning: Plan:", 0, 4, False),
        ("Plan: Reasoning: Evidence:", 0, 3, False),
        ("Plan:", 0, 1, False),
        ("Plan: Plan: Plan: Plan:", 0, 1, False),
        ("my Plan:Reasoning:", 0, 2, False),
        ("Plan Reasoning Evidence Sanity_check", 0, 0, False),
        (around("8", "Evidence: c Plan: a Reasoning: b Evidence: c Sanity_check: d"), 2, 4, False),  # the first of each
        ("<answer>8</answer>" + SECTIONS, 1, 4, True),
    ],
)
def test_soft_structure(text, pairs, headings, in_order):
    value = pairs - (2 - pairs) + 0.75 * (headings - (4 - headings)) + (1 if in_order else -1)
    assert score("dsa_soft_structure", text) == value


LONG = "x" * (300 - len(SECTIONS))


@pytest.mark.parametrize(
    ("text", "gold", "accuracy", "completeness", "form", "calc"),
    [
        (around("8", SECTIONS + LONG), "8", 1, 1, 1, 0),
        (around("8", SECTIONS + LONG * 9), "8", 1, 1, 1, 0),  # no more for more than 300 characters
        (around("8"), "8", 1, (1 + 1 + len(SECTIONS) / 300) / 3, 1, 0),
        (around("90", "x" * 300), "8", 0, (0 + 0 + 1) / 3, 0.5, 0),
        (around("8", "x" * 150), "8", 1, (0 + 0 + 0.5) / 3, 0.5, 0),
        (around("8", "Plan:" + "x" * 25), "8", 1, (1 / 4 + 0 + 30 / 300) / 3, 0.5, 0),
        (around("11", ""), "10", 0.5, 0, 0.5, 0),
        (around("9", ""), "10", 0.5, 0, 0.5, 0),
        (around("12", ""), "10", 0.25, 0, 0.5, 0),
        (around("8", ""), "10", 0.25, 0, 0.5, 0),
        (around("7", ""), "10", 0, 0, 0.5, 0),
        (around("-10", ""), "10", 0, 0, 0.5, 0),
        (around("1,080", ""), "1080", 1, 0, 0.5, 0),
        (around("It is $8.", ""), "8", 1, 0, 0.5, 0),
        (around("8 or 9", ""), "8", 1, 0, 0.5, 0),
        (around("eight", ""), "8", 0, 0, 0.5, 0),
        (around("1", ""), "0", 0, 0, 0.5, 0),
        ("<answer>8", "8", 1, 0, 0, 0),
        ("8", "8", 0, 0, 0, 0),
        ("", "8", 0, 0, 0, 0),
        ("CALC: 5+3 = 8", "8", 0, 0, 0, 1),
        ("CALC: 5+3 = 8\nCALC: 5+3 = 9", "8", 0, 0, 0, 1 / 2),
        ("CALC: 10/3 = 3.33\nCALC: five = 5\nCALC: 1=1", "8", 0, 0, 0, 2 / 3),
        ("CALC: __import__('os').system('true') = 0", "8", 0, 0, 0, 0),
        (SECTIONS, "8", 0, (1 + 1 + 0) / 3, 0, 0),
    ],
)
def test_composite(text, gold, accuracy, completeness, form, calc):
    value = 3 * accuracy + 2 * completeness + 1 * form + 1 * calc
    assert score("dsa_composite", text, gold=gold) == pytest.approx(value)


def total(text: str) -> float:
    return sum(pay(name, text) for name in ("dsa_structure", "dsa_soft_structure", "dsa_composite"))


def test_the_same_sentences_on_every_row_earn_as_much_as_a_solution():
    boilerplate = around(
        "0",
        "\nPlan: I read the question with care and find what is asked.\nReasoning: I work it out step by step, with "
        "care, so that no step is left out and each can be followed.\nEvidence:\nCALC: 1 = 1\nSanity_check: I look at "
        "it again from the start, and the result is what one would expect here. It is right.\n",
    )
    assert total(boilerplate) > 14.9 - 3  # all but the accuracy of 16 - 3
    assert total(boilerplate) > total(DUAL) - 3.8
    assert pay("dual_stream", boilerplate) == 0
    assert pay("dual_stream", boilerplate.replace("0</answer>", "46</answer>")) == 0.5  # the answer and nothing else
    assert pay("dual_stream", DUAL) == 1


def test_true_lines_that_say_nothing_are_evidence_there():
    empty = around("0", SECTIONS + "\nCALC: 1=1" * 9 + "\n")
    assert pay("dsa_composite", empty) == pytest.approx(pay("dsa_composite", empty.replace("1=1", "1=2")) + 1)
    assert pay("dual_stream", empty) == 0


def test_two_answers_and_repeated_tags_are_paid_there():
    two = around("46 or 47")
    assert pay("dsa_composite", two) == pay("dsa_composite", around("46"))
    assert pay("dsa_soft_structure", DUAL * 3) == 6
    assert pay("dual_stream", two) == pay("dual_stream", DUAL * 3) == 0
