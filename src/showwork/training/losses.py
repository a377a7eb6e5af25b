"""Training losses and their terms: log-probabilities, entropy, KL, clipping.

A loss here is a plain sum of per-token terms times per-token weights. The weights contain the division by the count of
the whole step and the factor M, the number of micro-batches, because optax.MultiSteps averages micro-batches equally:
sum_i(micro_i * M / count) / M = sum / count, exactly, however the tokens are distributed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from showwork.shapes import ceil_div, packed_mask
from showwork.tunix_adapter import gemma
from showwork.tunix_adapter.gemma import Model

# Rows per device in one forward and backward pass, whose working set stays in the caches (bench/NOTES.md).
CHUNK_ROWS = 4

# Sums over tokens, by name.
Aux = dict[str, jax.Array]
# A pytree of arrays [N, L].
Tree = TypeVar("Tree")


class PolicyRows(NamedTuple):
    """The arrays of policy_loss, each [N, L]; values of a token are at its own column."""

    tokens: jax.Array
    positions: jax.Array
    segments: jax.Array
    weights: jax.Array
    """What each completion token counts for in the loss; 0 for prompts and padding."""
    advantages: jax.Array
    old_logps: jax.Array | None
    """None on-policy: the ratio is 1 and its gradient that of REINFORCE."""
    reference_logps: jax.Array | None
    """None without a KL term."""
    branches: jax.Array | None = None


@dataclass(frozen=True)
class Objective:
    """Constants of policy_loss."""

    beta: float
    """Weight of the KL term."""
    epsilon_low: float
    epsilon_high: float
    temperature: float
    """The rollout's, at which log-probabilities are taken."""


