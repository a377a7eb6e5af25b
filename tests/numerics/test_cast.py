"""The self-teaching loop: kept rows and next problems by hand; it learns, rejects a harmful round, and resumes."""

import dataclasses
import functools
import json
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from showwork import config, rollout
from showwork.problems.variants import make_variant, question_mark
from showwork.reading.answers import render_completion
from showwork.reading.completion import Reading
from showwork.reading.dual import write_monologue
from showwork.records import Completion, Equation, Problem
from showwork.training import cast, selection
from showwork.training.arms import LoadedArm
from showwork.training.curves import Curve
from showwork.training.passes import Split
from showwork.training.run import Run
from showwork.tunix_adapter import gemma, parameters, supervised
from tests.numerics.conftest import ONE_DEVICE, flat, with_lora

# ------------------------------------------------------------------------------------------------- what is kept


def problem(number: int, left: int, operator: str, right: int) -> Problem:
    value = {"+": left + right, "-": left - right}[operator]
    said = {"+": "gets", "-": "eats"}[operator]
    question = f"Tom has {left} pies and {said} {right}. How many has he?"
    return Problem(str(number), question, f"He has {left}{operator}{right} = {value}.", str(value), (
        Equation(f"{left}{operator}{right}", str(value)),
    ))  # fmt: skip


PIES = problem(0, 7, "+", 5)
MONOLOGUE = render_completion(write_monologue(PIES), "12")
BARE = render_completion("Plan: none\nReasoning: It is 12.\nEvidence: none\nSanity_check: none", "12")


def said(text: str, *, truncated: bool = False) -> Completion:
    return Completion(text, tokens=10, truncated=truncated)


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        (said(MONOLOGUE), "sound"),
        (said(MONOLOGUE, truncated=True), "format"),
        (said(MONOLOGUE + " 12"), "format"),
        (said(render_completion("He has 7+5 = 12.", "12")), "format"),  # right, but not in four sections
        (said(MONOLOGUE.replace("<answer>12", "<answer>13")), "wrong"),
        (said(BARE), "not_shown"),
        (said(MONOLOGUE.replace("CALC: 7+5 = 12", "CALC: 7+5 = 12\nCALC: 7+6 = 12")), "contradiction"),
        (said(MONOLOGUE.replace("7+5 = 12", "7+4 = 11")), "contradiction"),  # right by luck
    ],
)
def test_only_what_is_right_and_shown_is_sound(completion, verdict):
    assert selection.verdict(completion, PIES) == verdict


def test_each_sound_text_is_kept_once_and_few_of_a_problem():
    others = [MONOLOGUE.replace("Plan: ", f"Plan: {word} ") for word in ("first", "now", "so")]
    wrong = MONOLOGUE.replace("<answer>12", "<answer>13")
    texts = [MONOLOGUE, wrong, MONOLOGUE, *others]
    kept = selection.keep([(PIES, [said(text) for text in texts])], per_problem=3)
    assert kept == [(PIES.question, text) for text in (MONOLOGUE, *others[:2])]


RIGHT, WRONG = "<answer>12</answer>", "<answer>99</answer>"


def attempts() -> list[tuple[Problem, list[Completion]]]:
    """Two sums, solved 2 of 2 and 1 of 2 times; two differences, 1 of 2 and 0 of 2."""
    asked = [problem(1, 7, "+", 5), problem(2, 9, "+", 3), problem(3, 15, "-", 3), problem(4, 18, "-", 6)]
    answers = [[RIGHT, RIGHT], [RIGHT, WRONG], [WRONG, RIGHT], [WRONG, WRONG]]
    return [(p, [said(text) for text in texts]) for p, texts in zip(asked, answers, strict=True)]


def test_the_analysis_counts_by_kind():
    found = selection.analyse(attempts())
    assert found["completions"] == 8
    assert found["accuracy"] == {"all": 4 / 8, "operations +": 3 / 4, "operations -": 1 / 4, "steps 1": 4 / 8}
    assert found["n"] == {"all": 8, "operations +": 4, "operations -": 4, "steps 1": 8}
    assert found["verdicts"] == {"format": 8}
    assert found["detectors"] == {"contradiction": 0, "premise_echo": 0}
    assert selection.analyse([])["completions"] == 0


def test_what_failed_comes_weakest_kind_first():
    # Differences are right at 1/4, sums at 3/4; problem 1 never failed.
    assert [p.id for p in selection.weakest_first(attempts())] == ["4", "3", "2"]
    # Ties keep their order: ids are hashes, so their order means nothing.
    *_, (never_solved, texts) = attempts()
    equals = [(dataclasses.replace(never_solved, id=name), texts) for name in ("b", "c", "a")]
    assert [p.id for p in selection.weakest_first(equals)] == ["b", "c", "a"]


def test_new_problems_go_round_the_failed_ones():
    failed = selection.weakest_first(attempts())
    none = Problem("5", "How many?", "Two.", "2", ())
    made, refused = selection.make_variants([*failed, none], 5, seed=0, step=1, taken=set())
    assert [v.id for v in made] == ["4~4", "3~4", "2~4", "4~5", "3~5"]
    assert refused == {"no_equation": 1}
    assert len({v.question for v in made}) == 5
    first = make_variant(failed[0], seed=0, number=4)
    again, _ = selection.make_variants(failed[:1], 1, seed=0, step=1, taken={question_mark(first)})
    assert again[0].question != first.question


# ------------------------------------------------------------------------------------------------- the loop

