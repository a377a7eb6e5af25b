"""The end of a loss: from hidden states to log-probabilities, where a token is scored and nowhere else.

The logits of a Gemma are by far its largest array: 262,144 numbers a token. They are made for a block of scored tokens
at a time and never kept: the turn of the loop that makes them also makes their gradient.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from showwork.shapes import ceil_div, round_up
from showwork.tunix_adapter import gemma

# Sums over tokens, by name.
Aux = dict[str, jax.Array]


class Token(NamedTuple):
    """What the model says of each token of a block, in nats, float32."""

    logp: jax.Array
    entropy: jax.Array
    """Of the whole distribution; a measurement, whose gradient is not taken."""


# term(token, values) → (sum over the block, sums by name); a token adds by itself. Values where no token is are 0.
Term = Callable[[Token, dict[str, jax.Array]], tuple[jax.Array, Aux]]


class Scored(NamedTuple):
    """The tokens of rows [N, L] and which of them count; values are at each token's own column."""

    tokens: jax.Array
    """[N, L]"""
    is_scored: jax.Array
    """[N, L]; the first column never counts, since nothing predicts it."""
    values: Mapping[str, jax.Array]
    """Arrays [N, L] that the term of a token needs, by name."""


class Distribution(NamedTuple):
    """Of each token of a block: the model's logits [..., V] without their cap, and what caps and divides them."""

    logits: jax.Array
    targets: jax.Array
    cap: float | None
    temperature: float

    def _scaled(self) -> jax.Array:
        capped = self.logits if self.cap is None else jnp.tanh(self.logits / self.cap) * self.cap
        return capped / self.temperature

    def token(self) -> Token:
        """Log-probability of each target, and entropy."""
        scaled = self._scaled()
        normaliser = jax.nn.logsumexp(scaled, axis=-1)
        chosen = jnp.take_along_axis(scaled, self.targets[..., None], axis=-1)[..., 0]
        # Not of the logits: where those are large, what is rounded of the probabilities would be multiplied by them.
        logps = scaled - normaliser[..., None]
        return Token(chosen - normaliser, -jnp.sum(jnp.exp(logps) * logps, axis=-1))

    def slopes(self, of_logps: jax.Array) -> jax.Array:
        """The gradient with respect to the logits, [..., V], from that with respect to the log-probabilities.

        (one-hot - probabilities) times it. Written out: JAX's own would scatter into an array of this size.
        """
        scaled = self._scaled()
        normaliser = jax.nn.logsumexp(scaled, axis=-1, keepdims=True)
        vocabulary = jax.lax.broadcasted_iota(jnp.int32, scaled.shape, scaled.ndim - 1)
        is_target = vocabulary == self.targets[..., None]
        slopes = (is_target - jnp.exp(scaled - normaliser)) * (of_logps / self.temperature)[..., None]
        return slopes if self.cap is None else slopes * (1 - (scaled * (self.temperature / self.cap)) ** 2)


_COLUMNS = 256  # of the table's gradient that are computed at a time


class _Block(NamedTuple):
    """Some scored tokens of every device."""

    at: jax.Array
    """[devices, P], columns of their states; n for a place that no token fills."""
    hidden: jax.Array
    """[devices, P, D]"""
    targets: jax.Array
    """[devices, P]"""
    values: dict[str, jax.Array]
    """[devices, P] each; 0 where no token is."""


