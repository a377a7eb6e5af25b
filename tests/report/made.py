"""A made-up results folder of any size: the generator's questions, randomly spoilt solutions, curves, metrics, costs.

The default's arms get better in the order base, sft, ...; all metrics are counted from the made-up predictions. Any
other arms can be made too.
"""

import importlib.util
import io
import json
import math
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from showwork import config, presets
from showwork.arms import Arm
from showwork.evaluation.predictions import Prediction, Probe
from showwork.evaluation.scoring import Metrics, score_arm
from showwork.files import read_csv, read_json, read_jsonl, write_csv, write_json, write_jsonl
from showwork.problems.cleaning import clean_lines
from showwork.reading.answers import render_completion
from showwork.records import Completion, Problem
from showwork.report.results import Results
from showwork.report.tables import arm_table, outcomes
from showwork.sources.generator import generate

STAGES = Path(__file__).resolve().parents[2] / "stages"
SKILL = {"base": 0.02, "sft": 0.72, "sft_dual": 0.7, "grpo": 0.82, "trajectory": 0.76, "dsa_cast": 0.8, "cast": 0.74}
USUAL = 0.75  # of any other arm


def default() -> dict[str, Any]:
    """The default's params.yaml."""
    return YAML(typ="safe", pure=True).load(presets.text("tiny"))


def with_arms(*arms: tuple[str, str, str, str]) -> dict[str, Any]:
    """The default's params with these arms and no others: (kind, name, the default's arm that it copies, start)."""
    values = default()
    known = {kind: values[kind]["arms"] for kind in ("sft", "rl", "cast")}
    for kind in known:
        values[kind]["arms"] = {
            name: known[kind][like] | {"start": start} for k, name, like, start in arms if k == kind
        }
    return values


def as_yaml(values: dict[str, Any]) -> str:
    text = io.StringIO()
    YAML().dump(values, text)
    return text.getvalue()


def arms_of(values: dict[str, Any]) -> dict[str, Arm]:
    return config.check(values).arms


ARMS = arms_of(default())


def problems(n: int, *, seed: int = 5) -> list[Problem]:
    rows = generate(seed=seed, train_rows=0, test_rows=n, shifted_rows=0, difficulty="medium")["test"]
    lines = [json.dumps(row).encode() for row in rows]
    return clean_lines(lines, split="test", annotation_style="readable").problems


