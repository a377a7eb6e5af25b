"""Group training (GRPO) by Tunix's RL trainer."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from showwork import devices
from showwork.config import Rl
from showwork.tunix_adapter import trainer_options
from showwork.tunix_adapter.lazily import lazily
from showwork.tunix_adapter.training_state import TrainingState

with lazily("tunix"):
    from tunix.rl import trainer
    from tunix.sft import peft_trainer


class GroupTrainer(trainer_options.InPlace, trainer.Trainer):
    """Tunix's RL trainer, the one inside RLCluster, for a loop that samples and scores by itself.

    Tunix has the optimizer and the update. Its GRPOLearner is left out: it cuts a step at the prompts' boundaries,
    which packed rows do not have, and makes one more update where a run was finished before.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        settings: Rl,
        *,
        loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
        mesh: jax.sharding.Mesh,
        state: TrainingState | None = None,
    ):
        """Trains the model in place, from the newest state if there is one; see update for the loss."""
        config = peft_trainer.TrainingConfig(eval_every_n_steps=1)  # update gives it nothing to evaluate
        with devices.use(mesh):
            super().__init__(model, optimizer, config, custom_checkpoint_metadata_fn=dict)
            self.resume(state)
        self.with_loss_fn(loss, has_aux=True).with_gen_model_input_fn(lambda rows: {"rows": rows})
        self.is_managed_externally = True  # Tunix's train then takes every batch, and leaves closing to the caller
        self._mesh, self._iterations = mesh, settings.iterations
        self._auxes: list[dict[str, jax.Array]] = []

    @property
    def steps_done(self) -> int:
        """Steps behind this state, each of `iterations` optimizer steps."""
        return self.train_steps // self._iterations

    def update(self, rows: Any) -> list[dict[str, np.ndarray]]:
        """One step: `iterations` optimizer steps on loss(model, rows), each over all rows. Returns the aux of each."""
        with devices.use(self._mesh):
            self.train([rows] * self._iterations)
        auxes, self._auxes = self._auxes, []
        return jax.device_get(auxes)

    def save(self) -> None:
        """Writes the state after the last step, which replaces the one before."""
        self._save_last_checkpoint()

    def _post_process_train_step(self, aux: Any) -> None:
        self._auxes.append(aux)
