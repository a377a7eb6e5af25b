"""Makes the model that all arms start from: models/tokenizer → models/base."""

import random
from pathlib import Path
from typing import Any

import jax

import _path  # noqa: F401
from showwork import config, devices, stage
from showwork import tokenizer as tokenizers
from showwork.errors import UserError
from showwork.files import write_csv, write_json
from showwork.models import published, saving, weights
from showwork.models.specs import MODELS, PUBLISHED, GemmaSpec
from showwork.tokenizer import Tokenizer
from showwork.training import data, sft
from showwork.training.drills import drills
from showwork.training.run import PLOTS, begin
from showwork.tunix_adapter import gemma, parameters

NAME = "base"
TOKENIZER, OUT = Path("models/tokenizer"), Path("models/base")
METRICS = Path(f"results/metrics/train/{NAME}.json")
VALIDATION_ROWS = 128
UNTRAINED = {"optimizer_steps": 0, "train_tokens": 0, "sampled_tokens": 0}


def main() -> None:
    params = config.load()
    write_csv(PLOTS / f"{NAME}.csv", ("step", *sft.COLUMNS), [])
    if params.base.weights:
        convert(params, params.base.weights)
    else:
        build(params)


def convert(params: config.Params, source: str) -> None:
    """Converts published weights in their own dtype, without a vision tower."""
    tokenizer = tokenizers.load(TOKENIZER)
    fetched = weights.fetch(source, weights.WEIGHTS)
    with published.opened(fetched) as found:
        saving.convert(
            found, OUT, spec=MODELS[params.model.name], vocabulary=len(tokenizer), stop_ids=tokenizer.stop_ids()
        )
    write_rest({**UNTRAINED, "weights": source, "revision": fetched.revision, "sha256": weights.digests(fetched)})


def build(params: config.Params) -> None:
    """Builds a model from scratch, and pre-trains it if base.drills is set."""
    mesh = devices.make_mesh(params.hardware.mesh)
    spec, settings = MODELS[params.model.name], params.base.drills
    if places := PUBLISHED.get(params.model.name):
        raise UserError(
            f"params.yaml: base.weights is null, and {params.model.name} is published: set it to {places.hub}, "
            f"{places.kaggle}, folder:PATH or gguf:PATH"
        )
    tokenizer = tokenizers.load(TOKENIZER)
    model = gemma.build_model(spec, vocabulary=len(tokenizer), dtype=params.model.dtype)
    parameters.draw_weights(model, key=jax.random.key(params.seed))
    if settings is None:
        save(model, spec, tokenizer)
        write_rest(UNTRAINED)
        return
    examples = drill_examples(settings, tokenizer, seed=params.seed)
    with begin(params, NAME, sft.COLUMNS, mesh=mesh) as run:
        metrics = sft.train(model, examples[VALIDATION_ROWS:], examples[:VALIDATION_ROWS], settings, run)
        save(model, spec, tokenizer)
        write_rest(metrics)


def drill_examples(settings: config.Drills, tokenizer: Tokenizer, *, seed: int) -> list[data.Example]:
    """New examples for every row of every step, so that repeats are chance, and rows for validation."""
    count = settings.steps * settings.rows_per_step + VALIDATION_ROWS
    recall = round(count * settings.recall_share)
    examples = [
        *data.encode_drills(drills(seed=seed), tokenizer, rows=count - recall, max_tokens=settings.max_tokens),
        *data.recall_rows(tokenizer, rows=recall, max_tokens=settings.max_tokens, seed=seed),
    ]
    random.Random(seed).shuffle(examples)
    return examples


def save(model: gemma.Model, spec: GemmaSpec, tokenizer: Tokenizer) -> None:
    saving.save(model, OUT, spec=spec, stop_ids=(tokenizer.eos_id(),))


def write_rest(metrics: dict[str, Any]) -> None:
    tokenizers.copy(TOKENIZER, OUT)
    write_json(METRICS, metrics)


if __name__ == "__main__":
    stage.run(NAME, main)
