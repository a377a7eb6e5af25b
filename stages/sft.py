"""Supervised fine-tuning: data/clean, models/base → models/sft, its curve and metrics."""

from pathlib import Path

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.files import read_jsonl, write_json
from showwork.models import checkpoints
from showwork.records import Problem
from showwork.training import data, sft
from showwork.training.curves import Curve

NAME = "sft"


def main() -> None:
    params = config.load()
    arm = params.sft
    start, out = Path("models") / arm.start, Path("models") / NAME
    words, stop_ids = tokenizer.load(start), checkpoints.stop_ids(start)
    model, spec = checkpoints.load(start)
    if arm.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), 1)
        model = tunix_adapter.add_lora(model, rank=arm.adapter.rank, alpha=arm.adapter.alpha, key=key)

    def examples(split: str) -> tuple[list[data.Example], int]:
        problems = [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]
        return data.encode_examples(
            problems, words, system=params.prompt.system, stop_id=stop_ids[0], max_tokens=arm.max_tokens
        )

    train, too_long = examples("train")
    with stage.scratch(NAME) as scratch:
        metrics = sft.train(
            model, train, examples("val")[0], arm, seed=params.seed, checkpoints=scratch / "state",
            curve=Curve(Path(f"results/plots/{NAME}.csv"), scratch / "curve.csv", sft.COLUMNS),
            mesh=tunix_adapter.make_mesh(params.hardware.mesh),
        )  # fmt: skip
        adapter = (arm.adapter.rank, arm.adapter.alpha) if arm.adapter else None
        checkpoints.save(model, out, spec=spec, stop_ids=stop_ids, adapter=adapter)
        checkpoints.copy_tokenizer(start, out)
        write_json(
            Path(f"results/metrics/train/{NAME}.json"), {**metrics, "rows": len(train), "rows_too_long": too_long}
        )


if __name__ == "__main__":
    stage.run(NAME, main)
