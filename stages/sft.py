"""A warm start by supervised fine-tuning, ARM = sft or sft_dual: data/clean, models/base → models/ARM."""

import sys
from pathlib import Path

from showwork import config, stage
from showwork.files import read_jsonl, write_json
from showwork.problems import styles
from showwork.records import Problem
from showwork.training import arms, data, sft
from showwork.training.curves import Curve


def main(name: str) -> None:
    params = config.load()
    arm = arms.load(params, name)

    def examples(split: str) -> tuple[list[data.Example], int]:
        problems = [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]
        chosen = styles.assign(problems, arm.config.styles, seed=params.seed)
        return data.encode_examples(
            problems, [styles.render(problem, style) for problem, style in zip(problems, chosen, strict=True)],
            arm.tokenizer, system=arm.system, stop_id=arm.stop_ids[0], max_tokens=arm.config.max_tokens,
        )  # fmt: skip

    train, too_long = examples("train")
    with stage.scratch(name) as scratch:
        metrics = sft.train(
            arm.model, train, examples("val")[0], arm.config, seed=params.seed, checkpoints=scratch / "state",
            curve=Curve(
                Path(f"results/plots/{name}.csv"), scratch / "curve.csv", sft.COLUMNS,
                live=stage.LIVE / name if params.live else None,
            ),
            mesh=arm.mesh, name=name,
        )  # fmt: skip
        arm.save()
        write_json(
            Path(f"results/metrics/train/{name}.json"), {**metrics, "rows": len(train), "rows_too_long": too_long}
        )


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
