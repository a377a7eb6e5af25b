"""Trains a self-teaching arm, `cast.py ARM`: data/clean, models/START → models/ARM, curve, metrics, rounds."""

import sys
from pathlib import Path

import _path  # noqa: F401
from showwork import config, devices, stage
from showwork.files import read_json, write_json, write_jsonl
from showwork.problems.stored import read_problems
from showwork.problems.variants import plan_mark
from showwork.training import arms, cast
from showwork.training.run import begin
from showwork.training.solutions import encode_solutions

CLEAN = Path("data/clean")


def main(name: str) -> None:
    params = config.load()
    mesh = devices.make_mesh(params.hardware.mesh)
    arm = arms.load(params, name, mesh=mesh)
    train, val = (read_problems(CLEAN / f"{split}.jsonl") for split in ("train", "val"))
    replay, _ = encode_solutions(
        arm, train, arm.settings.replay_styles, max_tokens=arm.settings.training.max_tokens, seed=params.seed
    )
    # Hashes of the test questions and of their equations: no new problem may match one.
    taken = {*read_json(CLEAN / "guard.json"), *map(plan_mark, val)}
    with begin(params, name, cast.COLUMNS, mesh=mesh) as run:
        metrics, story = cast.train(arm, train, val, replay, run, taken=taken)
        write_jsonl(Path(f"results/samples/{name}.jsonl"), story)
        arm.save(name)
        write_json(Path(f"results/metrics/train/{name}.json"), metrics)


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
