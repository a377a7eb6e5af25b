"""Supervised fine-tuning through Tunix's PeftTrainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from showwork import tunix_adapter
from showwork.config import Supervised
from showwork.errors import UserError
from showwork.progress import Steps
from showwork.training import data, optimizer
from showwork.training.curves import Curve
from showwork.training.losses import supervised_loss

COLUMNS = ("loss", "val_loss", "learning_rate", "train_tokens")


def train(
    model: nnx.Module,
    examples: Sequence[data.Example],
    validation: Sequence[data.Example],
    config: Supervised,
    *,
    seed: int,
    mesh: jax.sharding.Mesh,
    checkpoints: Path,
    curve: Curve,
    name: str = "sft",
) -> dict[str, Any]:
    """Trains the model in place, from the newest checkpoint if there is one; returns the stage's metrics.

    Losses are nats a trained token, over all micro-batches of a step. Repeats and resumed runs end in the same
    bytes on the same kind of hardware: rows come in an order that the seed alone decides.
    """
    if not examples:
        raise UserError(f"{name}.max_tokens {config.max_tokens}: no training example is that short")
    rates = optimizer.learning_rates(config.optimizer, steps=config.steps)
    width = data.row_width([*examples, *validation], max_tokens=config.max_tokens)
    parts = config.rows_per_step // config.micro_batch_rows

    def totals(auxes: list[dict[str, Any]]) -> tuple[float, int]:
        return sum(float(aux["nll"]) for aux in auxes), sum(int(aux["tokens"]) for aux in auxes)

    def on_step(step: int, auxes: list[dict[str, Any]]) -> None:
        nll, tokens = totals(auxes)
        values = {
            "loss": nll / max(1, tokens),
            "learning_rate": float(rates(step)),
            "train_tokens": int(curve.last("train_tokens") + tokens),
        }
        curve.add(step, values)
        bar.update(step, f"loss {values['loss']:.4f}  val {curve.last('val_loss', float('nan')):.4f}")

    def on_validation(step: int, auxes: list[dict[str, Any]]) -> None:
        # Tunix also validates when it starts or resumes: a step that is not on the grid is not recorded.
        if step % config.validate_every_steps == 0:
            nll, tokens = totals(auxes)
            curve.add(step, {"val_loss": nll / tokens})

    tunix_adapter.place(model, mesh)
    trainer = tunix_adapter.SupervisedTrainer(
        model,
        optimizer.build(config.optimizer, steps=config.steps),
        loss_fn=supervised_loss,
        micro_batches=parts,
        validate_every_steps=config.validate_every_steps,
        checkpoints=checkpoints,
        checkpoint_every_steps=config.checkpoint_every_steps,
        on_step=on_step,
        on_validation=on_validation,
    )
    curve.start(step=trainer.train_steps)

    def batches(rows: Sequence[data.Example], *, seed: int | None) -> Any:
        packed = data.packed_rows(rows, max_tokens=width, seed=seed)
        return data.micro_batches(
            packed,
            rows_per_step=config.rows_per_step if seed is not None else config.micro_batch_rows,
            micro_batch_rows=config.micro_batch_rows,
        )

    stream = (batch for batch, _ in zip(batches(examples, seed=seed), range(config.steps * parts), strict=False))
    with Steps(name, config.steps) as bar:
        bar.update(trainer.train_steps)
        if trainer.train_steps < config.steps:
            with mesh:
                trainer.train(stream, list(batches(validation, seed=None)))
    return {
        "loss": round(curve.last("loss"), 6),
        "val_loss": round(curve.last("val_loss"), 6) if validation else None,
        "optimizer_steps": config.steps,
        "train_tokens": int(curve.last("train_tokens")),
        "sampled_tokens": 0,
    }
