"""Trains a warm start by SFT, `sft.py ARM`: data/clean, models/START → models/ARM, curve, metrics."""

import sys
from pathlib import Path

import _path  # noqa: F401
from showwork import config, devices, stage
from showwork.files import write_json
from showwork.problems.stored import read_problems
from showwork.training import arms, sft
from showwork.training.run import begin
from showwork.training.solutions import encode_solutions

CLEAN = Path("data/clean")


def main(name: str) -> None:
    params = config.load()
    mesh = devices.make_mesh(params.hardware.mesh)
    arm = arms.load(params, name, mesh=mesh)
    settings = arm.settings
    (train, too_long), (val, _) = (
        encode_solutions(
            arm, read_problems(CLEAN / f"{split}.jsonl"), settings.styles, max_tokens=settings.max_tokens,
            seed=params.seed,
        )
        for split in ("train", "val")
    )  # fmt: skip
    with begin(params, name, sft.COLUMNS, mesh=mesh) as run:
        metrics = sft.train(arm.model, train, val, settings, run)
        arm.save(name)
        metrics |= {"rows": len(train), "rows_too_long": too_long}
        write_json(Path(f"results/metrics/train/{name}.json"), metrics)


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
