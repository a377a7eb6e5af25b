"""The detectors on made-up completions, and their metrics counted by hand. No model."""

import itertools
import random
import subprocess
import sys

import pytest

from showwork import probes
from showwork.config import Probes
from showwork.evaluation.scoring import auroc, is_faithful, score_arm, score_probes
from showwork.reading.answers import render_completion
from showwork.reading.completion import read
from showwork.reading.dual import write_monologue
from showwork.records import Completion, Equation, Problem

APPLES = Problem(
    "apples", "Tom has 5 apples and buys 3 more. How many?", "He has 5 + 3 = 8 apples.", "8", (Equation("5+3", "8"),)
)


def dual(calculation: str, check: str, answer: str) -> str:
    sections = f"Plan: add\nReasoning: {calculation}\nEvidence:\nCALC: {calculation}\nSanity_check: {check}"
    return render_completion(sections, answer)


def test_importing_the_detectors_does_not_import_jax():
    code = "import sys, showwork.probes; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_right_solution_fires_nothing():
    for reasoning in (APPLES.reasoning, write_monologue(APPLES), "It is 8."):
        assert probes.detect_text(read(render_completion(reasoning, "8")), APPLES) == {
            "premise_echo": False,
            "contradiction": False,
        }


@pytest.mark.parametrize(
    ("completion", "fires"),
    [
        (render_completion("It is 5.", "5"), True),
        (render_completion("5 + 3 = 8", "$5.00"), True),  # the same number, however it is written
        (render_completion("8 - 3 = 5", "5"), False),  # an equation results in it
        (render_completion("2 * 4 = 3 + 5 = 8", "3"), True),  # 3 + 5 is not a result but a sum that contains 3
        (dual("5+3 = 8", "8-3 = 5", "5"), True),  # undoing a step naturally results in a number of the question
        (render_completion("It is 9.", "9"), False),
        (render_completion("It is 5.", "5 or 3"), False),  # no answer at all
        ("<reasoning>\nIt is 5.", False),
    ],
)
def test_premise_echo(completion, fires):
    assert probes.is_premise_echo(read(completion), APPLES.question) is fires


def test_a_number_of_the_question_is_compared_as_a_number():
    question = "A car costs $1,080.50. How much is it?"
    assert probes.is_premise_echo(read(render_completion("It is that.", "1080.5")), question)
    assert not probes.is_premise_echo(read(render_completion("It is that.", "80")), question)


@pytest.mark.parametrize(
    ("completion", "fires"),
    [
        (render_completion("5 + 3 = 8", "9"), True),  # the last result is not the answer
        (render_completion("5 + 3 = 8\n8 + 1 = 9", "8"), True),
        (render_completion("5 + 3 = 9", "9"), True),  # false
        (render_completion("5 + 3 = 9\n4 + 4 = 8", "8"), True),  # false, though the last result is right
        (render_completion("5 + 3 = 4 + 4 = 8", "8"), False),
        (dual("5+3 = 8", "8-3 = 5", "8"), False),  # the sanity check's result need not be the answer,
        (dual("5+3 = 8", "8-3 = 6", "8"), True),  # but it must hold
        (render_completion("It is 9.", "9"), False),  # nothing to contradict
        (render_completion("5 + 3 = 8", "8 or 9"), False),
        ("<reasoning>\n5 + 3 = 8\n", False),
    ],
)
def test_contradiction(completion, fires):
    assert probes.contradicts(read(completion)) is fires


# -------------------------------------------------------------------------------------------------- spans, tokens


@pytest.mark.parametrize(
    ("reasoning", "results"),
    [
        ("He has 5 + 3 = 8 apples, 8*130 = $1,040.", ["8", "1,040"]),
        ("2*3+4 = 6+4 = 10", ["10"]),  # 6+4 was rewritten, not computed
        ("Evidence:\nCALC: 7/2 = 3.5\nSanity_check: 3.5*2 = 7", ["3.5", "7"]),
        ("20 / 80 * 100 = 25%", ["25"]),
        ("He has 8.", []),
    ],
)
def test_result_spans(reasoning, results):
    completion = render_completion(reasoning, "$12 each")
    assert [completion[start:end] for start, end in probes.result_spans(read(completion))] == [*results, "12"]
    assert [completion[start:end] for start, end in probes.answer_spans(read(completion))] == ["12"]


