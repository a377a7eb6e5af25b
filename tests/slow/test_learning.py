"""Learning is not leakage: a model improves on the test questions only if train has the true answers.

With a leak, such as a test row in train, a prompt that contains the answer or a lenient scorer, a model that is
trained on wrong answers would improve as well.
"""

import random
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from showwork import devices, presets, rollout, tokenizer
from showwork.evaluation.statistics import paired_difference
from showwork.models.specs import MODELS
from showwork.problems import styles
from showwork.reading.answers import is_correct, matches_format
from showwork.records import Equation, Problem
from showwork.training import data, sft
from showwork.training.curves import Curve
from showwork.training.passes import Split
from showwork.training.run import Run
from showwork.tunix_adapter import gemma, parameters

pytestmark = pytest.mark.slow

TRAIN_ROWS, TEST_ROWS = 2000, 128
STEPS = 400
WARM_START = {
    "steps": STEPS,
    "validate_every_steps": STEPS,
    "checkpoint_every_steps": STEPS,
    "rows_per_step": 16,
    "max_tokens": 48,
}
SMALLER = {
    "sft": {"arms": {"sft": WARM_START}},
    "hardware": {"mesh": {"fsdp": 1, "tp": 1}},
    "tokenizer": {"vocabulary": 310},
}


def problem(left: int, right: int) -> Problem:
    total = str(left + right)
    return Problem(
        f"{left}+{right}", f"How many are {left} and {right}?", f"{left}+{right} = {total}", total,
        (Equation(f"{left}+{right}", total),),
    )  # fmt: skip


def shuffled(problems: list[Problem]) -> list[Problem]:
    """Each question with the reasoning and the answer of another."""
    others = random.Random(1).sample(problems, len(problems))
    return [
        replace(asked, reasoning=other.reasoning, answer=other.answer, equations=other.equations)
        for asked, other in zip(problems, others, strict=True)
    ]


def test_only_true_answers_teach_the_test_questions(tmp_path: Path) -> None:
    params = presets.load("tiny", SMALLER)
    settings, mesh = params.arms["sft"].settings, devices.make_mesh(params.hardware.mesh)
    split = Split.of(params.hardware)
    # Sums from 102 to 998: the same sum for every question is right for 1 in 900, and 6 of 128 would be a gain.
    pairs = [(left, right) for left in range(100, 990) for right in range(2, 10)]
    problems = [problem(*pair) for pair in random.Random(0).sample(pairs, TRAIN_ROWS + TEST_ROWS)]
    train, test = problems[:TRAIN_ROWS], problems[TRAIN_ROWS:]

    texts = [text for row in train for text in (row.question, styles.render(row, "equations"))]
    words = tokenizer.Tokenizer(tokenizer.train(texts, vocabulary=params.tokenizer.vocabulary))
    base = gemma.build_model(MODELS[params.model.name], vocabulary=len(words), dtype=params.model.dtype)
    parameters.draw_weights(base, key=jax.random.key(params.seed))

    def taught(rows: list[Problem], name: str) -> nnx.Module:
        graphdef, state = nnx.split(base)
        model = nnx.merge(graphdef, jax.tree.map(jnp.copy, state))  # training writes over its weights
        examples, too_long = data.encode_examples(
            rows, [styles.render(row, "equations") for row in rows], words,
            system="", stop_id=words.eos_id(), max_tokens=settings.max_tokens,
        )  # fmt: skip
        assert too_long == 0
        curve = Curve(tmp_path / f"{name}.csv", tmp_path / name / "records/curve.csv", sft.COLUMNS)
        sft.train(model, examples, [], settings, Run(name, params.seed, mesh, split, tmp_path / name, curve))
        return model

    def answers(model: nnx.Module) -> list[str]:
        complete = rollout.Completer(model, words, "", (words.eos_id(),), max_tokens=48, rows_per_call=TEST_ROWS)
        greedy = rollout.Sampling(greedy=True)
        completions = complete(test, key=jax.random.key(0), sampling=greedy, generations=1, name="test")
        return [completion.text for (completion,) in completions]

    def right(texts: list[str]) -> list[bool]:
        return [is_correct(text, row.answer) for text, row in zip(texts, test, strict=True)]

    start, true, false = answers(base), answers(taught(train, "true")), answers(taught(shuffled(train), "shuffled"))
    # Both have learned what their data have in common: the format.
    assert all(map(matches_format, [*true, *false]))
    assert paired_difference(right(start), right(true), seed=0).verdict == "better"
    assert paired_difference(right(start), right(false), seed=0).verdict == "no difference"
