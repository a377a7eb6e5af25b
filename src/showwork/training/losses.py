"""The numbers that every training loss is made of: log-probabilities, entropy, KL, clipping.

A loss here is a plain sum of per-token terms times per-token weights. The weights carry the division by the
count of the whole step, and the number of micro-batches, because optax.MultiSteps averages micro-batches
equally: sum_i(micro_i * M / count) / M = sum / count, exactly, however the tokens fall.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from showwork import tunix_adapter

# Rows of a device in one forward and backward pass: what they need stays in its caches (bench/NOTES.md).
CHUNK_ROWS = 4


def token_statistics(
    hidden: jax.Array, decode: Callable[[jax.Array], jax.Array], targets: jax.Array, *, chunk_tokens: int,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Log-probability of each target and entropy of its distribution, both [B, L] in nats.

    hidden [B, L, D] and targets [B, L] are aligned: hidden[:, t] predicts targets[:, t]. Logits are made and
    thrown away for chunk_tokens positions at a time, in the backward pass again, so that [B, L, V] never
    exists; the log-sum-exp is taken in float32.
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
    chunks = -(-length // chunk_tokens)
    padding = chunks * chunk_tokens - length
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[0], chunks, chunk_tokens, *x.shape[2:]), 1, 0)  # noqa: E731
    logps, entropies = jax.lax.map(lambda pair: jax.checkpoint(statistics)(*pair), (split(hidden), split(targets)))
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, :length]  # noqa: E731
    return join(logps), join(entropies)


def k3(logps: jax.Array, reference_logps: jax.Array) -> jax.Array:
    """KL(policy ‖ reference) per token, estimated on tokens of the policy: r - 1 - log r with r = ref / policy.

    Never negative, zero at equality, and its gradient is not zero on-policy, unlike that of log(policy / ref).
    Source: J. Schulman, "Approximating KL divergence" (2020), estimator k3.
    """
    log_ratio = reference_logps - logps
    return jnp.expm1(log_ratio) - log_ratio


def clipped_objective(
    logps: jax.Array, old_logps: jax.Array, advantages: jax.Array, *, epsilon_low: float, epsilon_high: float
) -> tuple[jax.Array, jax.Array]:
    """PPO's clipped surrogate per token, as a loss, and where the clip decided (1 or 0).

    advantages [B, 1] or [B, T]. Source: PPO eq. 7; the two sides of the clip as in DAPO eq. 10.
    """
    ratio = jnp.exp(logps - old_logps)
    free = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1 - epsilon_low, 1 + epsilon_high)
    return jnp.maximum(free, clipped), (clipped > free).astype(jnp.float32)


def chunk_tokens(vocabulary: int) -> int:
    """Positions decoded at a time: rows * chunk * V logits of at most some 4 million a row."""
    return max(16, 2**22 // vocabulary)


def row_statistics(
    model: nnx.Module, tokens: jax.Array, positions: jax.Array, segments: jax.Array,
    branches: jax.Array | None = None, *, temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Log-probability and entropy [B, L - 1] of tokens[:, 1:], each seen from its own sequence alone.

    segments number the sequences of a row from 1; 0 is padding. Where sequences of a segment begin alike, what they
    share stands once: branches [B, L] are 0 there, and number from 1 what follows it, one after another. Each branch
    must begin with a token that it sees and does not share, since its second is told from there.
    """
    causal = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
    mask = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0) & causal
    if branches is not None:
        mask &= (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
        if window := tunix_adapter.sliding_window(model):  # places in such a row tell no distances
            mask = mask, mask & (positions[:, :, None] - positions[:, None, :] < window)
    hidden, _ = model(tokens, positions=positions, cache=None, attention_mask=mask, return_hidden=True)
    return token_statistics(
        hidden[:, :-1], model.decode, tokens[:, 1:], chunk_tokens=chunk_tokens(model.num_embed),
        temperature=temperature,
    )  # fmt: skip


def supervised_loss(
    model: nnx.Module, tokens: jax.Array, positions: jax.Array, segments: jax.Array, weights: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    """Cross-entropy of packed rows.

    All inputs [B, L]: positions restart in each segment; segments number the examples of a row from 1, 0 is
    padding; weights[:, t] is what the prediction OF token t counts for, 0 for prompts and padding.
    """
    logps, _ = row_statistics(model, tokens, positions, segments)
    weights = weights[:, 1:]
    loss = -jnp.sum(logps * weights)
    trained = weights > 0
    return loss, {"nll": -jnp.sum(logps * trained), "tokens": jnp.sum(trained)}


def policy_loss(
    model: nnx.Module,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    weights: jax.Array,
    advantages: jax.Array,
    old_logps: jax.Array | None,
    reference_logps: jax.Array | None,
    branches: jax.Array | None = None,
    *,
    beta: float,
    epsilon_low: float,
    epsilon_high: float,
    temperature: float,
) -> tuple[jax.Array, dict[str, Any]]:
    """Clipped policy gradient with a KL penalty, on rows [B, L] laid out as row_statistics reads them.

    weights, advantages, old_logps and reference_logps [B, L] stand at the token that they belong to. old_logps
    None means on-policy: the ratio is 1 and its gradient that of REINFORCE. The aux holds sums over the
    completion tokens; divide by aux["tokens"].
    """
    logps, entropies = row_statistics(model, tokens, positions, segments, branches, temperature=temperature)
    weights, advantages = weights[:, 1:], advantages[:, 1:]
    trained = (weights > 0).astype(jnp.float32)
    old = jax.lax.stop_gradient(logps) if old_logps is None else old_logps[:, 1:]
    terms, is_clipped = clipped_objective(logps, old, advantages, epsilon_low=epsilon_low, epsilon_high=epsilon_high)
    aux = {
        "tokens": jnp.sum(trained),
        "entropy": jnp.sum(entropies * trained),
        "clipped": jnp.sum(is_clipped * trained),
    }
    if reference_logps is not None:
        kl = k3(logps, reference_logps[:, 1:])
        aux["kl"] = jnp.sum(kl * trained)
        terms = terms + beta * kl
    return jnp.sum(terms * weights), aux


def in_chunks(loss_fn: Callable[..., tuple[jax.Array, Any]], *, devices: int, wrt: Any = nnx.Param) -> Any:
    """loss_fn(model, tokens, positions, segments, ...) → (sum over rows, aux of sums), a few rows at a time.

    Each row array is [N, L], a multiple of devices * CHUNK_ROWS rows of which each device holds N / devices in a run.
    Rows without a segment stand last on each device and cost nothing: their number is a value and no shape, so that
    batches of any fill share one compiled program. wrt are the variables that a gradient is taken for.
    """

    @functools.wraps(loss_fn)  # Tunix names the arguments, and NNX looks for their places
    def chunked(model: nnx.Module, *rows: jax.Array | None) -> tuple[jax.Array, Any]:
        graphdef, trained, fixed = nnx.split(model, wrt, ...)

        def chunk(trained: Any, fixed: Any, rows: Any, number: Any) -> tuple[jax.Array, Any]:
            return loss_fn(nnx.merge(graphdef, trained, fixed), *take_chunk(rows, number, devices=devices))

        def summed(function: Callable[..., Any], trained: Any, fixed: Any, rows: Any) -> Any:
            function, first = jax.jit(function), jnp.int32(0)  # one trace for the shapes and for the loop
            zeros = jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, trained, fixed, rows, first)
            )

            def add(number: jax.Array, sums: Any) -> Any:
                return jax.tree.map(jnp.add, sums, function(trained, fixed, rows, number))

            return jax.lax.fori_loop(first, used_chunks(rows[2], devices=devices), add, zeros)

        # A loop of unknown length can't be differentiated backwards: each turn takes its own gradient instead.
        @jax.custom_vjp
        def total(trained: Any, fixed: Any, rows: Any) -> tuple[jax.Array, Any]:
            return summed(chunk, trained, fixed, rows)

        def forward(trained: Any, fixed: Any, rows: Any) -> tuple[tuple[jax.Array, Any], Any]:
            return summed(jax.value_and_grad(chunk, has_aux=True), trained, fixed, rows)

        def backward(slope: Any, cotangents: tuple[jax.Array, Any]) -> tuple[Any, None, None]:
            return jax.tree.map(lambda leaf: leaf * cotangents[0], slope), None, None

        total.defvjp(forward, backward)
        return total(trained, fixed, rows)

    return chunked


def take_chunk(rows: Any, number: Any, *, devices: int) -> Any:
    """The next CHUNK_ROWS rows of every device, of each array [N, L]: no row moves to another device."""

    def take(array: jax.Array) -> jax.Array:
        parts = array.reshape(devices, -1, *array.shape[1:])
        part = jax.lax.dynamic_slice_in_dim(parts, number * CHUNK_ROWS, CHUNK_ROWS, axis=1)
        return part.reshape(-1, *array.shape[1:])

    return jax.tree.map(take, rows)


def used_chunks(segments: jax.Array, *, devices: int) -> jax.Array:
    """How many chunks hold any segment, where rows without one stand last on each device."""
    rows = jnp.sum(jnp.any(segments > 0, axis=1).reshape(devices, -1), axis=1)
    return -(-jnp.max(rows) // CHUNK_ROWS)