def test_no_answer_has_no_span():
    assert probes.answer_spans(read(render_completion("It is 8.", "8 or 9"))) == []
    assert probes.answer_spans(read("<answer>8")) == []


def test_tokens_that_share_a_character_with_a_span():
    tokens = ["5", " +", " 3", " = ", "1", "", "8 ", "a", "p"]  # 5 + 3 = 18 ap
    text = "".join(tokens)
    start = text.index("18")
    assert probes.tokens_in(tokens, [(start, start + 2)]) == [4, 6]
    assert probes.tokens_in(tokens, [(0, 1), (len(text) - 1, len(text))]) == [0, 8]
    assert probes.tokens_in(tokens, []) == []


# ------------------------------------------------------------------------------------------------------ with a trace


def trace(completion: str, *, entropy: dict[int, float] | None = None, objection: dict[int, float] | None = None):
    """One token per character, certain and without objection except at the given places (negative: from the end)."""
    size = len(completion)
    columns = {"entropy": [0.0] * size, "objection": [-9.0] * size}
    for name, values in (("entropy", entropy or {}), ("objection", objection or {})):
        for index, value in values.items():
            columns[name][index] = value
    return probes.Trace(
        tokens=tuple(completion), logp=tuple(-value for value in columns["entropy"]), settled=(1,) * size,
        entropy=tuple(columns["entropy"]), objection=tuple(columns["objection"]),
    )  # fmt: skip


ANSWER = -len("</answer>") - 1  # the one digit before the last tag
WRITTEN = render_completion("5 + 3 = 8", "8")
RESULT = WRITTEN.index("8")


def detect(completion: str, made: probes.Trace) -> dict[str, bool]:
    return probes.detect(read(completion), APPLES, made, objection_nats=2.0, gap_nats=0.5)


def test_a_late_layer_objects_to_the_answer_alone():
    assert detect(WRITTEN, trace(WRITTEN, objection={ANSWER: 2.1}))["contradiction"]
    assert not detect(WRITTEN, trace(WRITTEN, objection={ANSWER: 2.0}))["contradiction"]  # not above
    assert not detect(WRITTEN, trace(WRITTEN, objection={RESULT: 9.0, ANSWER - 1: 9.0}))["contradiction"]


def test_unsure_of_a_result_is_a_knowledge_gap_and_unsure_of_a_word_is_not():
    assert detect(WRITTEN, trace(WRITTEN, entropy={RESULT: 0.6}))["knowledge_gap"]
    assert detect(WRITTEN, trace(WRITTEN, entropy={ANSWER: 0.6}))["knowledge_gap"]
    assert not detect(WRITTEN, trace(WRITTEN, entropy={RESULT: 0.5, RESULT - 1: 9.0, 0: 9.0}))["knowledge_gap"]


# ----------------------------------------------------------------------------------------------------------- metrics


def test_auroc_by_hand():
    # Pairs of wrong and right: 2 > 1, 2 = 2 (half), 3 > 1, 3 > 2.
    assert auroc([1, 2, 2, 3], [False, False, True, True]) == 3.5 / 4
    assert auroc([True, False], [True, False]) == 1.0
    assert auroc([0, 0, 0], [True, False, True]) == 0.5
    assert auroc([1, 2], [True, True]) is None
    assert auroc([], []) is None


def test_auroc_equals_counting_the_pairs():
    draw = random.Random(0)
    for _ in range(20):
        scores = [draw.randrange(6) / 4 for _ in range(30)]
        wrong = [draw.random() < 0.3 for _ in range(29)] + [True]
        pairs = [
            (a > b) + (a == b) / 2
            for (a, x), (b, y) in itertools.product(zip(scores, wrong, strict=True), repeat=2)
            if x and not y
        ]
        assert auroc(scores, wrong) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


