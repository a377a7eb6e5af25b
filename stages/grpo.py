"""GRPO: data/clean, models/START → models/grpo, its curve, metrics and watched samples."""

from pathlib import Path

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.files import read_jsonl, write_json, write_jsonl
from showwork.models import checkpoints
from showwork.records import Problem
from showwork.training import rl
from showwork.training.curves import Curve

NAME = "grpo"


def problems(split: str) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]


def main() -> None:
    params = config.load()
    arm = params.grpo
    start, out = Path("models") / arm.start, Path("models") / NAME
    words, stop_ids = tokenizer.load(start), checkpoints.stop_ids(start)
    (model, spec), (reference, _) = checkpoints.load(start), checkpoints.load(start)
    if arm.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), 2)
        model = tunix_adapter.add_lora(model, rank=arm.adapter.rank, alpha=arm.adapter.alpha, key=key)
    with stage.scratch(NAME) as scratch:
        metrics = rl.train(
            model, reference, problems("train"), problems("val")[: arm.validation_problems], arm,
            tokenizer=words, system=params.prompt.system, stop_ids=stop_ids, seed=params.seed,
            mesh=tunix_adapter.make_mesh(params.hardware.mesh), checkpoints=scratch / "state",
            curve=Curve(Path(f"results/plots/{NAME}.csv"), scratch / "curve.csv", rl.columns(arm)),
            watched=scratch / "watched",
        )  # fmt: skip
        write_jsonl(Path(f"results/samples/{NAME}.jsonl"), rl.collect_watched(scratch / "watched"))
        adapter = (arm.adapter.rank, arm.adapter.alpha) if arm.adapter else None
        checkpoints.save(model, out, spec=spec, stop_ids=stop_ids, adapter=adapter)
        checkpoints.copy_tokenizer(start, out)
        write_json(Path(f"results/metrics/train/{NAME}.json"), metrics)


if __name__ == "__main__":
    stage.run(NAME, main)
