"""The mesh of devices, and how arrays are sharded over it."""

import contextlib
from typing import TypeVar

import jax
import numpy as np
from flax import nnx

from showwork.config import Mesh
from showwork.errors import UserError

# A pytree of arrays.
Tree = TypeVar("Tree")


def make_mesh(config: Mesh) -> jax.sharding.Mesh:
    """The first fsdp * tp devices, as a mesh with Tunix's axis names.

    On a CPU it sets the number of virtual devices, so call it before JAX initialises. Two devices on two cores train
    faster than one device on both: XLA runs most of a backward pass on one core (bench/NOTES.md).
    """
    wanted = config.fsdp * config.tp
    if wanted > 1:
        # Once JAX has initialised this raises, and there must be enough devices already. Only CPUs are affected.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", wanted)
    if wanted > len(jax.devices()):
        raise UserError(f"params.yaml: hardware.mesh asks for {wanted} devices; there are {len(jax.devices())}")
    return jax.sharding.Mesh(np.array(jax.devices()[:wanted]).reshape(config.fsdp, config.tp), ("fsdp", "tp"))


def place(model: nnx.Module | nnx.Optimizer[nnx.Module], mesh: jax.sharding.Mesh) -> None:
    """Shards the weights over the mesh by the model's own annotations, in place."""
    state = nnx.state(model)
    nnx.update(model, jax.tree.map(jax.device_put, state, shardings(state, mesh)))


def spread(rows: Tree, mesh: jax.sharding.Mesh) -> Tree:
    """Shards the first axis of each array [N, ...] over the mesh's axis fsdp."""
    return jax.device_put(rows, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp")))


def shardings(state: nnx.State, mesh: jax.sharding.Mesh) -> nnx.State:
    """The sharding of each weight, by the model's annotations.

    On a CPU every device gets whole weights: its devices share one memory, and sharded weights would only have to be
    gathered in every layer.
    """
    specs = nnx.get_partition_spec(state)
    if _is_cpu(mesh):
        specs = jax.tree.map(lambda _: jax.sharding.PartitionSpec(), specs)
    return jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), specs)


def _is_cpu(mesh: jax.sharding.Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"
