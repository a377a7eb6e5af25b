"""Supervised training by Tunix's PeftTrainer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from showwork.config import Supervised
from showwork.tunix_adapter import trainer_options
from showwork.tunix_adapter.lazily import lazily
from showwork.tunix_adapter.training_state import TrainingState

with lazily("tunix"):
    from tunix.sft import peft_trainer

# Sums over the tokens of a batch, by name.
Sums = Mapping[str, np.ndarray]


class SupervisedTrainer(trainer_options.InPlace):
    """PeftTrainer that reports every step, with exact sums.

    loss(model, rows) returns (loss, aux) and takes all rows of a step. on_step(step, aux) gets its aux,
    on_validation(step, auxes) those of all validation batches.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        settings: Supervised,
        *,
        loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
        on_step: Callable[[int, Sums], None],
        on_validation: Callable[[int, Sequence[Sums]], None],
        state: TrainingState | None = None,
    ):
        """Trains the model in place, from the newest state if there is one."""
        self._settings = settings
        super().__init__(
            model, optimizer, peft_trainer.TrainingConfig(eval_every_n_steps=settings.validate_every_steps)
        )
        if state is not None:
            state.is_due = self._is_save_due
        self.resume(state)
        self.with_loss_fn(loss, has_aux=True)
        self.with_gen_model_input_fn(lambda rows: {"rows": rows})
        self._on_step, self._on_validation = on_step, on_validation
        self._eval_auxes: list[dict[str, jax.Array]] = []
        self._has_validation = False
        self._unreported: tuple[int, dict[str, jax.Array]] | None = None

    def _post_process_train_step(self, aux: dict[str, jax.Array]) -> None:
        # Report the previous step: reading this one's numbers would stall dispatch.
        self.report()
        self._unreported = (self.train_steps + 1, aux)
        if (self.train_steps + 1) % self._settings.checkpoint_every_steps == 0:
            self.report()  # before the state is saved, so that the record is never behind the weights

    def report(self) -> None:
        """Calls on_step for the last step if that was not done yet; waits for its numbers."""
        if self._unreported is not None:
            step, aux = self._unreported
            self._unreported = None
            self._on_step(step, jax.device_get(aux))

    def close(self) -> None:
        self.report()
        super().close()  # saves the last checkpoint

    def _post_process_eval_step(self, aux: dict[str, jax.Array]) -> None:
        self._eval_auxes.append(aux)

    def _run_eval(self, eval_ds: Iterable[Any], eval_step_fn: Callable[..., Any]) -> None:
        self.report()
        super()._run_eval(eval_ds, eval_step_fn)
        self._on_validation(self.train_steps, jax.device_get(self._eval_auxes))
        self._eval_auxes, self._has_validation = [], True
        if self.train_steps % self._settings.checkpoint_every_steps == 0 and self.train_steps > 0:
            self._save_last_checkpoint()

    def _is_save_due(self, step: int) -> bool:
        """Where validation follows, the state is saved after it: the record is then never behind the weights."""
        is_validated = self._has_validation and step % self._settings.validate_every_steps == 0
        return step % self._settings.checkpoint_every_steps == 0 and not is_validated