@dataclass(frozen=True)
class Head:
    """The output layer over the hidden states of some rows.

    Each device of the mesh's axis fsdp has N / devices consecutive rows; their states are n = L * N / devices columns.
    """

    table: jax.Array
    """[V, D], the output layer's weight, in the compute dtype and whole along fsdp."""
    states: jax.Array
    """[devices, n, D]"""
    order: jax.Array
    """[devices, n + padding], columns of the states that predict the scored tokens, in order; n for none."""
    targets: jax.Array
    """[devices, n], by column of the state."""
    values: dict[str, jax.Array]
    """[devices, n] each, as the targets."""
    size: int
    """Tokens of each device in a block."""
    cap: float | None
    temperature: float

    @classmethod
    def over(
        cls, hidden: jax.Array, scored: Scored, table: jax.Array, *, devices: int, positions: int, cap: float | None,
        temperature: float,
    ) -> "Head":  # fmt: skip
        """Of hidden [N, L, D], where hidden[:, t] predicts tokens[:, t + 1]; `positions` tokens of a device a block."""
        by_device = lambda x: x.reshape(devices, -1, *x.shape[2:])  # noqa: E731
        # The state of a column predicts the next column's token.
        ahead = lambda x: by_device(jnp.pad(x[:, 1:], ((0, 0), (0, 1))))  # noqa: E731
        states, is_scored = by_device(hidden), ahead(scored.is_scored)
        n = states.shape[1]
        size = min(positions, n)
        first = jnp.argsort(~is_scored, axis=1, stable=True)
        order = jnp.where(jnp.take_along_axis(is_scored, first, axis=1), first, n)
        order = jnp.pad(order, ((0, 0), (0, round_up(n, size) - n)), constant_values=n)
        # Gathered here and not in each turn.
        table = gemma.shard(table.astype(hidden.dtype), ("tp", None))
        values = {name: ahead(value) for name, value in scored.values.items()}
        return cls(table, states, order, ahead(scored.tokens), values, size, cap, temperature)

    def sums(self, term: Term) -> tuple[jax.Array, Aux]:
        """The term's sum over all scored tokens, and its sums by name."""

        def add(number: jax.Array, sums: tuple[jax.Array, Aux]) -> tuple[jax.Array, Aux]:
            block = self._take(number)
            return jax.tree.map(jnp.add, sums, term(self._look(block).token(), block.values))

        return jax.lax.fori_loop(0, self._turns(), add, self._nothing(term))

    def gradients(
        self, term: Term, to_table: jax.Array | None
    ) -> tuple[tuple[jax.Array, Aux], jax.Array, jax.Array | None]:
        """The same sums; the gradient with respect to the states [devices, n, D]; and to_table with the table's added.

        to_table [devices, V, D] is float32, each device's own sum; None where the table is frozen.
        """

        def add(number, carry):
            sums, to_states, to_table = carry
            block = self._take(number)
            seen = self._look(block)
            found, of_tokens = jax.value_and_grad(term, has_aux=True)(seen.token(), block.values)
            slopes = seen.slopes(of_tokens.logp).astype(self.table.dtype)
            part = jnp.einsum("npv,vd->npd", slopes, self.table)
            to_states = jax.vmap(lambda x, at, part: x.at[at].set(part, mode="drop"))(to_states, block.at, part)
            if to_table is not None:
                to_table = _add_products(to_table, slopes, block.hidden)
            return jax.tree.map(jnp.add, sums, found), to_states, to_table

        # The number of turns is a runtime value, which reverse mode can't differentiate.
        start = (self._nothing(term), jnp.zeros_like(self.states), to_table)
        return jax.lax.fori_loop(0, self._turns(), add, start)

    def logps(self) -> jax.Array:
        """Log-probability of each scored token, [devices, n], at the column of the state that predicts it; else 0."""

        def add(number: jax.Array, logps: jax.Array) -> jax.Array:
            block = self._take(number)
            found = self._look(block).token().logp
            return jax.vmap(lambda row, at, part: row.at[at].set(part, mode="drop"))(logps, block.at, found)

        return jax.lax.fori_loop(0, self._turns(), add, jnp.zeros(self.targets.shape, jnp.float32))

    def _turns(self) -> jax.Array:
        """As many blocks as the device with most scored tokens has."""
        count = jnp.sum(self.order < self.targets.shape[1], axis=1)
        return ceil_div(jnp.max(count), self.size)

    def _take(self, number: jax.Array) -> _Block:
        at = jax.lax.dynamic_slice_in_dim(self.order, number * self.size, self.size, axis=1)
        take = jax.vmap(lambda x, at: x.at[at].get(mode="fill", fill_value=0))
        values = {name: take(value, at) for name, value in self.values.items()}
        return _Block(at, take(self.states, at), take(self.targets, at), values)

    def _look(self, block: _Block) -> Distribution:
        return Distribution(gemma.unembed(block.hidden, self.table), block.targets, self.cap, self.temperature)

    def _nothing(self, term: Term) -> tuple[jax.Array, Aux]:
        zeros = jnp.zeros((len(self.order), self.size), jnp.float32)
        shapes = jax.eval_shape(term, Token(zeros, zeros), dict.fromkeys(self.values, zeros))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _add_products(to_table: jax.Array, slopes: jax.Array, hidden: jax.Array) -> jax.Array:
    """to_table [devices, V, D] with slopes [devices, P, V] times hidden [devices, P, D] added, in float32.

    A few columns at a time: XLA for CPUs keeps each product beside the sum, and the whole one takes as much memory.
    """
    for start in range(0, hidden.shape[-1], _COLUMNS):
        part = hidden[..., start : start + _COLUMNS]
        product = jnp.einsum("npv,npd->nvd", slopes, part, preferred_element_type=jnp.float32)
        to_table = to_table.at[..., start : start + _COLUMNS].add(product)
    return to_table
