"""The decomposition of a gain, on hand-made predictions."""

import pytest

from showwork.evaluation.predictions import JudgedEquation, Prediction, Sample
from showwork.records import Equation, Problem
from showwork.report.gains import gain, rows, way

STEP = JudgedEquation("3*4", "12", True)
WHOLE = JudgedEquation("(3*4)-2", "10", True)


def said(correct: bool, *equations: JudgedEquation, samples: str = "") -> Prediction:
    drawn = tuple(Sample("", None, c == "1", 1, False) for c in samples)
    return Prediction("q", "?", "12", "", None, correct, 1, False, equations, drawn)


def asked(n: int, steps: int = 1) -> list[Problem]:
    return [Problem(f"q{i}", "?", "", "12", (Equation("3*4", "12"),) * steps) for i in range(n)]


@pytest.mark.parametrize(
    ("equations", "expected"),
    [((), "in words"), ((STEP,), "step by step"), ((STEP, STEP), "step by step"), ((WHOLE,), "at once"),
     ((STEP, WHOLE), "at once"), ((JudgedEquation("-3", "-3", True),), "step by step"),
     ((JudgedEquation("-3+4", "1", True),), "step by step")],
)  # fmt: skip
def test_way(equations, expected):
    assert way(equations) == expected


def test_a_change_of_ways_alone_is_chosen():
    # Steps are right always, at once never, before and after; half of the questions change their way.
    before = [said(True, STEP), said(True, STEP), said(False, WHOLE), said(False, WHOLE)]
    after = [said(True, STEP), said(True, STEP), said(True, STEP), said(False, WHOLE)]
    split = gain(before, after, asked(4))
    assert (split.chosen, split.within) == (pytest.approx(0.25), pytest.approx(0.0))
    assert split.ways == (0.0, 0.25, 0.75)
    assert split.surer is None
    assert split.new is None


def test_the_same_ways_done_better_are_within():
    before = [said(False, STEP), said(True, STEP), said(False), said(False)]
    after = [said(True, STEP), said(True, STEP), said(True), said(False)]
    split = gain(before, after, asked(4))
    assert (split.chosen, split.within) == (pytest.approx(0.0), pytest.approx(0.5))


def test_both_at_once_by_hand():
    # Words 3/4 at 1/3, steps 1/4 at 1; then words 1/4 at 1, steps 3/4 at 2/3.
    before = [said(True), said(False), said(False), said(True, STEP)]
    after = [said(True), said(True, STEP), said(True, STEP), said(False, STEP)]
    split = gain(before, after, asked(4))
    # chosen: -1/2 * (1/3 + 1)/2 + 1/2 * (1 + 2/3)/2; within: (1 - 1/3) * 1/2 + (2/3 - 1) * 1/2
    assert split.chosen == pytest.approx(-1 / 3 + 5 / 12)
    assert split.within == pytest.approx(1 / 3 - 1 / 6)
    assert split.chosen + split.within == pytest.approx(0.25)


def test_questions_of_more_steps_are_not_mixed_with_others():
    # Easy questions are right in both ways, hard ones never; the two ways change places, and nothing is gained by it.
    before = [said(True, STEP), said(True, STEP), said(False), said(False)]
    after = [said(True), said(True), said(False, STEP), said(False, STEP)]
    split = gain(before, after, [*asked(2, steps=1), *asked(2, steps=2)])
    assert (split.chosen, split.within) == (pytest.approx(0.0), pytest.approx(0.0))


def test_a_way_that_the_start_never_took_is_all_choice():
    split = gain([said(False), said(False)], [said(True, STEP), said(False)], asked(2))
    assert (split.chosen, split.within) == (pytest.approx(0.5), pytest.approx(0.0))


def test_samples_split_by_whether_the_start_ever_got_it():
    before = [said(True, samples="1000"), said(True, samples="0000"), said(True)]
    after = [said(True, samples="1110"), said(True, samples="0100"), said(True)]
    split = gain(before, after, asked(3))
    # of the two questions sampled: (3/4 - 1/4) / 2 and 1/4 / 2, of 2/8 -> 4/8 in all
    assert (split.surer, split.new) == (pytest.approx(0.25), pytest.approx(0.125))


def test_rows_are_text():
    predictions = {
        "base": [said(False), said(False)],
        "sft": [said(True, STEP), said(False)],
        "grpo": [said(True, STEP), said(True, STEP)],
    }
    first, second = rows({"base": None, "sft": "base", "grpo": "sft"}, predictions, asked(2))
    # base got nothing right: what sft gained over it can't be split
    assert list(first.values()) == ["sft", "50.0%", "0.0%", "50.0%", "–", "–", "–", "–"]
    # words 1/2 -> 0 at 0, steps 1/2 -> 1 at 1
    assert list(second.values()) == ["grpo", "0.0%", "0.0%", "100.0%", "+50.0", "0.0", "–", "–"]