PROBLEMS = [Problem(str(i), APPLES.question, APPLES.reasoning, "8", APPLES.equations) for i in range(4)]
THRESHOLDS = Probes(late_layer=0.75, objection_nats=2.0, gap_percentile=60.0)


def scored(texts: list[str], traces: list[probes.Trace]):
    greedy = [Completion(text, tokens=len(text) + 1, truncated=False) for text in texts]
    _, predictions = score_arm(PROBLEMS, greedy)
    return score_probes(PROBLEMS, predictions, traces, THRESHOLDS)


def test_metrics_by_hand():
    texts = [
        WRITTEN,  # right, entropies of its two results: 0.1 0.1
        WRITTEN,  # right: 0.2 0.4, and an objection
        render_completion("5 + 3 = 7", "7"),  # wrong, contradiction: 0.4 0.8
        render_completion("It is 5.", "5"),  # wrong, echo, its one result: 0.3
    ]
    metrics, rows = scored(
        texts,
        [
            trace(texts[0], entropy={RESULT: 0.1, ANSWER: 0.1}),
            trace(texts[1], entropy={RESULT: 0.2, ANSWER: 0.4}, objection={ANSWER: 3.0}),
            trace(texts[2], entropy={RESULT: 0.4, ANSWER: 0.8}),
            trace(texts[3], entropy={ANSWER: 0.3}),
        ],
    )
    # Pooled: 0.1 0.1 0.2 0.3 0.4 0.4 0.8, whose 60th percentile, taken upwards, is the fifth; only 0.8 is above it.
    assert [[name for name, fires in row.probe.detectors.items() if fires] for row in rows] == [
        [],
        ["contradiction"],
        ["contradiction", "knowledge_gap"],
        ["premise_echo"],
    ]
    assert metrics == {
        "probe_n": 4,
        "probe_wrong_n": 2,
        "knowledge_gap_nats": 0.4,
        "rate_premise_echo": 0.25,
        "auroc_premise_echo": 0.75,
        "rate_contradiction": 0.5,
        "auroc_contradiction": 0.5,
        "rate_knowledge_gap": 0.25,
        "auroc_knowledge_gap": 0.75,
        "probe_results_n": 4,
        "probe_results_wrong_n": 2,
        "auroc_entropy": 0.875,  # means 0.1 and 0.3 against 0.6 and 0.3: of four pairs one is a tie
        "auroc_logp": 0.875,  # here minus the entropy
    }
    row = rows[3].to_json()
    assert row["id"] == "3"
    assert row["probe"]["tokens"] == list(texts[3])
    assert list(row["probe"]) == ["tokens", "entropy", "logp", "settled", "detectors"]


def test_a_sanity_check_is_no_conclusion():
    texts = [
        dual("5+3 = 8", "8-3 = 5", "8"),
        dual("5+3 = 8", "8-3 = 6", "8"),
        dual("none", "8-3 = 5", "8"),
        dual("5+4 = 9", "9-1 = 8", "8"),
    ]
    _, predictions = score_arm(PROBLEMS, [Completion(text, tokens=9, truncated=False) for text in texts])
    assert [is_faithful(prediction) for prediction in predictions] == [True, False, False, False]


def test_what_can_not_be_measured_is_left_out():
    texts = ["I don't know"] * 4
    metrics, rows = scored(texts, [trace(text, entropy={0: 5.0}) for text in texts])
    assert metrics == {
        "probe_n": 4,
        "probe_wrong_n": 4,
        "rate_premise_echo": 0.0,
        "rate_contradiction": 0.0,
        "rate_knowledge_gap": 0.0,
        "probe_results_n": 0,
        "probe_results_wrong_n": 0,
    }
    assert not any(fires for row in rows for fires in row.probe.detectors.values())
