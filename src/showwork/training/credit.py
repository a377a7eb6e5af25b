"""Credit assignment of the RL arms: rewards to advantages, and what each token counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from showwork.records import Completion, Problem
from showwork.rewards import load


@dataclass(frozen=True)
class Scores:
    """Rewards of N completions."""

    each: dict[str, np.ndarray]
    """Each reward of the arm, unweighted, [N]."""
    total: np.ndarray
    """Their weighted sum, [N]."""


def score(weights: Mapping[str, float], completions: Sequence[Completion], problems: Sequence[Problem]) -> Scores:
    """Scores completions of problems, [N] each, by the rewards of these names.

    A reward outside its declared range, or of another length, is an error: it would shift advantages silently.
    """
    each = {}
    for name in weights:
        spec = load(name)
        values = np.asarray(spec.function(completions, problems), np.float64)
        if values.shape != (len(completions),) or not ((values >= spec.low) & (values <= spec.high)).all():
            raise ValueError(f"reward {name} left its range [{spec.low}, {spec.high}] or its length")
        each[name] = values
    return Scores(each, sum((weight * each[name] for name, weight in weights.items()), np.zeros(len(completions))))


def group_advantages(rewards: np.ndarray, *, generations: int, kind: str) -> np.ndarray:
    """Advantages [N] of rewards [N], those of a group next to each other.

    grpo: (r - mean) / (std + 1e-6) with the n - 1 estimate of std (DeepSeekMath 4.1.2); drgrpo: r - mean
    (Dr. GRPO, which shows the division's bias); rloo: r - mean of the others (Ahmadian et al. 2024).
    """
    groups = rewards.reshape(-1, generations)
    # The mean of equal numbers can differ from them by rounding, and Adam would make a step of the difference.
    is_constant = groups.max(axis=1, keepdims=True) == groups.min(axis=1, keepdims=True)
    centred = np.where(is_constant, 0.0, groups - groups.mean(axis=1, keepdims=True))
    if kind == "grpo":
        centred = centred / (groups.std(axis=1, ddof=1, keepdims=True) + 1e-6)
    elif kind == "rloo":
        centred = centred * generations / (generations - 1)
    return centred.reshape(-1)


def has_variance(rewards: np.ndarray, *, generations: int) -> np.ndarray:
    """Whether the rewards of each group differ, [B] from rewards [N]; a group without variance has no gradient."""
    groups = rewards.reshape(-1, generations)
    return groups.max(axis=1) != groups.min(axis=1)


def token_weights(mask: np.ndarray, *, aggregation: str, max_tokens: int) -> np.ndarray:
    """Weight of each completion token in the loss, [N, L] from mask [N, L]; sums are over the whole step.

    token-mean: every token alike (DAPO); sequence-mean-token-mean: every completion alike (GRPO);
    sequence-mean-token-scale: every completion's sum over a constant length (Dr. GRPO).
    """
    mask = mask.astype(np.float64)
    if aggregation == "token-mean":
        weights = mask / max(1.0, mask.sum())
    elif aggregation == "sequence-mean-token-mean":
        weights = mask / np.maximum(1.0, mask.sum(axis=1, keepdims=True)) / len(mask)
    else:
        weights = mask / max_tokens / len(mask)
    return weights.astype(np.float32)
