"""Evaluates one arm on the test questions: data/clean/{test,shifted}.jsonl, models/ARM → predictions, metrics.

With evaluate.few_shot, base is asked a second time, after solved rows of data/clean/train.jsonl.
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax

import _path  # noqa: F401
from showwork import config, devices, rollout, stage
from showwork import tokenizer as tokenizers
from showwork.arms import BASE
from showwork.errors import UserError
from showwork.evaluation import few_shot
from showwork.evaluation.predictions import Prediction
from showwork.evaluation.probing import take_traces
from showwork.evaluation.scoring import Metrics, score_arm, score_few_shot, score_probes, score_shifted
from showwork.files import write_json, write_jsonl
from showwork.models import checkpoints
from showwork.names import suggest
from showwork.problems.stored import read_problems
from showwork.records import Problem

CLEAN = Path("data/clean")


def main(name: str) -> None:
    params = config.load()
    if name not in params.arms:
        raise UserError(f"params.yaml has no arm {name}; {suggest(name, list(params.arms))}")
    evaluate, folder = params.evaluate, Path("models") / name
    problems, shifted = (read_problems(CLEAN / f"{split}.jsonl") for split in ("test", "shifted"))
    examples = choose_examples(params, [*problems, *shifted]) if name == BASE else []
    mesh = devices.make_mesh(params.hardware.mesh)
    mesh = devices.rollout_mesh(mesh, tp=params.hardware.rollout_tp)
    model, _ = checkpoints.load(folder, dtype=params.model.dtype, mesh=mesh)
    tokenizer, system = tokenizers.load(folder), params.system(name)
    completer = rollout.Completer(
        model, tokenizer, system, checkpoints.stop_ids(folder), max_tokens=evaluate.max_completion_tokens,
        rows_per_call=evaluate.rows_per_call, mesh=mesh,
    )  # fmt: skip
    key = jax.random.fold_in(jax.random.key(params.seed), 3)
    complete = functools.partial(completer, key=key, name=f"evaluate {name}")
    greedy = complete([*problems, *shifted], sampling=rollout.Sampling(greedy=True), generations=1)
    greedy, elsewhere = greedy[: len(problems)], greedy[len(problems) :]
    part = problems[: evaluate.sampled_questions]
    drawn = complete(part, sampling=rollout.Sampling(temperature=evaluate.temperature), generations=evaluate.samples)
    samples = {problem.id: completions for problem, completions in zip(part, drawn, strict=True)}
    metrics, predictions = score_arm(problems, [row for (row,) in greedy], samples=samples)
    metrics |= score_shifted(shifted, [row for (row,) in elsewhere])
    if params.arms[name].is_dual and evaluate.probes:
        texts = [prediction.completion for prediction in predictions]
        with devices.use(mesh):
            traces = take_traces(
                model, tokenizer, problems, texts, system=system, late_layer=evaluate.probes.late_layer,
                name=f"evaluate {name}",
            )  # fmt: skip
        found, predictions = score_probes(problems, predictions, traces, evaluate.probes)
        metrics |= found
    if examples:
        found, predictions = ask_after(examples, completer, predictions, problems, shifted)
        metrics |= found
    write_jsonl(Path(f"results/predictions/{name}.jsonl"), [prediction.to_json() for prediction in predictions])
    write_json(Path(f"results/metrics/eval/{name}.json"), metrics)


def choose_examples(params: config.Params, asked: Sequence[Problem]) -> list[Problem]:
    """The solved train rows that base is shown; none with `few_shot: 0`."""
    count = params.evaluate.few_shot
    if not count:
        return []
    return few_shot.choose(read_problems(CLEAN / "train.jsonl"), count=count, unseen=asked, seed=params.seed)


def ask_after(
    examples: Sequence[Problem],
    completer: rollout.Completer,
    predictions: Sequence[Prediction],
    problems: Sequence[Problem],
    shifted: Sequence[Problem],
) -> tuple[Metrics, list[Prediction]]:
    """Metrics of the greedy completions after these examples, and the predictions, each with its completion."""
    asked, tokenizer = [*problems, *shifted], completer.tokenizer
    prompts = {
        problem: [tokenizer.bos_id(), *tokenizer.encode(few_shot.prompt(problem.question, examples))]
        for problem in asked
    }
    rows = few_shot.rows_per_call(
        completer.rows_per_call, columns=max(map(len, map(completer.ids, asked))) + completer.max_tokens,
        longer=max(map(len, prompts.values())) + completer.max_tokens,
    )  # fmt: skip
    found = replace(completer, prompt_ids=prompts.__getitem__, rows_per_call=rows)(
        asked, key=jax.random.key(0), sampling=rollout.Sampling(greedy=True), generations=1,
        name=f"evaluate {BASE} after {len(examples)} examples",
    )  # fmt: skip
    greedy = [few_shot.cut(completion) for (completion,) in found]
    elsewhere = score_shifted(shifted, greedy[len(problems) :])
    return score_few_shot(predictions, problems, greedy[: len(problems)], shifted=elsewhere, shots=len(examples))


if __name__ == "__main__":
    stage.run(f"evaluate-{sys.argv[1]}", lambda: main(sys.argv[1]))
