"""A warm start by supervised fine-tuning, ARM = sft or sft_dual: data/clean, models/base → models/ARM."""

import sys
from pathlib import Path

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.files import read_jsonl, write_json
from showwork.models import checkpoints
from showwork.problems import styles
from showwork.records import Problem
from showwork.training import data, sft
from showwork.training.curves import Curve


def main(name: str) -> None:
    params = config.load()
    mesh = tunix_adapter.make_mesh(params.hardware.mesh)
    arm = getattr(params, name)
    start, out = Path("models") / arm.start, Path("models") / name
    words, stop_ids = tokenizer.load(start), checkpoints.stop_ids(start)
    model, spec = checkpoints.load(start, mesh=mesh, remat=params.model.remat)
    if arm.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), 1)
        model = tunix_adapter.add_lora(model, rank=arm.adapter.rank, alpha=arm.adapter.alpha, key=key)

    def examples(split: str) -> tuple[list[data.Example], int]:
        problems = [Problem.from_json(row) for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))]
        chosen = styles.assign(problems, arm.styles, seed=params.seed)
        return data.encode_examples(
            problems, [styles.render(problem, style) for problem, style in zip(problems, chosen, strict=True)], words,
            system=params.prompt.of(name), stop_id=stop_ids[0], max_tokens=arm.max_tokens,
        )  # fmt: skip

    train, too_long = examples("train")
    with stage.scratch(name) as scratch:
        metrics = sft.train(
            model, train, examples("val")[0], arm, seed=params.seed, checkpoints=scratch / "state",
            curve=Curve(Path(f"results/plots/{name}.csv"), scratch / "curve.csv", sft.COLUMNS),
            mesh=mesh, name=name,
        )  # fmt: skip
        adapter = (arm.adapter.rank, arm.adapter.alpha) if arm.adapter else None
        checkpoints.save(model, out, spec=spec, stop_ids=stop_ids, adapter=adapter)
        tokenizer.copy(start, out)
        write_json(
            Path(f"results/metrics/train/{name}.json"), {**metrics, "rows": len(train), "rows_too_long": too_long}
        )


if __name__ == "__main__":
    stage.run(sys.argv[1], lambda: main(sys.argv[1]))
