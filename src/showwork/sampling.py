"""How the next token is chosen from the logits."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["temperature"], meta_fields=["greedy", "top_k", "top_p"]
)
@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. greedy ignores the rest; top_k 0 and top_p 1 keep every token.

    Only the temperature is an array under jit: another temperature compiles nothing.
    """

    greedy: bool = False
    temperature: float | jax.Array = 1.0
    top_k: int = 0
    top_p: float = 1.0


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["sampling"], meta_fields=["max_tokens", "stop_ids", "pad_id"]
)
@dataclass(frozen=True)
class Decoding:
    """How completions are written: the choice of each token, their length limit, and the ids that end and pad them."""

    sampling: Sampling
    max_tokens: int
    stop_ids: tuple[int, ...]
    pad_id: int


def choose(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> jax.Array:
    """The next token of each row, [N] from logits [N, V] and one key per row.

    Sampled by the inverse of the cumulative distribution: one uniform number per row instead of V Gumbels. top_k and
    top_p keep the tokens that reach their threshold, ties included.
    """
    logits = logits.astype(jnp.float32)
    if sampling.greedy:
        return jnp.argmax(logits, axis=-1)
    logits = logits / sampling.temperature
    if sampling.top_k:
        threshold = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    probabilities = jax.nn.softmax(logits, axis=-1)
    if sampling.top_p < 1:
        ordered = -jnp.sort(-probabilities, axis=-1)
        before = jnp.cumsum(ordered, axis=-1) - ordered
        threshold = jnp.min(jnp.where(before < sampling.top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        probabilities = jnp.where(probabilities >= threshold, probabilities, 0.0)
    # XLA sums in blocks, so rounding can move the cumulative sum at a token of probability 0: exclude those tokens.
    cumulative = jnp.where(probabilities > 0, jnp.cumsum(probabilities, axis=-1), 0.0)
    total = jnp.max(cumulative, axis=-1, keepdims=True)
    draw = jax.vmap(jax.random.uniform)(keys)[:, None] * total
    # The chosen token is the first whose cumulative probability exceeds the draw, never one of probability 0. The
    # product may round up to the total, which no cumulative probability exceeds.
    draw = jnp.minimum(draw, jnp.nextafter(total, 0.0))
    return jnp.argmax(cumulative > draw, axis=-1)
