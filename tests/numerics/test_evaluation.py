"""The stage evaluate on a model of two layers: what base is asked after solved examples, and what is kept of it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from flax import nnx
from ruamel.yaml import YAML

from showwork import files, presets, rollout, tokenizer
from showwork.errors import UserError
from showwork.evaluation import few_shot
from showwork.models import saving
from showwork.models.specs import GemmaSpec
from showwork.prompts import render_prompt
from showwork.records import Problem
from showwork.tunix_adapter import gemma, parameters
from tests.numerics.conftest import SENTENCES

ROOT = Path(__file__).parents[2]
VOCABULARY, TOKENS, EXAMPLES = 320, 12, 2
ASKED = [Problem(f"test-{n}", f"What is {n} plus {n}?", f"{n}+{n}", str(2 * n), ()) for n in (11, 12, 13)]
ELSEWHERE = [Problem("gsm8k_test-1", "What is half of 50?", "50/2 = 25", "25", ())]


def load_stage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stage_evaluate", ROOT / "stages/evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def evaluate(
    tmp_path: Path, spec: GemmaSpec, problems: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict, list[dict]]]:
    """Evaluates base with these changes of params.yaml's `evaluate`: its metrics and its predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "stages")
    tokenizer.save(tokenizer.train(SENTENCES, vocabulary=VOCABULARY), Path("models/base"))
    model = gemma.build_model(spec, vocabulary=VOCABULARY, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    saving.save(model, Path("models/base"), spec=spec, stop_ids=(1,))
    for split, rows in (("train", problems), ("test", ASKED), ("shifted", ELSEWHERE)):
        files.write_jsonl(Path(f"data/clean/{split}.jsonl"), [row.to_json() for row in rows])
    values = YAML(typ="safe").load(presets.text("tiny"))
    values["hardware"]["mesh"] = {"fsdp": 1, "tp": 1}
    values["evaluate"] |= {"max_completion_tokens": TOKENS, "rows_per_call": 8, "sampled_questions": 0, "samples": 1}

    def run(**changes: int) -> tuple[dict, list[dict]]:
        values["evaluate"] |= changes
        with Path("params.yaml").open("w") as file:
            YAML().dump(values, file)
        load_stage().main("base")
        rows = list(files.read_jsonl(Path("results/predictions/base.jsonl")))
        return files.read_json(Path("results/metrics/eval/base.json")), rows

    return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[list[int]], int]]:
    """(prompts without padding, slots) of each call of rollout.generate."""
    found, generate = [], rollout.generate

    def spy(model: nnx.Module, prompts: np.ndarray, **options: object) -> rollout.Generated:
        found.append(([row[row != 0].tolist() for row in prompts], options["slots"].count))
        return generate(model, prompts, **options)

    monkeypatch.setattr(rollout, "generate", spy)
    return found


def test_few_shot_adds_a_measurement_and_changes_none(evaluate, calls, problems) -> None:
    plain, answers = evaluate(few_shot=0)
    assert not any(key.startswith("few_shot") for key in plain)
    assert not any("few_shot" in row for row in answers)
    assert len(calls) == 1
    metrics, rows = evaluate(few_shot=EXAMPLES)
    assert {key: metrics[key] for key in plain} == plain
    assert metrics.keys() - plain.keys() == {
        "few_shot_shots", *(
            f"few_shot_{part}{key}" for part in ("", "shifted_", "shifted_gsm8k_test_")
            for key in ("n", "accuracy", "accuracy_flexible")
        ),
    }  # fmt: skip
    assert (metrics["few_shot_shots"], metrics["few_shot_n"], metrics["few_shot_shifted_n"]) == (EXAMPLES, 3, 1)
    assert [{key: value for key, value in row.items() if key != "few_shot"} for row in rows] == answers
    assert all(row["few_shot"]["tokens"] <= TOKENS for row in rows)
    assert evaluate(few_shot=EXAMPLES) == (metrics, rows)

    words = tokenizer.load(Path("models/base"))
    examples = few_shot.choose(problems, count=EXAMPLES, unseen=[*ASKED, *ELSEWHERE], seed=0)
    first, _ = calls[1]
    second, slots = calls[2]
    assert [words.decode(row[1:]) for row in first] == [
        render_prompt(problem.question, system="") for problem in (*ASKED, *ELSEWHERE)
    ]
    assert [words.decode(row[1:]) for row in second] == [
        few_shot.prompt(problem.question, examples) for problem in (*ASKED, *ELSEWHERE)
    ]
    assert {row[0] for row in second} == {words.bos_id()}
    columns, longer = (max(map(len, prompts)) + TOKENS for prompts in (first, second))
    assert slots in (1, 2, 4)
    assert slots * longer <= 8 * columns < 2 * slots * longer


def test_more_examples_than_train_has_end_it_before_any_work(evaluate, calls) -> None:
    with pytest.raises(UserError, match=r"evaluate\.few_shot takes 7 solved rows of train, and of its 6 only 6 have"):
        evaluate(few_shot=7)
    assert calls == []
