"""Trains an RL arm, `rl.py ARM`: data/clean, models/START → models/ARM, curve, metrics, watched samples."""

import sys
from pathlib import Path

import _path  # noqa: F401
from showwork import config, devices, stage
from showwork.files import write_json, write_jsonl
from showwork.problems.stored import read_problems
from showwork.training import arms, rl
from showwork.training.run import begin

CLEAN = Path("data/clean")


def main(name: str) -> None:
    params = config.load()
    mesh = devices.make_mesh(params.hardware.mesh)
    arm = arms.load(params, name, mesh=mesh)
    problems = read_problems(CLEAN / "train.jsonl")
    validation = read_problems(CLEAN / "val.jsonl")[: arm.settings.validation_problems]
    with begin(params, name, rl.columns(arm.settings), mesh=mesh) as run:
        metrics = rl.train(arm, problems, validation, run)
        write_jsonl(Path(f"results/samples/{name}.jsonl"), rl.collect_watched(run))
        arm.save(name)
        write_json(Path(f"results/metrics/train/{name}.json"), metrics)


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
