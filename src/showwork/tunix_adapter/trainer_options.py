"""Options that both trainers pass to Tunix."""

import jax
import orbax.checkpoint as ocp

from showwork import devices
from showwork.tunix_adapter.lazily import lazily

with lazily("tunix"):
    from tunix.sft import peft_trainer


def checkpoint_options(every_steps: int) -> ocp.CheckpointManagerOptions:
    """Saves by step count alone.

    Tunix's default saves by the clock, which no resumed run repeats. Orbax's own policy also saves the first step,
    which can fall between the iterations on one rollout.
    """
    policy = ocp.checkpoint_managers.FixedIntervalPolicy(every_steps)
    return ocp.CheckpointManagerOptions(save_decision_policy=policy, max_to_keep=1)


def accumulation_steps(micro_batches: int) -> int | None:
    """Tunix's gradient_accumulation_steps; None for one micro-batch, to avoid a second gradient buffer."""
    return micro_batches if micro_batches > 1 else None


def place_optimizer(trainer: peft_trainer.PeftTrainer, mesh: jax.sharding.Mesh) -> None:
    """Shards the optimizer's state as devices.place shards the weights.

    Tunix's own _shard_optimizer leaves it on one device of a CPU, and the second step is then compiled again.
    """
    if not mesh.empty:
        devices.place(trainer.optimizer, mesh)