PROBLEMS = [problem(i, i + 4, "+", 3) for i in range(12)]
STEPS = 16
OPTIMIZER = {
    "learning_rate": 0.02, "warmup_ratio": 0.0, "final_ratio": 1.0, "b1": 0.9, "b2": 0.99, "weight_decay": 0.0,
    "max_grad_norm": 1.0,
}  # fmt: skip
CAST: dict[str, Any] = {
    "start": "sft_dual", "prompt": "dual", "adapter": None, "rounds": 2, "problems_per_round": 8,
    "variants_per_round": 8, "generations": 4, "keep_per_problem": 2, "replay_share": 0.0,
    "replay_styles": {"dual": 1.0},
    "validation_problems": 8,
    "training": {
        "optimizer": OPTIMIZER, "steps": STEPS, "rows_per_step": 2, "max_tokens": 96,
        "validate_every_steps": 3, "checkpoint_every_steps": 1,
    },
    "rollout": {
        "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_prompt_tokens": 64, "max_completion_tokens": 8,
        "rows_per_call": 32,
    },
}  # fmt: skip


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    """Each round's trainer is a new function to JAX; as in the stage, its program comes from the compilation cache."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def pupil(spec, words) -> nnx.Module:
    shallow = dataclasses.replace(spec, layers=1, global_layers=(0,))
    model = gemma.build_model(shallow, vocabulary=len(words), dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    return model


@pytest.fixture
def likes_e(monkeypatch):
    """A text is right if it contains an "e": an untrained model writes some such texts and can learn to write more."""
    monkeypatch.setattr(Reading, "is_correct", lambda reading, gold: "e" in reading.text)
    monkeypatch.setattr(selection, "verdict", lambda c, p: "sound" if "e" in c.text else "wrong")


def teach(pupil: nnx.Module, words: Any, folder: Path, **changes: Any) -> tuple[np.ndarray, bytes, str]:
    """Weights, curve, and metrics with story, after a run that starts from a copy of the pupil."""
    model, settings = nnx.clone(pupil, arrays=True), config.Cast.model_validate(CAST | changes)
    folder.mkdir(exist_ok=True)
    curve = Curve(folder / "plot.csv", folder / "kept.csv", cast.COLUMNS)
    run = Run("cast", 0, ONE_DEVICE, Split(1, 96, 32), folder, curve)
    arm = LoadedArm(settings, model, None, words, "", (words.eos_id(),), ONE_DEVICE)
    told = cast.train(arm, PROBLEMS, PROBLEMS[:8], [], run, taken=set())
    return flat(nnx.state(model, nnx.Param)), (folder / "plot.csv").read_bytes(), json.dumps(told)


@pytest.mark.slow  # it compiles five trainers
def test_it_teaches_and_goes_on_where_it_was_killed(pupil, words, tmp_path, monkeypatch, likes_e):
    whole = teach(pupil, words, tmp_path / "whole")
    metrics = json.loads(whole[2])[0]
    assert metrics["val_accuracy"] > metrics["val_accuracy_start"]
    assert metrics["optimizer_steps"] == 2 * STEPS

    trainer, steps = supervised.SupervisedTrainer, []
    step = trainer._post_process_train_step

    def dying(self: Any, aux: Any) -> None:
        step(self, aux)
        steps.append(None)
        if len(steps) == STEPS + 2:  # in the middle of the second round
            raise Killed

    monkeypatch.setattr(trainer, "_post_process_train_step", dying)
    with pytest.raises(Killed):
        teach(pupil, words, tmp_path / "killed")
    resumed = teach(pupil, words, tmp_path / "killed")
    np.testing.assert_array_equal(resumed[0], whole[0])
    assert resumed[1:] == whole[1:]
    # Nothing of the first round was repeated; of the second, only the steps after its last checkpoint. The checkpoint
    # of step 1 is written while step 2 runs, and may be missing when the run is killed.
    again = len(steps) - (STEPS + 2)
    assert again in (STEPS - 1, STEPS)

    # A finished run rests.
    monkeypatch.setattr(rollout, "generate", None)
    rested = teach(pupil, words, tmp_path / "killed")
    np.testing.assert_array_equal(rested[0], whole[0])
    assert rested[1:] == whole[1:]
    assert len(steps) - (STEPS + 2) == again


@pytest.mark.parametrize("is_adapted", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["full", "lora"])
def test_a_round_that_hurts_is_thrown_away(pupil, words, tmp_path, monkeypatch, likes_e, is_adapted):
    first = []

    def is_as_at_first(text: str, gold: str) -> bool:
        first.extend([text] * (len(first) < 8))
        return text in first

    # In validation alone.
    monkeypatch.setattr(
        cast, "read", lambda text: types.SimpleNamespace(is_correct=functools.partial(is_as_at_first, text))
    )
    wild = CAST["training"] | {"optimizer": OPTIMIZER | {"learning_rate": 100.0}, "steps": 1}
    pupil = with_lora(pupil) if is_adapted else pupil
    weights, curve, told = teach(pupil, words, tmp_path, training=wild, rounds=1)
    assert curve.decode().splitlines()[1].startswith("0,1,1,")
    assert curve.decode().splitlines()[2].startswith("1,0,0,")
    assert json.loads(told)[0]["val_accuracy"] == 1
    np.testing.assert_array_equal(weights, flat(nnx.state(pupil, nnx.Param)))


def test_two_rounds_in_a_row_that_do_not_help_are_the_last(pupil, words, tmp_path, likes_e, monkeypatch):
    monkeypatch.setattr(selection, "verdict", lambda completion, problem: "wrong")  # nothing to learn from
    weights, _, told = teach(pupil, words, tmp_path, rounds=5)
    metrics, story = json.loads(told)
    assert (metrics["rounds"], metrics["best_round"], metrics["optimizer_steps"]) == (2, 0, 0)
    assert [row["round"] for row in story if row["kind"] == "analysis"] == [1, 2]
    np.testing.assert_array_equal(weights, flat(nnx.state(pupil, nnx.Param)))
