"""A policy-gradient arm, ARM = grpo, trajectory or dsa_cast: data/clean, models/START → models/ARM, curve, samples."""

import sys
from pathlib import Path

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.files import read_jsonl, write_json, write_jsonl
from showwork.models import checkpoints
from showwork.records import Problem
from showwork.training import rl
from showwork.training.curves import Curve


def problems(split: str) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]


def main(name: str) -> None:
    params = config.load()
    mesh = tunix_adapter.make_mesh(params.hardware.mesh)
    arm = getattr(params, name)
    start, out = Path("models") / arm.start, Path("models") / name
    words, stop_ids = tokenizer.load(start), checkpoints.stop_ids(start)
    model, spec = checkpoints.load(start, mesh=mesh, remat=params.model.remat)
    reference = checkpoints.load(start, mesh=mesh)[0] if arm.beta else None
    if arm.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), 2)
        model = tunix_adapter.add_lora(model, rank=arm.adapter.rank, alpha=arm.adapter.alpha, key=key)
    with stage.scratch(name) as scratch:
        metrics = rl.train(
            model, reference, problems("train"), problems("val")[: arm.validation_problems], arm,
            tokenizer=words, system=params.prompt.of(name), stop_ids=stop_ids, seed=params.seed,
            mesh=mesh, checkpoints=scratch / "state",
            curve=Curve(Path(f"results/plots/{name}.csv"), scratch / "curve.csv", rl.columns(arm)),
            watched=scratch / "watched", name=name,
        )  # fmt: skip
        write_jsonl(Path(f"results/samples/{name}.jsonl"), rl.collect_watched(scratch / "watched"))
        adapter = (arm.adapter.rank, arm.adapter.alpha) if arm.adapter else None
        checkpoints.save(model, out, spec=spec, stop_ids=stop_ids, adapter=adapter)
        tokenizer.copy(start, out)
        write_json(Path(f"results/metrics/train/{name}.json"), metrics)


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