def token_statistics(
    hidden: jax.Array, decode: Callable[[jax.Array], jax.Array], targets: jax.Array, *, chunk_tokens: int,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Log-probability of each target and entropy of its distribution, both [B, L] in nats.

    hidden [B, L, D] and targets [B, L] are aligned: hidden[:, t] predicts targets[:, t]. decode maps hidden [..., D] to
    logits [..., V]. Logits are computed for chunk_tokens positions at a time and recomputed in the backward pass, so
    that [B, L, V] is never materialised; the log-sum-exp is taken in float32.
    """

    def statistics(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = decode(hidden).astype(jnp.float32) / temperature
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        mean_logit = jnp.sum(jax.nn.softmax(jax.lax.stop_gradient(logits)) * jax.lax.stop_gradient(logits), axis=-1)
        return chosen - normaliser, jax.lax.stop_gradient(normaliser) - mean_logit

    length = hidden.shape[1]
    if length <= chunk_tokens:
        return statistics(hidden, targets)
    chunks = ceil_div(length, chunk_tokens)
    padding = chunks * chunk_tokens - length
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[0], chunks, chunk_tokens, *x.shape[2:]), 1, 0)  # noqa: E731
    logps, entropies = jax.lax.map(lambda pair: jax.checkpoint(statistics)(*pair), (split(hidden), split(targets)))
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, :length]  # noqa: E731
    return join(logps), join(entropies)


def k3(logps: jax.Array, reference_logps: jax.Array) -> jax.Array:
    """KL(policy ‖ reference) per token, estimated on tokens of the policy: r - 1 - log r with r = ref / policy.

    Never negative, zero at equality, and its gradient does not vanish on-policy, unlike that of log(policy / ref).
    Source: J. Schulman, "Approximating KL divergence" (2020), estimator k3.
    """
    log_ratio = reference_logps - logps
    return jnp.expm1(log_ratio) - log_ratio


def clipped_objective(
    logps: jax.Array, old_logps: jax.Array, advantages: jax.Array, *, epsilon_low: float, epsilon_high: float
) -> tuple[jax.Array, jax.Array]:
    """PPO's clipped surrogate per token, as a loss, and 1 where the clip was active, else 0; both [B, T].

    advantages [B, 1] or [B, T], log-probabilities [B, T]. Source: PPO eq. 7, with the two epsilons of DAPO eq. 10.
    """
    ratio = jnp.exp(logps - old_logps)
    free = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1 - epsilon_low, 1 + epsilon_high)
    return jnp.maximum(free, clipped), (clipped > free).astype(jnp.float32)


def chunk_tokens(vocabulary: int) -> int:
    """Positions decoded at a time: at most some 4 million logits per row."""
    return max(16, 2**22 // vocabulary)


def row_statistics(
    model: Model, tokens: jax.Array, positions: jax.Array, segments: jax.Array,
    branches: jax.Array | None = None, *, temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Log-probability and entropy [B, L - 1] of tokens[:, 1:], each given its own sequence alone.

    All inputs are [B, L]. segments number the sequences of a row from 1; 0 is padding. Sequences with a common prefix
    can share it within a segment: branches are 0 in the prefix and number its continuations from 1. Each branch starts
    with its own copy of the last shared token, whose logits predict its first new one.
    """
    mask = packed_mask(segments)
    if branches is not None:
        mask &= (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
        if window := gemma.sliding_window(model):
            # (global, local) masks: between branches, column distance is not token distance.
            mask = mask, mask & (positions[:, :, None] - positions[:, None, :] < window)
    hidden, _ = model(tokens, positions=positions, cache=None, attention_mask=mask, return_hidden=True)
    return token_statistics(
        hidden[:, :-1], model.decode, tokens[:, 1:], chunk_tokens=chunk_tokens(model.num_embed),
        temperature=temperature,
    )  # fmt: skip


def supervised_loss(
    model: Model, tokens: jax.Array, positions: jax.Array, segments: jax.Array, weights: jax.Array
) -> tuple[jax.Array, Aux]:
    """Cross-entropy of packed rows.

    All inputs [B, L]: positions restart in each segment; segments number the examples of a row from 1, 0 is padding;
    weights[:, t] is what the prediction OF token t counts for, 0 for prompts and padding.
    """
    logps, _ = row_statistics(model, tokens, positions, segments)
    weights = weights[:, 1:]
    loss = -jnp.sum(logps * weights)
    trained = weights > 0
    return loss, {"nll": -jnp.sum(logps * trained), "tokens": jnp.sum(trained)}


def policy_loss(model: Model, rows: PolicyRows, *, objective: Objective) -> tuple[jax.Array, Aux]:
    """Clipped policy gradient with a KL penalty, on rows in the layout of row_statistics.

    aux holds sums over the completion tokens; divide by aux["tokens"].
    """
    logps, entropies = row_statistics(
        model, rows.tokens, rows.positions, rows.segments, rows.branches, temperature=objective.temperature
    )
    weights, advantages = rows.weights[:, 1:], rows.advantages[:, 1:]
    trained = (weights > 0).astype(jnp.float32)
    old = jax.lax.stop_gradient(logps) if rows.old_logps is None else rows.old_logps[:, 1:]
    terms, is_clipped = clipped_objective(
        logps, old, advantages, epsilon_low=objective.epsilon_low, epsilon_high=objective.epsilon_high
    )
    aux = {
        "tokens": jnp.sum(trained),
        "entropy": jnp.sum(entropies * trained),
        "clipped": jnp.sum(is_clipped * trained),
    }
    if rows.reference_logps is not None:
        kl = k3(logps, rows.reference_logps[:, 1:])
        aux["kl"] = jnp.sum(kl * trained)
        terms = terms + objective.beta * kl
    return jnp.sum(terms * weights), aux


def in_chunks(
    loss_fn: Callable[[Model, PolicyRows], tuple[jax.Array, Aux]],
    *,
    devices: int,
    wrt: nnx.filterlib.Filter = nnx.Param,
) -> Callable[[Model, PolicyRows], tuple[jax.Array, Aux]]:
    """loss_fn(model, rows), a sum over rows with an aux of sums, evaluated on a few rows at a time.

    Each row array is [N, L], with N a multiple of devices * CHUNK_ROWS, of which each device holds N / devices
    consecutive rows. Rows without a segment come last on each device and cost nothing: their number is a runtime value
    and no shape, so batches of any fill share one compiled program. wrt selects the variables to differentiate.
    """

    def chunked(model: Model, rows: PolicyRows) -> tuple[jax.Array, Aux]:
        graphdef, trained, fixed = nnx.split(model, wrt, ...)

        def chunk(trained: nnx.State, fixed: nnx.State, rows: PolicyRows, number: jax.Array) -> tuple[jax.Array, Aux]:
            return loss_fn(nnx.merge(graphdef, trained, fixed), take_chunk(rows, number, devices=devices))

        def summed(function, trained, fixed, rows):
            function, first = jax.jit(function), jnp.int32(0)  # one trace for the shapes and for the loop
            zeros = jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, trained, fixed, rows, first)
            )

            def add(number, sums):
                return jax.tree.map(jnp.add, sums, function(trained, fixed, rows, number))

            return jax.lax.fori_loop(first, used_chunks(rows.segments, devices=devices), add, zeros)

        # Reverse mode cannot differentiate a loop of unknown length: each iteration takes its own gradient instead.
        @jax.custom_vjp
        def total(trained, fixed, rows):
            return summed(chunk, trained, fixed, rows)

        def forward(trained, fixed, rows):
            return summed(jax.value_and_grad(chunk, has_aux=True), trained, fixed, rows)

        def backward(gradients, cotangents):
            return jax.tree.map(lambda leaf: leaf * cotangents[0], gradients), None, None

        total.defvjp(forward, backward)
        return total(trained, fixed, rows)

    return chunked


def take_chunk(rows: Tree, number: jax.Array, *, devices: int) -> Tree:
    """Rows number * CHUNK_ROWS and following of every device, of each array [N, L]: no row changes its device."""

    def take(array: jax.Array) -> jax.Array:
        parts = array.reshape(devices, -1, *array.shape[1:])
        part = jax.lax.dynamic_slice_in_dim(parts, number * CHUNK_ROWS, CHUNK_ROWS, axis=1)
        return part.reshape(-1, *array.shape[1:])

    return jax.tree.map(take, rows)


def used_chunks(segments: jax.Array, *, devices: int) -> jax.Array:
    """How many chunks contain a segment, where rows without one come last on each device."""
    rows = jnp.sum(jnp.any(segments > 0, axis=1).reshape(devices, -1), axis=1)
    return ceil_div(jnp.max(rows), CHUNK_ROWS)
