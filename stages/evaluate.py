"""Evaluates one arm on the test questions: data/clean/test.jsonl, models/ARM → its predictions and metrics."""

import sys
from pathlib import Path

import jax

from showwork import config, rollout, stage, tokenizer
from showwork.evaluation.scoring import score_arm
from showwork.files import read_jsonl, write_json, write_jsonl
from showwork.models import checkpoints
from showwork.records import Problem


def main(arm: str) -> None:
    params = config.load()
    evaluate, folder = params.evaluate, Path("models") / arm
    problems = [Problem.from_json(row) for row in read_jsonl(Path("data/clean/test.jsonl"))]
    model, _ = checkpoints.load(folder)
    complete = rollout.Completer(
        model, tokenizer.load(folder), system=params.prompt.system, stop_ids=checkpoints.stop_ids(folder),
        max_tokens=evaluate.max_completion_tokens, rows_per_call=evaluate.rows_per_call,
        key=jax.random.fold_in(jax.random.key(params.seed), 3), name=f"evaluate {arm}",
    )  # fmt: skip
    greedy = complete(problems, sampling=rollout.Sampling(greedy=True), generations=1)
    part = problems[: evaluate.sampled_questions]
    drawn = complete(part, sampling=rollout.Sampling(temperature=evaluate.temperature), generations=evaluate.samples)
    samples = {problem.id: completions for problem, completions in zip(part, drawn, strict=True)}
    metrics, predictions = score_arm(problems, [row for (row,) in greedy], samples=samples)
    write_jsonl(Path(f"results/predictions/{arm}.jsonl"), predictions)
    write_json(Path(f"results/metrics/eval/{arm}.json"), metrics)


if __name__ == "__main__":
    stage.run(f"evaluate-{sys.argv[1]}", lambda: main(sys.argv[1]))
