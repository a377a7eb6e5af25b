"""Makes the model that all arms start from: models/tokenizer → models/base."""

import random
from pathlib import Path
from typing import Any

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.errors import UserError
from showwork.files import write_csv, write_json
from showwork.models import checkpoints, weights
from showwork.models.specs import MODELS, PUBLISHED
from showwork.sources.drills import drills
from showwork.training import data, sft
from showwork.training.curves import Curve

NAME = "base"
TOKENIZER, OUT, PLOT = Path("models/tokenizer"), Path("models/base"), Path("results/plots/base.csv")
METRICS = Path(f"results/metrics/train/{NAME}.json")
VALIDATION_ROWS = 128
UNTRAINED = {"optimizer_steps": 0, "train_tokens": 0, "sampled_tokens": 0}


def main() -> None:
    params = config.load()
    write_csv(PLOT, ("step", *sft.COLUMNS), [])
    if params.base.weights:
        bring_in(params)
    else:
        make(params)


def bring_in(params: config.Params) -> None:
    """Published weights, text alone, in the dtype of model.dtype."""
    words = tokenizer.load(TOKENIZER)
    source = weights.fetch(params.base.weights, weights.WEIGHTS)
    checkpoints.convert(
        source.folder, OUT, spec=MODELS[params.model.name], vocabulary=len(words), dtype=params.model.dtype,
        stop_ids=words.stop_ids(),
    )  # fmt: skip
    write_rest({**UNTRAINED, "weights": params.base.weights, "revision": source.revision})


def make(params: config.Params) -> None:
    """A model from scratch."""
    mesh = tunix_adapter.make_mesh(params.hardware.mesh)
    spec, lessons = MODELS[params.model.name], params.base.drills
    if published := PUBLISHED.get(params.model.name):
        raise UserError(
            f"params.yaml: base.weights is null, and {params.model.name} is published: set it to {published.hub}, "
            f"{published.kaggle} or folder:PATH"
        )
    words = tokenizer.load(TOKENIZER)
    model = tunix_adapter.build_model(spec, vocabulary=len(words), dtype=params.model.dtype)
    tunix_adapter.draw_weights(model, key=jax.random.key(params.seed))
    metrics = UNTRAINED
    with stage.scratch(NAME) as scratch:
        if lessons:
            # Fresh lines for every row of every step: nothing is seen twice but by chance.
            rows = lessons.steps * lessons.rows_per_step + VALIDATION_ROWS
            recall = round(rows * lessons.recall_share)
            examples = [
                *data.encode_drills(drills(seed=params.seed), words, rows=rows - recall, max_tokens=lessons.max_tokens),
                *data.recall_rows(words, rows=recall, max_tokens=lessons.max_tokens, seed=params.seed),
            ]
            random.Random(params.seed).shuffle(examples)
            metrics = sft.train(
                model, examples[VALIDATION_ROWS:], examples[:VALIDATION_ROWS], lessons, seed=params.seed,
                mesh=mesh, checkpoints=scratch / "state", name=NAME,
                curve=Curve(PLOT, scratch / "curve.csv", sft.COLUMNS, live=stage.LIVE / NAME if params.live else None),
            )  # fmt: skip
        checkpoints.save(model, OUT, spec=spec, stop_ids=(words.eos_id(),))
        write_rest(metrics)


def write_rest(metrics: dict[str, Any]) -> None:
    tokenizer.copy(TOKENIZER, OUT)
    write_json(METRICS, metrics)


if __name__ == "__main__":
    stage.run(NAME, main)
