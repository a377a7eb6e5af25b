"""The self-teaching loop: data/clean, models/START → models/cast, its curve, metrics, and each round's analysis."""

from pathlib import Path

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.files import read_json, read_jsonl, write_json, write_jsonl
from showwork.models import checkpoints
from showwork.problems import styles
from showwork.problems.variants import plan_mark
from showwork.records import Problem
from showwork.training import cast, data
from showwork.training.curves import Curve

NAME = "cast"
CLEAN = Path("data/clean")


def problems(split: str) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(CLEAN / f"{split}.jsonl")]


def main() -> None:
    params = config.load()
    mesh = tunix_adapter.make_mesh(params.hardware.mesh)
    arm, system = params.cast, params.prompt.of(NAME)
    start, out = Path("models") / arm.start, Path("models") / NAME
    words, stop_ids = tokenizer.load(start), checkpoints.stop_ids(start)
    model, spec = checkpoints.load(start, mesh=mesh, remat=params.model.remat)
    if arm.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), 4)
        model = tunix_adapter.add_lora(model, rank=arm.adapter.rank, alpha=arm.adapter.alpha, key=key)
    train, val = problems("train"), problems("val")
    # The warm start's own rows, in the styles in which it was taught them.
    taught = styles.assign(train, getattr(params, arm.start).styles, seed=params.seed)
    replay, _ = data.encode_examples(
        train, [styles.render(p, style) for p, style in zip(train, taught, strict=True)], words,
        system=system, stop_id=stop_ids[0], max_tokens=arm.training.max_tokens,
    )  # fmt: skip
    # Hashes of the test questions and of what they calculate: no new problem may be one of them.
    taken = {*read_json(CLEAN / "guard.json"), *map(plan_mark, val)}
    with stage.scratch(NAME) as scratch:
        metrics, story = cast.train(
            model, train, val, replay, arm, tokenizer=words, system=system, stop_ids=stop_ids, taken=taken,
            mesh=mesh, seed=params.seed, scratch=scratch,
            curve=Curve(Path(f"results/plots/{NAME}.csv"), scratch / "curve.csv", cast.COLUMNS),
        )  # fmt: skip
        write_jsonl(Path(f"results/samples/{NAME}.jsonl"), story)
        adapter = (arm.adapter.rank, arm.adapter.alpha) if arm.adapter else None
        checkpoints.save(model, out, spec=spec, stop_ids=stop_ids, adapter=adapter)
        tokenizer.copy(start, out)
        write_json(Path(f"results/metrics/train/{NAME}.json"), metrics)


if __name__ == "__main__":
    stage.run(NAME, main)
