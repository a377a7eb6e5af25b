"""The mesh of devices, and how arrays are sharded over it."""

import contextlib
from collections.abc import Generator
from typing import TypeVar

import jax
import numpy as np
from flax import nnx

from showwork.config import Mesh
from showwork.errors import UserError

AXES = ("fsdp", "tp")
# A pytree of arrays.
Tree = TypeVar("Tree")


def make_mesh(config: Mesh) -> jax.sharding.Mesh:
    """The first fsdp * tp devices, as a mesh with Tunix's axis names: the layout of training.

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
    return jax.sharding.Mesh(np.array(jax.devices()[:wanted]).reshape(config.fsdp, config.tp), AXES)


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh | None) -> Generator[None]:
    """The mesh as the context that programs are compiled in; without one, none.

    A program has one context everywhere: in another it would be compiled again.
    """
    with mesh or contextlib.nullcontext():
        yield


def rollout_mesh(mesh: jax.sharding.Mesh, *, tp: int) -> jax.sharding.Mesh:
    """The devices of the mesh in the layout of sampling: tp of them share out each matrix, the others rows.

    Training gathers a layer's weights once a pass of thousands of tokens; sampling would gather them for every token.
    """
    return mesh if mesh.shape["tp"] == tp else jax.sharding.Mesh(mesh.devices.reshape(-1, tp), AXES)


def for_rollout(state: nnx.State, mesh: jax.sharding.Mesh) -> nnx.State:
    """The weights in the layout of sampling: whole on each device, or shared out along tp.

    Those that have it already are shared, not copied.
    """

    def sharding(spec: jax.sharding.PartitionSpec) -> jax.NamedSharding:
        axes = [axis if axis == "tp" and not _is_cpu(mesh) else None for axis in spec]
        return jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, sharding(spec)), state, nnx.get_partition_spec(state))


def place(model: nnx.Module | nnx.Optimizer[nnx.Module], mesh: jax.sharding.Mesh) -> None:
    """Shards the weights over the mesh by the model's own annotations, in place."""
    state = nnx.state(model)
    nnx.update(model, jax.tree.map(jax.device_put, state, shardings(state, mesh)))


def spread(rows: Tree, mesh: jax.sharding.Mesh, *, last_of_three: str | None = None) -> Tree:
    """Shards the first axis of each array [N, ...] over the mesh's axis fsdp, and the last one of three as told."""

    def sharding(leaf: jax.Array) -> jax.NamedSharding:
        axes = ("fsdp", None, last_of_three) if leaf.ndim == 3 and last_of_three else ("fsdp",)
        return jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    return jax.device_put(rows, jax.tree.map(sharding, rows))


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
