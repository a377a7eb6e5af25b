"""Supervised training by Tunix's PeftTrainer."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from showwork.config import Supervised
from showwork.tunix_adapter import trainer_options
from showwork.tunix_adapter.lazily import lazily

with lazily("tunix"):
    from tunix.sft import peft_trainer

# Sums over the tokens of each micro-batch, by name.
Auxes = list[dict[str, np.ndarray]]


class SupervisedTrainer(peft_trainer.PeftTrainer):
    """PeftTrainer that reports every step, with exact sums.

    loss_fn(model, **batch) returns (loss, aux). The loss of each micro-batch must already be divided by the count of
    the WHOLE step and multiplied by the number of micro-batches, because optax.MultiSteps averages micro-batches
    equally (see training.losses). on_step(step, auxes) and on_validation(step, auxes) get the auxes of all
    micro-batches.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        settings: Supervised,
        *,
        loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
        checkpoints: Path,
        on_step: Callable[[int, Auxes], None],
        on_validation: Callable[[int, Auxes], None],
    ):
        self._micro_batches = settings.rows_per_step // settings.micro_batch_rows
        self._checkpoint_every_steps = settings.checkpoint_every_steps
        config = peft_trainer.TrainingConfig(
            eval_every_n_steps=settings.validate_every_steps,
            gradient_accumulation_steps=trainer_options.accumulation_steps(self._micro_batches),
            checkpoint_root_directory=str(checkpoints.absolute()),
            checkpointing_options=trainer_options.checkpoint_options(self._checkpoint_every_steps),
        )
        super().__init__(model, optimizer, config)
        self.with_loss_fn(loss_fn, has_aux=True)
        self.with_gen_model_input_fn(lambda batch: batch)
        self._on_step, self._on_validation = on_step, on_validation
        self._train_auxes: list[dict[str, jax.Array]] = []
        self._eval_auxes: list[dict[str, jax.Array]] = []
        self._unreported: tuple[int, list[dict[str, jax.Array]]] | None = None

    def _shard_optimizer(self, mesh: jax.sharding.Mesh) -> None:
        trainer_options.place_optimizer(self, mesh)

    def _post_process_train_step(self, aux: dict[str, jax.Array]) -> None:
        self._train_auxes.append(aux)
        if len(self._train_auxes) == self._micro_batches:
            # Report the previous step: reading this one's numbers would stall dispatch.
            self.report()
            self._unreported = (self.train_steps + 1, self._train_auxes)
            self._train_auxes = []
            if (self.train_steps + 1) % self._checkpoint_every_steps == 0:
                self.report()  # before Tunix saves its checkpoint, so that the record is never behind the weights

    def report(self) -> None:
        """Calls on_step for the last step if that was not done yet; waits for its numbers."""
        if self._unreported is not None:
            step, auxes = self._unreported
            self._unreported = None
            self._on_step(step, jax.device_get(auxes))

    def close(self) -> None:
        self.report()
        super().close()  # saves the last checkpoint

    def _post_process_eval_step(self, aux: dict[str, jax.Array]) -> None:
        self._eval_auxes.append(aux)

    def _run_eval(self, eval_ds: Iterable[Any], eval_step_fn: Callable[..., Any]) -> None:
        self.report()
        super()._run_eval(eval_ds, eval_step_fn)
        self._on_validation(self.train_steps, jax.device_get(self._eval_auxes))
        self._eval_auxes = []
