"""Log-probabilities of tokens that were sampled earlier: those of the old policy and of the reference."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork import devices
from showwork.training.losses import CHUNK_ROWS, row_statistics, take_chunk, used_chunks
from showwork.tunix_adapter.gemma import Model


class _Rows(NamedTuple):
    """Arrays [N, L], as losses.row_statistics reads them."""

    tokens: jax.Array
    positions: jax.Array
    segments: jax.Array
    branches: jax.Array | None


def completion_logps(
    model: Model, rows: Mapping[str, np.ndarray], *, mesh: jax.sharding.Mesh, temperature: float
) -> np.ndarray:
    """Log-probability of each token given those before it, [N, L]; 0 at the first of a row, and in empty rows.

    At the first token of a segment or branch the value has no meaning. Rows are laid out as losses.in_chunks needs
    them, with branches or whole.
    """
    graphdef, state = nnx.split(model)
    inputs: tuple[Any, ...] = (rows["tokens"], rows["positions"], rows["segments"], rows.get("branches"))
    placed = _Rows(*devices.spread(inputs, mesh))
    return np.asarray(_logps(graphdef, state, placed, temperature=temperature, shards=mesh.shape["fsdp"]))


@functools.partial(jax.jit, static_argnames=("graphdef", "temperature", "shards"))
def _logps(graphdef: nnx.GraphDef, state: nnx.State, rows: _Rows, *, temperature: float, shards: int) -> jax.Array:
    """[N, L] of rows [N, L] that are spread over `shards` devices, a chunk of each device's rows at a time."""
    shape = rows.tokens.shape

    def add(number: jax.Array, logps: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state)
        part, _ = row_statistics(model, *take_chunk(rows, number, devices=shards), temperature=temperature)
        part = jnp.pad(part, ((0, 0), (1, 0))).reshape(shards, -1, shape[1])
        return jax.lax.dynamic_update_slice_in_dim(logps, part, number * CHUNK_ROWS, axis=1)

    empty = jnp.zeros((shards, shape[0] // shards, shape[1]))
    return jax.lax.fori_loop(0, used_chunks(rows.segments, devices=shards), add, empty).reshape(shape)
