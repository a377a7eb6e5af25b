"""The weights of a model: by name, in another dtype, filled from a checkpoint, or drawn for training from scratch."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork import devices

# A path of jax.tree_util through a model's state.
KeyPath = tuple[Any, ...]


def by_name(model: nnx.Module) -> dict[str, jax.Array]:
    """Tunix's name of each weight, such as layers.0.attn.q_einsum.w, → the weight."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    return {dotted(path): value for path, value in leaves}


def in_dtype(state: nnx.State, dtype: jnp.dtype, *, but: tuple[str, ...] = ()) -> nnx.State:
    """The state with every floating-point weight in this dtype, but for those with such a name in their path."""

    def cast(path: KeyPath, value: jax.Array) -> jax.Array:
        is_kept = value.dtype == dtype or not jnp.issubdtype(value.dtype, jnp.floating)
        return value if is_kept or any(name in dotted(path) for name in but) else value.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, state)


def fill(model: nnx.Module, read: Callable[[str], np.ndarray], *, mesh: jax.sharding.Mesh | None = None) -> None:
    """Sets each weight of a model, which may be abstract, to read(name), in place.

    Weights are read one at a time, so that there is never a second copy of a large model, and sharded over the mesh at
    once, so that the model need not fit on one device.
    """
    state = nnx.state(model, nnx.Param)

    def put(path: KeyPath, wanted: jax.ShapeDtypeStruct | jax.Array, *sharding: jax.NamedSharding) -> jax.Array:
        return jax.device_put(np.asarray(read(dotted(path)), wanted.dtype), *sharding)

    shardings = [devices.shardings(state, mesh)] if mesh else []
    nnx.update(model, jax.tree_util.tree_map_with_path(put, state, *shardings))


def dotted(path: KeyPath) -> str:
    """The path as text, such as layers.0.attn.q_einsum.w."""
    parts = [str(getattr(part, "key", getattr(part, "name", part))) for part in path]
    return ".".join(part for part in parts if part != "value")


def draw_weights(model: nnx.Module, *, key: jax.Array) -> None:
    """Initialises the weights for training from scratch, in place.

    Tunix initialises the MLP's three kernels to zero, where their gradients stay zero for ever, and its embeddings
    (std 0.01) far below the unit scale of the normalised branches. Here weights are normal with variance 1/fan_in, and
    embeddings with variance 1/D, so that encoded tokens and logits both start at unit scale; norms start at identity.
    A weight depends on the key and its own path alone.
    """

    def draw(path: KeyPath, value: jax.Array) -> jax.Array:
        name = "/".join(str(getattr(part, "key", part)) for part in path)
        if "scale" in name:
            return jnp.zeros_like(value)
        if "input_embedding" in name:
            fan_in = value.shape[1]
        elif "attn_vec_einsum" in name:  # [N, H, D]
            fan_in = value.shape[0] * value.shape[1]
        else:  # kernels [in, out], projections [..., D, H]
            fan_in = value.shape[-2]
        weight_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return (jax.random.normal(weight_key, value.shape, jnp.float32) * fan_in**-0.5).astype(value.dtype)

    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree_util.tree_map_with_path(draw, state))
