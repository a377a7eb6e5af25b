"""The passes of a step: as many rows at a time as a device has memory for, with the gradient summed over them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from showwork.config import Hardware
from showwork.shapes import ceil_div, round_up
from showwork.training.head import Aux, Head
from showwork.training.losses import Loss, Rows, attention_mask
from showwork.tunix_adapter import gemma, parameters
from showwork.tunix_adapter.gemma import Model

# A pytree of arrays [N, L].
Tree = TypeVar("Tree")
# A loss, and sums by name.
Sums = tuple[jax.Array, Aux]
# The embedding, which is the output layer too.
_TABLE = nnx.All(nnx.Param, nnx.PathContains("input_embedding"))
# Axes of its gradient while each device sums its own, [devices, V, D].
_PARTIAL = ("fsdp", "tp", None)


@dataclass(frozen=True)
class Split:
    """What a device takes at a time: changes memory and speed, and no result but by rounding."""

    devices: int
    """Devices of the mesh's axis fsdp, each of which holds an equal run of consecutive rows."""
    tokens: int
    """hardware.tokens_per_pass: tokens of a forward and backward pass, a row at least."""
    logit_positions: int
    """hardware.logit_positions: tokens whose logits are held at a time."""

    @classmethod
    def of(cls, hardware: Hardware) -> "Split":
        return cls(hardware.mesh.fsdp, hardware.tokens_per_pass, hardware.logit_positions)

    def capacity(self, rows: int, width: int) -> int:
        """The number of rows [capacity, width] that holds this many and can be cut into equal passes."""
        a_device = ceil_div(rows, self.devices)
        return round_up(a_device, self.rows(a_device, width)) * self.devices

    def rows(self, a_device: int, width: int) -> int:
        """Rows of a pass on each device, of a_device rows of this width."""
        return min(a_device, max(1, self.tokens // width))


def in_passes(loss: Loss, *, split: Split, wrt: nnx.filterlib.Filter) -> Callable[[Model, Rows], Sums]:
    """The loss of rows [split.capacity(…), L] as a function of a model, evaluated on a few rows at a time.

    Rows without a segment come last on each device and cost nothing: their number is a runtime value and no shape, so
    batches of any fill share one compiled program. wrt selects the variables to differentiate. They may be float32
    while the model computes in bfloat16: gradients are summed over the passes in float32, and the embedding's over the
    devices too, at the end. A layer's are summed over them in the compute dtype, as its backward pass gives them.
    """

    def summed(model: Model, rows: Rows) -> Sums:
        passes = Passes(model, loss, split, wrt=wrt)

        # Reverse mode can't differentiate a loop of unknown length: each turn takes its own gradient instead.
        @jax.custom_vjp
        def total(weights: "Weights", rows: Rows) -> Sums:
            return passes.sums(weights, rows)

        def forward(weights: "Weights", rows: Rows) -> tuple[Sums, "Weights"]:
            return passes.gradients(weights, rows)

        def backward(slopes: "Weights", cotangents: Sums) -> tuple["Weights", None]:
            return jax.tree.map(lambda leaf: leaf * cotangents[0], slopes), None

        total.defvjp(forward, backward)
        return total(passes.weights, rows)

    return summed


# The model's states: the table, what is trained besides, and the frozen rest.
Weights = tuple[nnx.State, nnx.State, nnx.State]


class Passes:
    """The passes of a model over the rows of a step."""

    def __init__(self, model: Model, loss: Loss, split: Split, *, wrt: nnx.filterlib.Filter):
        self._graphdef, table, trained, fixed = nnx.split(model, _TABLE, wrt, ...)
        self.weights: Weights = (table, trained, fixed)
        self._trains_table = wrt is nnx.Param
        self._loss, self._split, self._dtype = loss, split, model.compute_dtype
        self._window, self._cap = gemma.sliding_window(model), gemma.final_softcap(model)

    def sums(self, weights: Weights, rows: Rows) -> Sums:
        """The loss and its sums by name."""

        def add(rows: Rows, sums: Sums) -> Sums:
            return jax.tree.map(jnp.add, sums, self._pass_sums(weights, rows))

        return self._loop(add, rows, self._nothing(weights, rows))

    def gradients(self, weights: Weights, rows: Rows) -> tuple[Sums, Weights]:
        """The same, and the gradients; those of what is frozen are 0."""
        table, trained, fixed = weights
        of_table = None
        if self._trains_table:
            of_table = jnp.zeros((self._split.devices, *_array(table).shape), jnp.float32)
            of_table = gemma.shard(of_table, _PARTIAL)
        start = (self._nothing(weights, rows), of_table, jax.tree.map(jnp.zeros_like, trained))
        add = functools.partial(self._add_gradients, weights)
        sums, of_table, of_trained = self._loop(add, rows, start)
        frozen = jax.tree.map(jnp.zeros_like, (table, fixed))
        if of_table is None:
            return sums, (frozen[0], of_trained, frozen[1])
        of_table = jnp.sum(of_table, axis=0).astype(_array(table).dtype)
        return sums, (jax.tree.map(lambda _: of_table, table), of_trained, frozen[1])

    def logps(self, rows: Rows) -> jax.Array:
        """Log-probability of each token that counts, [N, L]; 0 at the others."""
        count, width = rows.tokens.shape
        devices = self._split.devices

        def add(rows: Rows, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            logps, row = carry
            found = self._head(self.weights, self._hidden(self.weights, rows), rows).logps()
            found = jnp.pad(found.reshape(-1, width)[:, :-1], ((0, 0), (1, 0))).reshape(devices, -1, width)
            return jax.lax.dynamic_update_slice_in_dim(logps, found, row, axis=1), row + found.shape[1]

        empty = jnp.zeros((devices, count // devices, width))
        return self._loop(add, rows, (empty, jnp.int32(0)))[0].reshape(count, width)

    def _loop(self, add: Callable[[Rows, Tree], Tree], rows: Rows, start: Tree) -> Tree:
        """add over the passes that have a segment; without a loop where all rows go at once."""
        count, width = rows.tokens.shape
        a_pass = self._split.rows(count // self._split.devices, width)
        if count == a_pass * self._split.devices:
            return add(rows, start)
        part = functools.partial(take, rows, rows_per_pass=a_pass, devices=self._split.devices)
        number = used(rows.segments, rows_per_pass=a_pass, devices=self._split.devices)
        return jax.lax.fori_loop(0, number, lambda i, carry: add(part(i), carry), start)

    def _add_gradients(self, weights: Weights, rows: Rows, carry: Any) -> Any:
        sums, of_table, of_trained = carry
        table, trained, fixed = weights
        embedded = gemma.embed(_array(table), rows.tokens, self._dtype)
        hidden, backward = jax.vjp(
            lambda trained, embedded: self._hidden((table, trained, fixed), rows, embedded), trained, embedded
        )
        found, slopes, of_table = self._head(weights, hidden, rows).gradients(self._loss.term, of_table)
        more, of_embedded = backward(slopes.reshape(hidden.shape))
        if of_table is not None:
            devices, width = len(of_table), hidden.shape[-1]
            scale = gemma.embedding_scale(width, self._dtype).astype(jnp.float32)
            parts = (of_embedded.astype(jnp.float32) * scale).reshape(devices, -1, width)
            # In place, and in float32: the gradients of a frequent token are many.
            of_table = jax.vmap(lambda x, at, part: x.at[at].add(part))(
                of_table, rows.tokens.reshape(devices, -1), parts
            )
        return jax.tree.map(jnp.add, sums, found), of_table, jax.tree.map(jnp.add, of_trained, more)

    def _pass_sums(self, weights: Weights, rows: Rows) -> Sums:
        return self._head(weights, self._hidden(weights, rows), rows).sums(self._loss.term)

    def _hidden(self, weights: Weights, rows: Rows, embedded: jax.Array | None = None) -> jax.Array:
        """Final hidden states [N, L, D], in the compute dtype."""
        table, *others = weights
        if embedded is None:
            embedded = gemma.embed(_array(table), rows.tokens, self._dtype)
        cast = (parameters.in_dtype(state, self._dtype) for state in others)
        hidden, _ = nnx.merge(self._graphdef, table, *cast)(
            rows.tokens, positions=rows.positions, cache=None, attention_mask=attention_mask(rows, self._window),
            return_hidden=True, embedded=embedded,
        )  # fmt: skip
        return hidden

    def _head(self, weights: Weights, hidden: jax.Array, rows: Rows) -> Head:
        return Head.over(
            hidden, self._loss.scored(rows), _array(weights[0]), devices=self._split.devices,
            positions=self._split.logit_positions, cap=self._cap, temperature=self._loss.temperature,
        )  # fmt: skip

    def _nothing(self, weights: Weights, rows: Rows) -> Sums:
        a_row = jax.tree.map(lambda x: x[: self._split.devices], rows)
        shapes = jax.eval_shape(self._pass_sums, weights, a_row)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _array(table: nnx.State) -> jax.Array:
    """The embedding [V, D]."""
    (array,) = jax.tree.leaves(table)
    return array


def take(rows: Tree, number: jax.Array, *, rows_per_pass: int, devices: int) -> Tree:
    """Rows number * rows_per_pass and following of every device, of each array [N, L]: no row changes its device."""

    def part(array: jax.Array) -> jax.Array:
        by_device = array.reshape(devices, -1, *array.shape[1:])
        chosen = jax.lax.dynamic_slice_in_dim(by_device, number * rows_per_pass, rows_per_pass, axis=1)
        return chosen.reshape(-1, *array.shape[1:])

    return jax.tree.map(part, rows)


def used(segments: jax.Array, *, rows_per_pass: int, devices: int) -> jax.Array:
    """How many passes have a segment, where rows without one come last on each device."""
    rows = jnp.sum(jnp.any(segments > 0, axis=1).reshape(devices, -1), axis=1)
    return ceil_div(jnp.max(rows), rows_per_pass)
