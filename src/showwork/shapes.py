"""Sizes of padded arrays, and the attention masks of padded and packed rows."""

from typing import TypeVar

import jax
import jax.numpy as jnp

Number = TypeVar("Number", int, jax.Array)


def ceil_div(number: Number, divisor: int) -> Number:
    """number / divisor, rounded up."""
    return -(-number // divisor)


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `number`."""
    return ceil_div(number, multiple) * multiple


def packed_mask(segments: jax.Array) -> jax.Array:
    """Block-diagonal causal mask [B, L, L] of packed rows: a token attends to its own sequence up to itself.

    segments [B, L] number the sequences of a row from 1; 0 is padding, which attends to nothing.
    """
    causal = jnp.tril(jnp.ones((segments.shape[1],) * 2, bool))
    return (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0) & causal[None]


def prefill_mask(is_prompt: jax.Array, size: int) -> jax.Array:
    """Causal mask [B, P, size] of left-padded prompts over a cache of `size` columns.

    is_prompt [B, P] is False at padding, which no token attends to; the columns after the prompt are masked too.
    """
    width = is_prompt.shape[1]
    causal = jnp.tril(jnp.ones((width, width), bool))[None] & is_prompt[:, None, :]
    return jnp.pad(causal, ((0, 0), (0, 0), (0, size - width)))
