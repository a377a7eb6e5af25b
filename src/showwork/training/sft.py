"""Supervised fine-tuning through Tunix's PeftTrainer."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from showwork import devices
from showwork.config import Supervised
from showwork.errors import UserError
from showwork.progress import Steps
from showwork.training import data, optimizer
from showwork.training.losses import supervised_loss
from showwork.training.run import Run
from showwork.tunix_adapter.gemma import Model
from showwork.tunix_adapter.supervised import Auxes, SupervisedTrainer

COLUMNS = ("loss", "val_loss", "learning_rate", "train_tokens")


def train(
    model: Model,
    examples: Sequence[data.Example],
    validation: Sequence[data.Example],
    settings: Supervised,
    run: Run,
) -> dict[str, Any]:
    """Trains the model in place, from the newest checkpoint if there is one; returns the stage's metrics.

    Losses are nats per trained token, over all micro-batches of a step. Repeats and resumed runs end in the same
    bytes on the same kind of hardware: the seed alone decides the order of rows.
    """
    if not examples:
        raise UserError(f"{run.name}.max_tokens {settings.max_tokens}: no training example is that short")
    width = data.row_width([*examples, *validation], max_tokens=settings.max_tokens)
    devices.place(model, run.mesh)
    with Steps(run.name, settings.steps) as bar:
        record = _Record(settings, run, bar)
        trainer = SupervisedTrainer(
            model, optimizer.build(settings.optimizer, steps=settings.steps), settings, loss_fn=supervised_loss,
            checkpoints=run.checkpoints, on_step=record.add_step, on_validation=record.add_validation,
        )  # fmt: skip
        run.curve.start(step=trainer.train_steps)
        bar.update(trainer.train_steps)
        if trainer.train_steps < settings.steps:
            with run.mesh:
                trainer.train(
                    training_batches(examples, settings, width=width, seed=run.seed),
                    list(validation_batches(validation, settings, width=width)),
                )
    return {
        "loss": round(run.curve.last("loss"), 6),
        "val_loss": round(run.curve.last("val_loss"), 6) if validation else None,
        "optimizer_steps": settings.steps,
        "train_tokens": int(run.curve.last("train_tokens")),
        "sampled_tokens": 0,
    }


def training_batches(
    examples: Sequence[data.Example], settings: Supervised, *, width: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """The micro-batches of a whole run, rows [micro_batch_rows, width] each, the same ones whenever it starts."""
    batches = data.micro_batches(
        data.packed_rows(examples, max_tokens=width, seed=seed),
        rows_per_step=settings.rows_per_step,
        micro_batch_rows=settings.micro_batch_rows,
    )
    return itertools.islice(batches, settings.steps * settings.rows_per_step // settings.micro_batch_rows)


def validation_batches(
    examples: Sequence[data.Example], settings: Supervised, *, width: int
) -> Iterator[dict[str, np.ndarray]]:
    """Each example once, in order."""
    rows = data.packed_rows(examples, max_tokens=width, seed=None)
    return data.micro_batches(rows, rows_per_step=settings.micro_batch_rows, micro_batch_rows=settings.micro_batch_rows)


class _Record:
    """Writes what the trainer reports to the curve and the progress bar."""

    def __init__(self, settings: Supervised, run: Run, bar: Steps):
        self._curve, self._bar = run.curve, bar
        self._validate_every_steps = settings.validate_every_steps
        self._rates = optimizer.learning_rates(settings.optimizer, steps=settings.steps)

    def add_step(self, step: int, auxes: Auxes) -> None:
        nll, tokens = _totals(auxes)
        values = {
            "loss": nll / max(1, tokens),
            "learning_rate": float(np.asarray(self._rates(step))),
            "train_tokens": int(self._curve.last("train_tokens") + tokens),
        }
        self._curve.add(step, values)
        val_loss = self._curve.last("val_loss", float("nan"))
        self._bar.update(step, f"loss {values['loss']:.4f}  val {val_loss:.4f}")

    def add_validation(self, step: int, auxes: Auxes) -> None:
        # Tunix also validates when it starts or resumes: a step off the grid is not recorded.
        if step % self._validate_every_steps == 0:
            nll, tokens = _totals(auxes)
            self._curve.add(step, {"val_loss": nll / tokens})


def _totals(auxes: Auxes) -> tuple[float, int]:
    """Negative log-likelihood in nats, and the number of trained tokens."""
    return sum(float(aux["nll"]) for aux in auxes), sum(int(aux["tokens"]) for aux in auxes)
