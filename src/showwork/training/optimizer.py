"""The optimizer of every arm."""

import optax

from showwork.config import Optimizer


def learning_rates(config: Optimizer, *, steps: int) -> optax.Schedule:
    """Linear from 0 over warmup_ratio * steps, then cosine to final_ratio * learning_rate at the last step."""
    warmup = round(config.warmup_ratio * steps)
    return optax.schedules.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.final_ratio * config.learning_rate,
    )


def build(config: Optimizer, *, steps: int) -> optax.GradientTransformation:
    """Gradient clipping by global norm, then AdamW.

    The schedule is shifted by one step, because a first step at rate 0 would be lost.
    """
    rates = learning_rates(config, steps=steps)
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(lambda count: rates(count + 1), b1=config.b1, b2=config.b2, weight_decay=config.weight_decay),
    )
