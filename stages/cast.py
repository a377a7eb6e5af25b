"""The self-teaching loop: data/clean, models/START → models/cast, its curve, metrics, and each round's analysis."""

from pathlib import Path

from showwork import config, stage
from showwork.files import read_json, read_jsonl, write_json, write_jsonl
from showwork.problems import styles
from showwork.problems.variants import plan_mark
from showwork.records import Problem
from showwork.training import arms, cast, data
from showwork.training.curves import Curve

NAME = "cast"
CLEAN = Path("data/clean")


def problems(split: str) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(CLEAN / f"{split}.jsonl")]


def main() -> None:
    params = config.load()
    arm = arms.load(params, NAME)
    train, val = problems("train"), problems("val")
    # The warm start's own rows, in the styles in which it was taught them.
    taught = styles.assign(train, getattr(params, arm.config.start).styles, seed=params.seed)
    replay, _ = data.encode_examples(
        train, [styles.render(p, style) for p, style in zip(train, taught, strict=True)], arm.tokenizer,
        system=arm.system, stop_id=arm.stop_ids[0], max_tokens=arm.config.training.max_tokens,
    )  # fmt: skip
    # Hashes of the test questions and of what they calculate: no new problem may be one of them.
    taken = {*read_json(CLEAN / "guard.json"), *map(plan_mark, val)}
    with stage.scratch(NAME) as scratch:
        metrics, story = cast.train(
            arm.model, train, val, replay, arm.config, tokenizer=arm.tokenizer, system=arm.system,
            stop_ids=arm.stop_ids, taken=taken, mesh=arm.mesh, seed=params.seed, scratch=scratch,
            curve=Curve(
                Path(f"results/plots/{NAME}.csv"), scratch / "curve.csv", cast.COLUMNS,
                live=stage.LIVE / NAME if params.live else None,
            ),
        )  # fmt: skip
        write_jsonl(Path(f"results/samples/{NAME}.jsonl"), story)
        arm.save()
        write_json(Path(f"results/metrics/train/{NAME}.json"), metrics)


if __name__ == "__main__":
    stage.run(NAME, main)
