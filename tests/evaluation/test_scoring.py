"""Scores of completions, counted by hand."""

import json
from dataclasses import replace

import pytest

from showwork.evaluation.predictions import Prediction, Probe, Sample
from showwork.evaluation.scoring import is_faithful, majority, pass_at, score_arm, score_few_shot, score_shifted
from showwork.evaluation.statistics import wilson
from showwork.records import Completion, Equation, Problem


def problem(id_: str, answer: str, *expressions: str) -> Problem:
    return Problem(id_, "How many?", "…", answer, tuple(Equation(e, "1") for e in expressions))


def completion(text: str, *, tokens: int = 10, truncated: bool = False) -> Completion:
    return Completion(text, tokens, truncated)


def solved(reasoning: str, answer: str, **kwargs) -> Completion:
    return completion(f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>", **kwargs)


PROBLEMS = [
    problem("a", "12", "3*4"),
    problem("b", "10", "2+3", "5*2"),
    problem("c", "4", "8/2", "9-5"),
    problem("d", "7"),
]
GREEDY = [
    solved("3*4 = 12", "12", tokens=20),  # right and faithful
    solved("2+3 = 6\n5*2 = 10", "10", tokens=30),  # right, one equation wrong
    solved("8/2 = 4\n4-5 = -1", "4.3", tokens=40),  # wrong, within 10%, every equation true
    completion("I don't know", tokens=50, truncated=True),
]


def test_greedy_metrics_by_hand():
    metrics, predictions = score_arm(PROBLEMS, GREEDY)
    low, high = wilson(2, 4)
    assert metrics == {
        "n": 4,
        "accuracy": 0.5,
        "accuracy_low": round(low, 6),
        "accuracy_high": round(high, 6),
        "accuracy_within_10pct": 0.75,
        "accuracy_flexible": 0.5,
        "format_rate": 0.75,
        "truncated_rate": 0.25,
        "completion_tokens_mean": 35.0,
        "faithful_rate": 0.25,
        "equations_n": 5,
        "equations_hold_rate": 0.8,
        "samples_n": 0,
        "samples_k": 0,
        "n_steps_1": 2,
        "accuracy_steps_1": 0.5,
        "n_steps_2": 2,
        "accuracy_steps_2": 0.5,
        "n_op_add": 1,
        "accuracy_op_add": 1.0,
        "n_op_subtract": 1,
        "accuracy_op_subtract": 0.0,
        "n_op_multiply": 2,
        "accuracy_op_multiply": 1.0,
        "n_op_divide": 1,
        "accuracy_op_divide": 0.0,
    }
    assert predictions[1].to_json() == {
        "id": "b",
        "question": "How many?",
        "gold": "10",
        "completion": GREEDY[1].text,
        "answer": "10",
        "correct": True,
        "tokens": 30,
        "truncated": False,
        "equations": [
            {"expression": "2+3", "value": "6", "holds": False},
            {"expression": "5*2", "value": "10", "holds": True},
        ],
        "samples": [],
    }
    assert predictions[3].answer is None
    assert predictions[3].truncated


@pytest.mark.parametrize(
    ("text", "faithful"),
    [
        (solved("3*4 = 12", "12"), True),
        (solved("1+2 = 3\n3*4 = 12", "12"), True),
        (solved("3*4 = 13", "12"), False),  # right answer, wrong equation
        (solved("3*4 = 12\n12-2 = 10", "12"), False),  # right answer, but the work ends elsewhere
        (solved("It is twelve.", "12"), False),  # right answer, no work
        (solved("3*4 = 12", "13"), False),  # true work, wrong answer
        (solved("300*4 = 1,200", "$1,200.00"), False),  # all of it true, of another question
    ],
)
def test_faithful_means_right_answer_true_work_and_the_one_from_the_other(text, faithful):
    metrics, predictions = score_arm([problem("a", "12", "3*4")], [text])
    assert is_faithful(predictions[0]) is faithful
    assert metrics["faithful_rate"] == faithful


def test_faithful_compares_numbers_and_not_their_spelling():
    _, predictions = score_arm([problem("a", "1200", "300*4")], [solved("300*4 = $1,200", "1,200.00")])
    assert is_faithful(predictions[0])


def test_equations_count_before_the_answer_alone():
    text = solved("3*4 = 12", "12").text + "\n1+1 = 3"
    metrics, predictions = score_arm([problem("a", "12", "3*4")], [completion(text)])
    assert [equation.expression for equation in predictions[0].equations] == ["3*4"]
    assert metrics["equations_n"] == metrics["equations_hold_rate"] == 1


def test_sample_metrics_by_hand():
    drawn = {
        "a": [solved("", "12"), solved("", "12"), solved("", "13"), completion("?")],  # 2 of 4, the vote is right
        "b": [solved("", "9"), solved("", "9"), solved("", "10"), completion("?")],  # 1 of 4, the vote is wrong
        "c": [solved("", "5"), solved("", "4"), completion("?"), completion("?")],  # 1 of 4, the vote is a tie
    }
    metrics, predictions = score_arm(PROBLEMS, GREEDY, samples=drawn)
    assert (metrics["samples_n"], metrics["samples_k"]) == (3, 4)
    assert metrics["accuracy_sampled"] == round(4 / 12, 6)
    assert metrics["pass_at_4"] == 1.0
    assert metrics["maj_at_4"] == 0.5  # (1 + 0 + 1/2) / 3
    assert [len(row.samples) for row in predictions] == [4, 4, 4, 0]
    assert predictions[2].to_json()["samples"][1] == {
        "text": solved("", "4").text,
        "answer": "4",
        "correct": True,
        "tokens": 10,
        "truncated": False,
    }
    assert metrics["accuracy"] == 0.5  # the samples leave the greedy scores alone


def test_pass_at_k_by_hand():
    assert pass_at(4, 1, 1) == 0.25
    assert pass_at(4, 1, 2) == 0.5  # 1 - C(3,2)/C(4,2) = 1 - 3/6
    assert pass_at(4, 2, 2) == pytest.approx(5 / 6)  # 1 - C(2,2)/6
    assert pass_at(4, 0, 4) == 0.0
    assert pass_at(4, 1, 4) == 1.0  # with n = k: any of them right


def vote(*answers: str | None, gold: str = "4") -> float:
    return majority([Sample("", answer, answer == gold, 1, False) for answer in answers])


def test_majority_by_hand():
    assert vote("4", "4", "5") == 1.0
    assert vote("5", "5", "4") == 0.0
    assert vote("4", "5") == 0.5  # a tie is broken at random
    assert vote("4", "4", "5", "5", "6", "6", "7") == pytest.approx(1 / 3)
    assert vote(None, None, "4") == 1.0  # no answer, no vote
    assert vote(None, None) == 0.0


def test_a_prediction_survives_its_file():
    drawn = {"a": [solved("", "12"), completion("?", truncated=True)]}
    _, predictions = score_arm(PROBLEMS, GREEDY, samples=drawn)
    probe = Probe(("3*", "4"), (0.5, 0.0), (-0.5, -0.001), (2, 1), {"premise_echo": True, "knowledge_gap": False})
    predictions[1] = replace(predictions[1], probe=probe)
    rows = [json.loads(json.dumps(prediction.to_json())) for prediction in predictions]
    assert [Prediction.from_json(row) for row in rows] == predictions
    assert [Prediction.from_json(row).to_json() for row in rows] == rows
    assert [row.few_shot for row in predictions] == [None] * 4
    keys = ["id", "question", "gold", "completion", "answer", "correct", "tokens", "truncated", "equations", "samples"]
    assert list(rows[0]) == keys
    assert list(rows[1]) == [*keys, "probe"]
    assert rows[1]["probe"] == {
        "tokens": ["3*", "4"], "entropy": [0.5, 0.0], "logp": [-0.5, -0.001], "settled": [2, 1],
        "detectors": {"premise_echo": True, "knowledge_gap": False},
    }  # fmt: skip


def test_rates_over_nothing_are_left_out():
    metrics, _ = score_arm([problem("d", "7")], [completion("none")])
    assert metrics["equations_n"] == metrics["samples_n"] == 0
    assert not {"equations_hold_rate", "accuracy_sampled"} & metrics.keys()
    assert not [key for key in metrics if "_op_" in key or key.startswith(("pass_at", "maj_at"))]


def test_metrics_are_rounded_so_that_their_bytes_stay():
    metrics, _ = score_arm(PROBLEMS[:3], GREEDY[:3])
    assert metrics["accuracy"] == 0.666667
    assert all(isinstance(value, int) or value == round(value, 6) for value in metrics.values())


@pytest.mark.parametrize(
    ("problems", "greedy", "samples", "message"),
    [
        ([], [], {}, "there must be some"),
        ([PROBLEMS[0], PROBLEMS[0]], GREEDY[:2], {}, "each id once"),
        (PROBLEMS, GREEDY[:3], {}, "3 greedy completions for 4"),
        (PROBLEMS, GREEDY, {"z": GREEDY[:2]}, "unknown problems.*z"),
        (PROBLEMS, GREEDY, {"a": GREEDY[:2], "b": GREEDY[:3]}, r"same number.*\[2, 3\]"),
        (PROBLEMS, GREEDY, {"a": []}, r"same number.*\[0\]"),
    ],
)
def test_what_does_not_fit_together_is_refused(problems, greedy, samples, message):
    with pytest.raises(ValueError, match=message):
        score_arm(problems, greedy, samples=samples)


def test_flexible_accuracy_counts_the_last_number_whatever_its_form():
    """Right by the tags and by the last number; by it alone; by the tags alone; by neither."""
    asked = [problem(name, "12") for name in "abcd"]
    greedy = [
        solved("3*4 = 12", "12"),
        completion("She has 3*4 = 12 eggs."),
        completion(solved("3*4 = 12", "12").text + "\n5"),
        completion("12 or 13"),
    ]
    metrics, predictions = score_arm(asked, greedy)
    assert (metrics["accuracy"], metrics["accuracy_flexible"]) == (0.5, 0.5)
    assert [row.correct for row in predictions] == [True, False, True, False]
    assert [row.is_flexibly_correct for row in predictions] == [True, True, False, False]


def test_the_second_test_set_is_counted_by_the_kind_that_begins_an_id():
    """A repeat's id has one more part: families-1a-2 is also of kind families."""
    asked = [problem(id_, "12") for id_ in ("families-1a", "families-1a-2", "gsm8k_test-2b")]
    drawn = [solved("3*4 = 12", "12"), solved("3*4 = 13", "13"), completion("13 and 12")]
    assert score_shifted(asked, drawn) == {
        "shifted_n": 3, "shifted_accuracy": 0.333333, "shifted_accuracy_flexible": 0.666667,
        "shifted_families_n": 2, "shifted_families_accuracy": 0.5, "shifted_families_accuracy_flexible": 0.5,
        "shifted_gsm8k_test_n": 1, "shifted_gsm8k_test_accuracy": 0.0, "shifted_gsm8k_test_accuracy_flexible": 1.0,
    }  # fmt: skip
    assert score_shifted([], []) == {}


def test_few_shot_is_a_second_measurement_beside_the_first():
    metrics, predictions = score_arm(PROBLEMS, GREEDY)
    shown = [completion("It is 12."), solved("5*2 = 10", "10"), completion("?"), solved("", "7", tokens=9)]
    elsewhere = {"shifted_n": 2, "shifted_accuracy": 0.5}
    found, kept = score_few_shot(predictions, PROBLEMS, shown, shifted=elsewhere, shots=8)
    assert found == {
        "few_shot_shots": 8, "few_shot_n": 4, "few_shot_accuracy": 0.5, "few_shot_accuracy_flexible": 0.75,
        "few_shot_shifted_n": 2, "few_shot_shifted_accuracy": 0.5,
    }  # fmt: skip
    assert not found.keys() & metrics.keys()
    assert kept[3].few_shot == Sample(shown[3].text, "7", True, 9, False)
    assert [replace(row, few_shot=None) for row in kept] == predictions
    rows = [json.loads(json.dumps(row.to_json())) for row in kept]
    assert rows[0]["few_shot"]["text"] == "It is 12."
    assert [Prediction.from_json(row) for row in rows] == kept
