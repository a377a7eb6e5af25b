"""A policy-gradient arm, ARM = grpo, trajectory or dsa_cast: data/clean, models/START → models/ARM, curve, samples."""

import sys
from pathlib import Path

from showwork import config, stage
from showwork.files import read_jsonl, write_json, write_jsonl
from showwork.records import Problem
from showwork.training import arms, rl
from showwork.training.curves import Curve


def problems(split: str) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]


def main(name: str) -> None:
    params = config.load()
    arm = arms.load(params, name)
    with stage.scratch(name) as scratch:
        metrics = rl.train(
            arm.model, arm.reference() if arm.config.beta else None, problems("train"),
            problems("val")[: arm.config.validation_problems], arm.config, tokenizer=arm.tokenizer, system=arm.system,
            stop_ids=arm.stop_ids, seed=params.seed, mesh=arm.mesh, checkpoints=scratch / "state",
            curve=Curve(
                Path(f"results/plots/{name}.csv"), scratch / "curve.csv", rl.columns(arm.config),
                live=stage.LIVE / name if params.live else None,
            ),
            watched=scratch / "watched", name=name,
        )  # fmt: skip
        write_jsonl(Path(f"results/samples/{name}.jsonl"), rl.collect_watched(scratch / "watched"))
        arm.save()
        write_json(Path(f"results/metrics/train/{name}.json"), metrics)


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
