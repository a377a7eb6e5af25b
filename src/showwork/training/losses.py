"""Training losses and their terms: log-probabilities, KL, clipping.

A loss here is a plain sum of per-token terms times per-token weights, which contain the division by the count of the
whole step. So it is the same sum however rows are packed, cut into passes or spread over devices (training.passes).
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from showwork.shapes import packed_mask
from showwork.training.head import Aux, Scored, Term, Token

# On a device; on the host, NumPy's.
Array = jax.Array | Any


class Rows(NamedTuple):
    """Packed rows; each array is [N, L], and values of a token are at its own column.

    segments number the sequences of a row from 1; 0 is padding. positions restart in each. Sequences with a common
    prefix can share it within a segment: branches are 0 in the prefix and number its continuations from 1. Each branch
    starts with its own copy of the last shared token, whose logits predict its first new one.
    """

    tokens: Array
    positions: Array
    segments: Array
    weights: Array
    """What the prediction of each token counts for in the loss; 0 for prompts and padding."""
    advantages: Array | None = None
    old_logps: Array | None = None
    """None on-policy: the ratio is 1 and its gradient that of REINFORCE."""
    reference_logps: Array | None = None
    """None without a KL term."""
    branches: Array | None = None


@dataclass(frozen=True)
class Objective:
    """Constants of policy_loss."""

    beta: float
    """Weight of the KL term."""
    epsilon_low: float
    epsilon_high: float
    temperature: float
    """The rollout's, at which log-probabilities are taken."""


@dataclass(frozen=True)
class Loss:
    """A sum over the tokens of rows whose weights are not 0."""

    term: Term
    """What a token adds, from its log-probability and these values of its row."""
    values: tuple[str, ...]
    """Fields of Rows that the term reads, where they are not None."""
    temperature: float = 1.0
    """Divides the logits."""

    def scored(self, rows: Rows) -> Scored:
        values = {name: value for name in self.values if (value := getattr(rows, name)) is not None}
        return Scored(rows.tokens, rows.weights != 0, values)


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


def attention_mask(rows: Rows, window: int | None) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Mask [N, L, L] under which each token sees its own sequence alone; or a pair, for global layers and local ones.

    window is how many tokens a local layer sees; None without local layers.
    """
    mask = packed_mask(rows.segments)
    if rows.branches is None:
        return mask
    mask &= (rows.branches[:, None, :] == 0) | (rows.branches[:, :, None] == rows.branches[:, None, :])
    if window:
        # Between branches, column distance is not token distance.
        return mask, mask & (rows.positions[:, :, None] - rows.positions[:, None, :] < window)
    return mask


def supervised_loss() -> Loss:
    """Cross-entropy; aux has the negative log-likelihood in nats and the number of trained tokens."""

    def term(token: Token, values: dict[str, jax.Array]) -> tuple[jax.Array, Aux]:
        is_trained = values["weights"] != 0
        aux = {"nll": -jnp.sum(token.logp * is_trained), "tokens": jnp.sum(is_trained)}
        return -jnp.sum(token.logp * values["weights"]), aux

    return Loss(term, ("weights",))


@functools.cache  # one function, so that what is compiled for it is found again
def policy_loss(objective: Objective) -> Loss:
    """Clipped policy gradient with a KL penalty; aux has sums over the completion tokens: divide by aux["tokens"]."""

    def term(token: Token, values: dict[str, jax.Array]) -> tuple[jax.Array, Aux]:
        weights, logp = values["weights"], token.logp
        is_trained = (weights != 0).astype(jnp.float32)
        terms, is_clipped = clipped_objective(
            logp, values.get("old_logps", jax.lax.stop_gradient(logp)), values["advantages"],
            epsilon_low=objective.epsilon_low, epsilon_high=objective.epsilon_high,
        )  # fmt: skip
        aux = {
            "tokens": jnp.sum(is_trained),
            "entropy": jnp.sum(token.entropy * is_trained),
            "clipped": jnp.sum(is_clipped * is_trained),
        }
        if "reference_logps" in values:
            kl = k3(logp, values["reference_logps"])
            aux["kl"] = jnp.sum(kl * is_trained)
            terms = terms + objective.beta * kl
        return jnp.sum(terms * weights), aux

    return Loss(term, ("weights", "advantages", "old_logps", "reference_logps"), objective.temperature)