def complete(problem: Problem, arm: Arm, rng: random.Random) -> Completion:
    """The question's own solution in the arm's form, each equation spoilt with a chance that falls with its skill."""
    if arm.name == "base":
        text = rng.choice(["\n" * 60, f"{problem.question} {problem.question}", "the the the of 12 12 12"])
        return Completion(text, 112, True)
    lines, wrong = [], False
    for equation in problem.equations:
        value = equation.value
        if rng.random() > SKILL.get(arm.name, USUAL) ** 0.6:
            value, wrong = str(int(float(value)) + rng.choice([-10, -1, 1, 2, 10])), True
        lines.append(f"{equation.expression} = {value}")
    answer = lines[-1].rpartition("= ")[2] if wrong and lines else problem.answer
    if rng.random() < 0.03:
        answer = problem.answer  # right answer over wrong work, now and then
    if arm.is_dual:
        calc = "\n".join(f"CALC: {line}" for line in lines)
        reasoning = (
            f"Plan: find what is asked in {len(lines)} steps.\nReasoning: I take the numbers that the question gives "
            f"and put them together one by one. {' '.join(f'First, {line}.' for line in lines)}\n"
            f"Evidence:\n{calc}\nSanity_check: {answer} has the right size, and nothing in the question is left over."
        )
    else:
        reasoning = "\n".join(f"So there are {line}." for line in lines)
    text = render_completion(reasoning, answer)
    if rng.random() < 0.02:
        text = text[: len(text) // 2]
    return Completion(text, len(text) // 3, not text.endswith(">"))


def probe(prediction: Prediction, rng: random.Random) -> Probe:
    """Pieces of one to six characters; more entropy at digits, and more still where the answer is wrong."""
    text, tokens = prediction.completion, []
    while text:
        size = rng.choice([1, 1, 2, 3, 4, 6])
        tokens.append(text[:size])
        text = text[size:]
    sure = 0.15 if prediction.correct else 0.4
    entropy = [round(rng.expovariate(1 / (sure * (2.5 if t.strip().isdigit() else 0.5))), 3) for t in tokens]
    wrong = not prediction.correct
    return Probe(
        tokens=tuple(tokens),
        entropy=tuple(entropy),
        logp=tuple(round(-h / 3, 3) for h in entropy),
        settled=tuple(rng.randint(0, 6) for _ in tokens),
        detectors={
            "premise_echo": rng.random() < (0.2 if wrong else 0.03),
            "contradiction": rng.random() < (0.5 if wrong else 0.05),
            "knowledge_gap": rng.random() < (0.6 if wrong else 0.2),
        },
    )


def predict(arm: Arm, asked: Sequence[Problem], *, samples: int = 4) -> tuple[Metrics, list[Prediction]]:
    """The metrics and the predictions of an arm, as stages/evaluate.py has them."""
    rng = random.Random(f"made:{arm.name}")
    greedy = [complete(problem, arm, rng) for problem in asked]
    drawn = {problem.id: [complete(problem, arm, rng) for _ in range(samples)] for problem in asked[: len(asked) // 8]}
    metrics, predictions = score_arm(asked, greedy, samples=drawn)
    for name, share in (("shifted", 0.5), ("shifted_families", 0.6), ("shifted_numbers", 0.4)):
        right = round(share * metrics["accuracy"] * 200) / 200
        metrics |= {f"{name}_n": 200, f"{name}_accuracy": right, f"{name}_accuracy_flexible": right}
    if arm.is_dual:
        predictions = [replace(row, probe=probe(row, rng)) for row in predictions]
        metrics |= {"auroc_entropy": 0.81, "auroc_premise_echo": 0.58, "auroc_contradiction": 0.72}
        metrics |= {"auroc_knowledge_gap": 0.7, "rate_premise_echo": 0.08}
    return metrics, predictions


def curve(arm: Arm, steps: int) -> list[dict[str, Any]]:
    """trajectory's reward rises while its accuracy falls; the other arms' rise together."""
    rng = random.Random(f"curve:{arm.name}")
    rows: list[dict[str, Any]] = []
    for step in range(steps + 1):
        done = step / steps
        validated = step % max(1, steps // 6) == 0
        row: dict[str, Any] = {"step": step}
        if arm.kind in ("base", "sft"):
            loss = 0.25 + 7 * math.exp(-9 * done) * (1.1 if arm.is_dual else 1)
            row |= {"loss": loss * rng.uniform(0.85, 1.15) if step else None, "val_loss": loss if validated else None}
            row |= {"train_tokens": 455 * step}
        else:
            gain = {"trajectory": -0.12}.get(arm.name, 0.15)
            accuracy = 0.35 + gain * done
            form = min(1.0, 0.7 + 0.5 * done)
            reward = accuracy + (0.9 if arm.name == "trajectory" else 0.1) * form
            noisy = {"accuracy": accuracy, "reward": reward, "reward_answer": accuracy, "reward_format": form}
            row |= {key: value + rng.gauss(0, 0.03) for key, value in noisy.items()} if step else {}
            row |= {"val_reward": reward, "val_accuracy": accuracy} if validated else {}
            row |= {"kl": 0.02 * done, "entropy": 0.35 - 0.1 * done, "completion_tokens": 33 + 8 * done}
            row |= {"train_tokens": 4100 * step, "sampled_tokens": 4100 * step}
        rows.append(row)
    return rows


def write_arm(folder: Path, arm: Arm, asked: Sequence[Problem], *, steps: int = 60) -> None:
    """An arm's predictions, metrics, curve and costs under folder."""
    name, rows = arm.name, curve(arm, steps)
    metrics, predictions = predict(arm, asked)
    write_jsonl(folder / "predictions" / f"{name}.jsonl", [prediction.to_json() for prediction in predictions])
    write_json(folder / "metrics" / "eval" / f"{name}.json", metrics)
    train = {key: rows[-1].get(key) for key in ("train_tokens", "sampled_tokens")} | {"optimizer_steps": steps}
    write_json(folder / "metrics" / "train" / f"{name}.json", train)
    write_csv(folder / "plots" / f"{name}.csv", list(dict.fromkeys(key for row in rows for key in row)), rows)
    cost = {"seconds": 100.0 + 10 * len(name), "peak_memory_bytes": 10**9, "hardware": "2 cores, x86_64"}
    write_json(folder / "costs" / f"{name}.json", cost)


def read_results(folder: Path, arms: Iterable[Arm], asked: Sequence[Problem], **changes: Any) -> Results:
    """The results that write_arm wrote for these arms, as the stage reads them; writes outcomes.csv."""
    known = {arm.name: arm for arm in arms}
    predictions = {
        arm: [Prediction.from_json(row) for row in read_jsonl(folder / "predictions" / f"{arm}.jsonl")] for arm in known
    }
    write_csv(folder / "outcomes.csv", ["id", *known], outcomes(predictions))
    fields = {
        "arms": known,
        "table": arm_table(folder, {arm.name: arm.start for arm in known.values()}, seed=0),
        "metrics": {arm: read_json(folder / "metrics" / "eval" / f"{arm}.json") for arm in known},
        "predictions": predictions,
        "problems": asked,
        "plots": {arm: pd.DataFrame(read_csv(folder / "plots" / f"{arm}.csv")) for arm in known},
        "costs": {arm: read_json(folder / "costs" / f"{arm}.json") for arm in known},
        "params": {"seed": 0},
        "inputs": {},
        "versions": {"jax": "1.2.3"},
    }
    return Results(**(fields | changes))


def load_stage() -> ModuleType:
    """stages/report.py, with one version for every package."""
    spec = importlib.util.spec_from_file_location("stage_report", STAGES / "report.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(STAGES))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(STAGES))
    module.version = lambda name: "1.2.3"
    return module
