"""Evaluates one arm on the test questions: data/clean/{test,shifted}.jsonl, models/ARM → predictions, metrics."""

import functools
import sys
from pathlib import Path

import jax

from showwork import config, rollout, stage, tokenizer, tunix_adapter
from showwork.evaluation.probing import take_traces
from showwork.evaluation.scoring import score_arm, score_probes, score_shifted
from showwork.files import read_jsonl, write_json, write_jsonl
from showwork.models import checkpoints
from showwork.records import Problem


def read(split: str) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]


def main(arm: str) -> None:
    params = config.load()
    evaluate, folder = params.evaluate, Path("models") / arm
    problems, shifted = read("test"), read("shifted")
    model, _ = checkpoints.load(folder, mesh=tunix_adapter.make_mesh(params.hardware.mesh))
    pieces, system = tokenizer.load(folder), params.prompt.of(arm)
    completer = rollout.Completer(
        model, pieces, system, checkpoints.stop_ids(folder), max_tokens=evaluate.max_completion_tokens,
        rows_per_call=evaluate.rows_per_call,
    )  # fmt: skip
    key = jax.random.fold_in(jax.random.key(params.seed), 3)
    complete = functools.partial(completer, key=key, name=f"evaluate {arm}")
    greedy = complete([*problems, *shifted], sampling=rollout.Sampling(greedy=True), generations=1)
    greedy, elsewhere = greedy[: len(problems)], greedy[len(problems) :]
    part = problems[: evaluate.sampled_questions]
    drawn = complete(part, sampling=rollout.Sampling(temperature=evaluate.temperature), generations=evaluate.samples)
    samples = {problem.id: completions for problem, completions in zip(part, drawn, strict=True)}
    metrics, predictions = score_arm(problems, [row for (row,) in greedy], samples=samples)
    metrics |= score_shifted(shifted, [row for (row,) in elsewhere])
    if arm in config.DUAL_ARMS and evaluate.probes:
        texts = [completion.text for (completion,) in greedy]
        traces = take_traces(
            model, pieces, problems, texts, system=system, late_layer=evaluate.probes.late_layer, name=f"evaluate {arm}"
        )
        found, predictions = score_probes(problems, predictions, traces, evaluate.probes)
        metrics |= found
    write_jsonl(Path(f"results/predictions/{arm}.jsonl"), predictions)
    write_json(Path(f"results/metrics/eval/{arm}.json"), metrics)


if __name__ == "__main__":
    stage.run(f"evaluate-{sys.argv[1]}", lambda: main(sys.argv[1]))
