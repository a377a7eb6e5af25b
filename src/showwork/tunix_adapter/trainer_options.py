"""What both trainers change of Tunix's, in the same way."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.interpreters import pxla

from showwork import devices
from showwork.tunix_adapter.lazily import lazily
from showwork.tunix_adapter.training_state import TrainingState

with lazily("tunix"):
    from tunix.sft import peft_trainer


class InPlace(peft_trainer.PeftTrainer):
    """Updates weights where they are, leaves frozen ones alone, and goes on from a state of our own.

    Tunix passes the model through its step and gives up the optimizer's buffers alone: every step would return a second
    copy of all weights, those beside an adapter too.
    """

    def resume(self, state: TrainingState | None) -> None:
        """Goes on from the newest state, and saves there; without one, nothing is written. Call before training."""
        if state is not None:
            self.checkpoint_manager = state
            self._train_steps, self._restored_custom_metadata = state.maybe_restore(
                self.model, self.optimizer, restore_only_lora_params=self._lora_enabled
            )
            self._iter_steps = self._train_steps

    def jit_train_and_eval_step(self, skip_jit: bool = False, cache_nnx_graph: bool = False) -> tuple[Any, Any]:
        if skip_jit or self._jitted_train_step_fn is not None:
            return super().jit_train_and_eval_step(skip_jit, cache_nnx_graph)
        self._shard_optimizer(pxla.thread_resources.env.physical_mesh)
        self._jitted_train_step_fn = functools.partial(self._compiled_train_step())
        self._jitted_eval_step_fn = functools.partial(self._compiled_eval_step())
        return self._jitted_train_step_fn, self._jitted_eval_step_fn

    def _compiled_train_step(self) -> Callable[[Any], Any]:
        train_step, wrt = self.create_train_step_fn(), nnx.LoRAParam if self._lora_enabled else nnx.Param
        graphdef, _, fixed = nnx.split(self.model, wrt, ...)
        rule, _ = nnx.split(self.optimizer)
        # An adapter is small, and the reference starts from the same one.
        donated = (1,) if self._lora_enabled else (0, 1)

        @functools.partial(jax.jit, donate_argnums=donated)
        def step(trained: nnx.State, moments: nnx.State, fixed: nnx.State, inputs: Any) -> Any:
            model, optimizer = nnx.merge(graphdef, trained, fixed), nnx.merge(rule, moments)
            return train_step(model, optimizer, inputs), nnx.state(model, wrt), nnx.state(optimizer)

        def run(inputs: Any) -> Any:
            found, trained, moments = step(nnx.state(self.model, wrt), nnx.state(self.optimizer), fixed, inputs)
            nnx.update(self.model, trained)
            nnx.update(self.optimizer, moments)
            return found

        setattr(run, "jitted_fn", step)  # noqa: B010 (Tunix logs the size of its cache)
        return run

    def _compiled_eval_step(self) -> Callable[[Any], Any]:
        eval_step, graphdef = self.create_eval_step_fn(), nnx.split(self.model)[0]
        step = jax.jit(lambda state, inputs: eval_step(nnx.merge(graphdef, state), inputs))
        return lambda inputs: step(nnx.state(self.model), inputs)

    def _shard_optimizer(self, mesh: jax.sharding.Mesh) -> None:
        """Shards the optimizer's state as devices.place shards the weights.

        Tunix's own leaves it on one device of a CPU, and the second step is then compiled again.
        """
        if not mesh.empty:
            devices.place(self.optimizer, mesh)
