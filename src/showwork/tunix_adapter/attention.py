"""Attention for the three Gemma generations, in place of Tunix's.

Axes: B rows, T queries, S keys, N query heads, K key-value heads, G = N / K query heads per key head, H head size, D
model width.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from showwork.shapes import ceil_div
from showwork.tunix_adapter.lazily import lazily

with lazily("tunix"):
    from tunix.models.gemma import model as tunix_gemma
    from tunix.models.gemma3 import model as tunix_gemma3
    from tunix.utils import sharding_utils

# Queries per block, where there is no cache, and the largest number of blocks per row.
ATTENTION_BLOCK = 64
MOST_BLOCKS = 8

# "k" and "v" [B, S, K * H], and "end_index" [B], the column written next. With an axis for the key heads, XLA for CPUs
# copies both four times a step: it would multiply them in another shape than it writes them in.
LayerCache = dict[str, jax.Array]
# [B, T, S]; or a pair of such masks, for global layers and for local ones.
Mask = jax.Array | tuple[jax.Array, jax.Array]


def _attention(
    self: "GemmaAttention | Gemma3Attention", x: jax.Array, segment_pos: jax.Array, cache: LayerCache | None,
    attn_mask: Mask,
) -> tuple[LayerCache | None, jax.Array]:  # fmt: skip
    """Attention.block of all three generations: the updated cache, and the output [B, T, D] for x [B, T, D].

    Tunix's multiplies every query with every key and masks afterwards, and copies the key heads for each of their query
    heads. In local layers of Gemma 2 it compares positions with columns, which differ under left padding and packing.
    Here a query is multiplied with the keys that it may see and few more, and windows are measured in columns.
    """
    if self.use_qkv_einsum:
        queries, keys, values = self.qkv_einsum(x)
    else:
        queries, (keys, values) = self.q_einsum(x), self.kv_einsum(x)
    # Tunix's annotation leaves out that an axis may be None.
    shard: Callable[[jax.Array, tuple[str | None, ...]], jax.Array] = sharding_utils.shard  # ty: ignore[invalid-assignment]
    queries, keys, values = (shard(part, self.shd_config.act_btnh) for part in (queries, keys, values))
    queries, keys = self._rotate(queries, keys, segment_pos)
    first = None
    if cache is not None:
        first = cache["end_index"][0]
        written = {
            name: jax.lax.dynamic_update_slice(cache[name], new.reshape(*new.shape[:2], -1), (0, first, 0))
            for name, new in (("k", keys), ("v", values))
        }
        keys, values = (part.reshape(*part.shape[:2], *keys.shape[2:]) for part in written.values())
        cache = written | {"end_index": cache["end_index"] + x.shape[1]}
    is_local = self.attn_type.name == "LOCAL_SLIDING"
    window = self.sliding_window_size if is_local else None
    if isinstance(attn_mask, tuple):
        # (global, local) masks, for packed rows where column distance is not token distance.
        attn_mask, window = attn_mask[is_local], None
    encoded = attend(
        queries, keys, values, attn_mask, window=window, softcap=getattr(self, "attn_logits_soft_cap", None),
        first=first,
    )  # fmt: skip
    return cache, shard(self.attn_vec_einsum(encoded), self.shd_config.act_btd)


class Gemma3Attention(tunix_gemma3.Attention):
    block = _attention

    def _rotate(self, queries: jax.Array, keys: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        rope = functools.partial(
            tunix_gemma3.apply_rope, positions=positions, head_dim=self.head_dim,
            base_frequency=self.rope_base_frequency, scale_factor=self.rope_scale_factor,
        )  # fmt: skip
        return rope(self._query_norm(queries)) * self.query_pre_attn_scalar, rope(self._key_norm(keys))


class GemmaAttention(tunix_gemma.Attention):
    block = _attention

    def _rotate(self, queries: jax.Array, keys: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        rope = functools.partial(tunix_gemma.apply_rope, positions=positions, head_dim=self.head_dim)
        return rope(queries) * self.head_dim**-0.5, rope(keys)


def attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, *, window: int | None,
    softcap: float | None = None, first: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Attention output [B, T, N, H] of scaled queries [B, T, N, H] over keys and values [B, S, K, H].

    mask [B, T, S] must be causal. With a window, a query sees that many columns, the last of them its own. first is
    the cache column of the first query; None means that there is no cache, and S = T.
    """
    length, size = mask.shape[1:]
    if first is None:
        return _attend_in_blocks(queries, keys, values, mask, window=window, softcap=softcap)
    if window and length == 1 and window < size:
        start = jnp.clip(first - window + 1, 0, size - window)
        keys, values = (jax.lax.dynamic_slice_in_dim(part, start, window, axis=1) for part in (keys, values))
        mask = jax.lax.dynamic_slice_in_dim(mask, start, window, axis=2)
    elif window:
        mask &= (first + jnp.arange(length)[:, None] - jnp.arange(size)[None] < window)[None]
    attention = _one_query_attention if length == 1 else _softmax_attention
    return attention(queries, keys, values, mask, softcap)


