"""Log-probabilities of tokens that were sampled earlier: those of the old policy and of the reference."""

import functools

import jax
import numpy as np
from flax import nnx

from showwork import devices
from showwork.training.losses import Loss, Rows
from showwork.training.passes import Passes, Split
from showwork.tunix_adapter import gemma
from showwork.tunix_adapter.gemma import Model


def completion_logps(model: Model, rows: Rows, *, loss: Loss, split: Split, mesh: jax.sharding.Mesh) -> np.ndarray:
    """Log-probability of each token that counts in the loss, [N, L] of rows [split.capacity(…), L]; 0 at the others."""
    with devices.use(mesh):
        return np.asarray(_logps(*gemma.computing(model), devices.spread(rows, mesh), loss, split))


@functools.partial(jax.jit, static_argnames=("graphdef", "loss", "split"))
def _logps(graphdef: nnx.GraphDef, state: nnx.State, rows: Rows, loss: Loss, split: Split) -> jax.Array:
    return Passes(nnx.merge(graphdef, state), loss, split, wrt=nnx.Nothing()).logps(rows)
