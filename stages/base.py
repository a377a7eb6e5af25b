"""Makes the model that all arms start from: models/tokenizer → models/base."""

from pathlib import Path

import jax

from showwork import config, stage, tokenizer, tunix_adapter
from showwork.files import write_csv, write_json
from showwork.models import checkpoints
from showwork.models.specs import MODELS
from showwork.problems.drills import drills
from showwork.training import data, sft
from showwork.training.curves import Curve

NAME = "base"
TOKENIZER, OUT, PLOT = Path("models/tokenizer"), Path("models/base"), Path("results/plots/base.csv")
VALIDATION_ROWS = 128


def main() -> None:
    params = config.load()
    spec, arithmetic = MODELS[params.model.name], params.base.arithmetic
    words = tokenizer.load(TOKENIZER)
    model = tunix_adapter.build_model(spec, vocabulary=len(words), dtype=params.model.dtype)
    tunix_adapter.draw_weights(model, key=jax.random.key(params.seed))
    metrics = {"optimizer_steps": 0, "train_tokens": 0, "sampled_tokens": 0}
    write_csv(PLOT, ("step", *sft.COLUMNS), [])
    with stage.scratch(NAME) as scratch:
        if arithmetic:
            # Fresh lines for every row of every step: nothing is seen twice but by chance.
            rows = arithmetic.steps * arithmetic.rows_per_step + VALIDATION_ROWS
            lines = drills(seed=params.seed)
            examples = data.encode_drills(lines, words, rows=rows, max_tokens=arithmetic.max_tokens)
            metrics = sft.train(
                model, examples[VALIDATION_ROWS:], examples[:VALIDATION_ROWS], arithmetic, seed=params.seed,
                mesh=tunix_adapter.make_mesh(params.hardware.mesh), checkpoints=scratch / "state",
                curve=Curve(PLOT, scratch / "curve.csv", sft.COLUMNS), name=NAME,
            )  # fmt: skip
        checkpoints.save(model, OUT, spec=spec, stop_ids=(words.eos_id(),))
        checkpoints.copy_tokenizer(TOKENIZER, OUT)
        write_json(Path(f"results/metrics/train/{NAME}.json"), metrics)


if __name__ == "__main__":
    stage.run(NAME, main)
