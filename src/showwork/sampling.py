"""How the next token is chosen from the logits."""

import functools
import math
from collections.abc import Callable
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


# A large vocabulary is searched in two steps, for a block and for a token in it. For a whole row XLA for CPUs needs ten
# times as long.
BLOCK = 1024


def choose(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> jax.Array:
    """The next token of each row, [N] from logits [N, V] and one key per row.

    Sampled by the inverse of the cumulative distribution: one or two uniform numbers per row instead of V Gumbels.
    top_k and top_p keep the tokens that reach their threshold, ties included.
    """
    logits = logits.astype(jnp.float32)
    if sampling.greedy:
        return _in_blocks(logits, keys, jnp.max, lambda values, _: jnp.argmax(values, axis=-1))
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = jnp.where(logits >= _kth_largest(logits, sampling.top_k), logits, -jnp.inf)
    probabilities = jax.nn.softmax(logits, axis=-1)
    if sampling.top_p < 1:
        probabilities = jnp.where(probabilities > _below_nucleus(probabilities, sampling.top_p), probabilities, 0.0)
    return _in_blocks(probabilities, keys, jnp.sum, _draw)


def _kth_largest(values: jax.Array, k: int) -> jax.Array:
    """The k-th largest of each row, [N, 1] from values [N, V]; of fewer values, the smallest.

    The k blocks with the largest maxima hold it: XLA for CPUs needs a hundred times as long for whole rows of 262,144.
    """
    size = math.gcd(values.shape[-1], 64)
    if k * size < values.shape[-1]:
        blocks = values.reshape(len(values), -1, size)
        best = jax.lax.top_k(jnp.max(blocks, axis=-1), k)[1]
        values = jnp.take_along_axis(blocks, best[:, :, None], axis=1).reshape(len(values), -1)
    return jax.lax.top_k(values, min(k, values.shape[-1]))[0][:, -1:]


def _below_nucleus(probabilities: jax.Array, top_p: float) -> jax.Array:
    """The largest number, [N, 1], above which the probabilities [N, V] of a row add up to top_p or more.

    Found bit by bit, as positive floats are ordered like their bits: sorting a large vocabulary takes far longer.
    """

    def with_bit(i: jax.Array, bits: jax.Array) -> jax.Array:
        candidate = bits | (jnp.uint32(1) << (30 - i).astype(jnp.uint32))
        least = jax.lax.bitcast_convert_type(candidate, jnp.float32)
        above = jnp.sum(jnp.where(probabilities > least, probabilities, 0.0), axis=-1, keepdims=True)
        return jnp.where(above >= top_p, candidate, bits)

    start = jnp.zeros((len(probabilities), 1), jnp.uint32)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, with_bit, start), jnp.float32)


def _in_blocks(
    values: jax.Array, keys: jax.Array, whole: Callable[..., jax.Array],
    pick: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:  # fmt: skip
    """pick(values [N, V], keys) [N], in two steps where V has several blocks: among blocks, for which `whole` stands,
    then in the one that was picked."""
    size = math.gcd(values.shape[-1], BLOCK)
    if size == values.shape[-1]:
        return pick(values, keys)
    blocks = values.reshape(len(values), -1, size)
    block = pick(whole(blocks, axis=-1), jax.vmap(jax.random.fold_in, (0, None))(keys, 1))
    return block * size + pick(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], keys)


def _draw(weights: jax.Array, keys: jax.Array) -> jax.Array:
    """One of n for each row of weights [N, n], with probabilities that are proportional to them."""
    # XLA sums in blocks, so rounding can move the cumulative sum at a weight of 0: exclude those.
    cumulative = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
    total = jnp.max(cumulative, axis=-1, keepdims=True)
    draw = jax.vmap(jax.random.uniform)(keys)[:, None] * total
    # The first whose cumulative weight exceeds the draw is chosen, never one of weight 0. The product may round up to
    # the total, which no cumulative weight exceeds.
    draw = jnp.minimum(draw, jnp.nextafter(total, 0.0))
    return jnp.argmax(cumulative > draw, axis=-1)
