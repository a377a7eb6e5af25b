"""Supervised fine-tuning through Tunix's PeftTrainer."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from showwork import devices
from showwork.config import Supervised
from showwork.errors import UserError
from showwork.progress import Steps
from showwork.training import data, optimizer
from showwork.training.losses import Rows, supervised_loss
from showwork.training.passes import Split, Sums, in_passes
from showwork.training.run import Run
from showwork.tunix_adapter import lora
from showwork.tunix_adapter.gemma import Model
from showwork.tunix_adapter.supervised import SupervisedTrainer

COLUMNS = ("loss", "val_loss", "learning_rate", "train_tokens")


def train(
    model: Model,
    examples: Sequence[data.Example],
    validation: Sequence[data.Example],
    settings: Supervised,
    run: Run,
) -> dict[str, Any]:
    """Trains the model in place, from the newest state if there is one; returns the stage's metrics.

    Losses are nats per trained token, over all rows of a step. Repeats and resumed runs end in the same
    bytes on the same kind of hardware: the seed alone decides the order of rows.
    """
    if not examples:
        raise UserError(f"{run.name}.max_tokens {settings.max_tokens}: no training example is that short")
    devices.place(model, run.mesh)
    with Steps(run.name, settings.steps) as bar:
        record = _Record(settings, run, bar)
        trainer = SupervisedTrainer(
            model, optimizer.build(settings.optimizer, steps=settings.steps), settings,
            loss=loss_of(model, run.split), on_step=record.add_step, on_validation=record.add_validation,
            state=run.state,
        )  # fmt: skip
        run.curve.start(step=trainer.train_steps)
        bar.update(trainer.train_steps)
        if trainer.train_steps < settings.steps:
            with devices.use(run.mesh):
                trainer.train(
                    training_steps(examples, settings, split=run.split, seed=run.seed),
                    list(validation_steps(validation, settings, split=run.split)),
                )
    return {
        "loss": round(run.curve.last("loss"), 6),
        "val_loss": round(run.curve.last("val_loss"), 6) if validation else None,
        "optimizer_steps": settings.steps,
        "train_tokens": int(run.curve.last("train_tokens")),
        "sampled_tokens": 0,
    }


def loss_of(model: Model, split: Split) -> Callable[[Model, Rows], Sums]:
    """Cross-entropy, a pass at a time, of the model's trained weights: those of the adapter where it has one."""
    return in_passes(supervised_loss(), split=split, wrt=nnx.LoRAParam if lora.is_adapted(model) else nnx.Param)


def training_steps(
    examples: Sequence[data.Example], settings: Supervised, *, split: Split, seed: int
) -> Iterator[Rows]:
    """The rows of each step of a whole run, the same ones whenever it starts."""
    rows = data.packed_rows(examples, max_tokens=settings.max_tokens, seed=seed)
    return itertools.islice(data.step_rows(rows, rows_per_step=settings.rows_per_step, split=split), settings.steps)


def validation_steps(examples: Sequence[data.Example], settings: Supervised, *, split: Split) -> Iterator[Rows]:
    """Each example once, in order."""
    rows = data.packed_rows(examples, max_tokens=settings.max_tokens, seed=None)
    return data.step_rows(rows, rows_per_step=settings.rows_per_step, split=split)


class _Record:
    """Writes what the trainer reports to the curve and the progress bar."""

    def __init__(self, settings: Supervised, run: Run, bar: Steps):
        self._curve, self._bar = run.curve, bar
        self._validate_every_steps = settings.validate_every_steps
        self._rates = optimizer.learning_rates(settings.optimizer, steps=settings.steps)

    def add_step(self, step: int, aux: Mapping[str, np.ndarray]) -> None:
        nll, tokens = float(aux["nll"]), int(aux["tokens"])
        values = {
            "loss": nll / max(1, tokens),
            "learning_rate": float(np.asarray(self._rates(step))),
            "train_tokens": int(self._curve.last("train_tokens") + tokens),
        }
        self._curve.add(step, values)
        val_loss = self._curve.last("val_loss", float("nan"))
        self._bar.update(step, f"loss {values['loss']:.4f}  val {val_loss:.4f}")

    def add_validation(self, step: int, auxes: Sequence[Mapping[str, np.ndarray]]) -> None:
        # Tunix also validates when it starts or resumes: a step off the grid is not recorded.
        if step % self._validate_every_steps == 0:
            nll, tokens = (sum(float(aux[name]) for aux in auxes) for name in ("nll", "tokens"))
            self._curve.add(step, {"val_loss": nll / tokens})
