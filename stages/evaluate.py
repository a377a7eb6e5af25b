"""Evaluates one arm on the test questions: data/clean/{test,shifted}.jsonl, models/ARM → predictions, metrics."""

import functools
import sys
from pathlib import Path

import jax

import _path  # noqa: F401
from showwork import config, devices, rollout, stage
from showwork import tokenizer as tokenizers
from showwork.errors import UserError
from showwork.evaluation.probing import take_traces
from showwork.evaluation.scoring import score_arm, score_probes, score_shifted
from showwork.files import write_json, write_jsonl
from showwork.models import checkpoints
from showwork.names import suggest
from showwork.problems.stored import read_problems

CLEAN = Path("data/clean")


def main(name: str) -> None:
    params = config.load()
    if name not in params.arms:
        raise UserError(f"params.yaml has no arm {name}; {suggest(name, list(params.arms))}")
    evaluate, folder = params.evaluate, Path("models") / name
    problems, shifted = (read_problems(CLEAN / f"{split}.jsonl") for split in ("test", "shifted"))
    model, _ = checkpoints.load(folder, mesh=devices.make_mesh(params.hardware.mesh))
    tokenizer, system = tokenizers.load(folder), params.system(name)
    completer = rollout.Completer(
        model, tokenizer, system, checkpoints.stop_ids(folder), max_tokens=evaluate.max_completion_tokens,
        rows_per_call=evaluate.rows_per_call,
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
        traces = take_traces(
            model,
            tokenizer,
            problems,
            texts,
            system=system,
            late_layer=evaluate.probes.late_layer,
            name=f"evaluate {name}",
        )
        found, predictions = score_probes(problems, predictions, traces, evaluate.probes)
        metrics |= found
    write_jsonl(Path(f"results/predictions/{name}.jsonl"), [prediction.to_json() for prediction in predictions])
    write_json(Path(f"results/metrics/eval/{name}.json"), metrics)


if __name__ == "__main__":
    stage.run(f"evaluate-{sys.argv[1]}", lambda: main(sys.argv[1]))