def _attend_in_blocks(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, *, window: int | None,
    softcap: float | None,
) -> jax.Array:  # fmt: skip
    """attend without a cache: each block of queries with the blocks of keys that it may see."""
    length = mask.shape[1]
    block = max(ATTENTION_BLOCK, ceil_div(length, MOST_BLOCKS))
    starts = [*range(0, length, block), length]
    sizes = np.diff(starts).tolist()
    # Split, not sliced: the gradient of a slice is an array of the whole's size, filled up with zeros.
    split = [jax.lax.split(part, sizes, axis=1) for part in (queries, keys, values)]
    parts = []
    for i, (start, end) in enumerate(itertools.pairwise(starts)):
        oldest = max(0, start - window + 1) // block if window else 0
        seen = slice(starts[oldest], end)
        part = mask[:, start:end, seen]
        if window:
            part &= (np.arange(start, end)[:, None] - np.arange(seen.start, end)[None] < window)[None]
        near = [jnp.concatenate(blocks[oldest : i + 1], axis=1) for blocks in split[1:]]
        parts.append(_softmax_attention(split[0][i], *near, part, softcap))
    return jnp.concatenate(parts, axis=1)


def _one_query_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, softcap: float | None
) -> jax.Array:
    """_softmax_attention of a single query, T = 1: products in the cache's own layout, which XLA would else copy."""
    batch, _, heads, size = queries.shape
    grouped = queries.reshape(batch, keys.shape[2], -1, size)
    logits = jax.lax.dot_general(keys, grouped, (((3,), (3,)), ((0, 2), (0, 1))), preferred_element_type=jnp.float32)
    logits = jnp.swapaxes(logits, 2, 3)  # [B, K, G, S]
    if softcap is not None:
        logits = jnp.tanh(logits / softcap) * softcap
    logits = jnp.where(mask[:, :, None, :], logits, tunix_gemma3.K_MASK)
    shares = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
    found = jax.lax.dot_general(shares, values, (((3,), (1,)), ((0, 1), (0, 2))))
    return found.reshape(batch, 1, heads, size)


def _softmax_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, softcap: float | None
) -> jax.Array:
    """[B, T, N, H], with the softmax in float32."""
    batch, length, heads, size = queries.shape
    # The query heads of a key head are rows of one product: with a single key head nothing is copied or transposed.
    queries = queries.reshape(batch, length, keys.shape[2], -1, size)
    logits = jnp.einsum("BTKGH,BSKH->BKTGS", queries, keys, preferred_element_type=jnp.float32)
    if softcap is not None:
        logits = jnp.tanh(logits / softcap) * softcap
    logits = jnp.where(mask[:, None, :, None, :], logits, tunix_gemma3.K_MASK)
    shares = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
    return jnp.einsum("BKTGS,BSKH->BTKGH", shares, values).reshape(batch, length, heads, size)
