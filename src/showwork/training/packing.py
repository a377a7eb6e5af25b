"""Rows of the RL arms: prompts with their completions, several to a row."""

from dataclasses import dataclass, field

import numpy as np

from showwork.config import Rl
from showwork.rollout import Generated
from showwork.shapes import round_up
from showwork.training.credit import token_weights
from showwork.training.losses import Rows
from showwork.training.passes import Split

# Rows of prompt and completion are padded to a multiple of this many tokens: few shapes to compile, little waste.
ROW_BUCKET = 32


def lay_out(generated: Generated, *, pad_id: int) -> dict[str, np.ndarray]:
    """Prompt and completion side by side, right-padded: tokens, positions, segments and mask, each [N, L].

    mask is 1 at completion tokens, the stop token included; segments are 1 at all tokens, 0 at padding.
    """
    rows = []
    for prompt, tokens, length in zip(generated.prompt_tokens, generated.tokens, generated.lengths, strict=True):
        rows.append((prompt[prompt != pad_id], tokens[:length]))
    width = round_up(max(len(prompt) + len(completion) for prompt, completion in rows), ROW_BUCKET)
    tokens = np.full((len(rows), width), pad_id, np.int32)
    segments, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.int32)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        tokens[i, :end] = np.concatenate([prompt, completion])
        segments[i, :end] = 1
        mask[i, len(prompt) : end] = 1
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape) * segments
    return {"tokens": tokens, "positions": positions, "segments": segments, "mask": mask}


@dataclass
class _Bin:
    """A packed row while it fills up: positions used, and the number of branches of each group in it."""

    used: int = 0
    branches: dict[int, int] = field(default_factory=dict)


def pack(
    rows: dict[str, np.ndarray], groups: np.ndarray, *, width: int, count: int, parts: int
) -> dict[str, np.ndarray]:
    """Moves rows [N, L], each a prompt and its completion, into [count, width], several to a row, first fit.

    Rows of one group, groups [N], have the same prompt. A packed row holds it once, however many of its completions
    follow: a branch is the prompt's last token and a completion (losses.Rows). Every array moves alike;
    segments are numbered anew and branches added. Each token still attends to its own sequence alone, so that loss
    and gradient stay the same. Filled rows are dealt in turn to `parts` equal runs of rows, and empty rows come last
    in each run. count = N rows are always enough.
    """
    lengths = rows["segments"].sum(axis=1)
    shared = lengths - rows["mask"].sum(axis=1) - 1  # tokens of the prompt but its last
    packed = {name: np.zeros((count, width), value.dtype) for name, value in rows.items()}
    packed["branches"] = np.zeros((count, width), np.int32)
    bins: list[_Bin] = []

    for i in sorted(range(len(lengths)), key=lambda i: (groups[i], -lengths[i], i)):
        group = groups[i]
        needed = [lengths[i] - (shared[i] if group in other.branches else 0) for other in bins]
        fitting = [n for n, more in enumerate(needed) if bins[n].used + more <= width]
        # A bin that has the prompt already, if any.
        number = min(fitting, key=lambda n: (group not in bins[n].branches, n), default=len(bins))
        if number == len(bins):
            bins.append(_Bin())
        chosen = bins[number]
        pieces = [(shared[i], lengths[i])]
        if group not in chosen.branches:
            chosen.branches[group] = 0
            pieces.insert(0, (0, shared[i]))
        chosen.branches[group] += 1
        row = number % parts * (count // parts) + number // parts
        for first, last in pieces:
            to = slice(chosen.used, chosen.used + last - first)
            for name, value in rows.items():
                packed[name][row, to] = value[i, first:last]
            packed["segments"][row, to] = list(chosen.branches).index(group) + 1
            packed["branches"][row, to] = chosen.branches[group] if last == lengths[i] else 0
            chosen.used = to.stop
    return packed


class Packer:
    """Turns the samples of a step into the rows of its loss, of one shape for a whole run."""

    def __init__(self, settings: Rl, *, widest: int, pad_id: int, split: Split):
        """widest is the length of the longest prompt."""
        self._settings, self._pad_id, self._devices = settings, pad_id, split.devices
        self._width = round_up(widest + settings.rollout.max_completion_tokens, ROW_BUCKET)
        self._count = split.capacity(settings.prompts_per_step * settings.generations, self._width)

    def __call__(self, generated: Generated, advantages: np.ndarray) -> Rows:
        """Packed rows of completions [N] with their advantages [N]: see pack."""
        settings = self._settings
        rows = lay_out(generated, pad_id=self._pad_id)
        rows["weights"] = token_weights(
            rows["mask"], aggregation=settings.loss_aggregation, max_tokens=settings.rollout.max_completion_tokens
        )
        rows["advantages"] = (advantages[:, None] * rows["mask"]).astype(np.float32)
        groups = np.arange(len(advantages)) // settings.generations
        if not settings.beta:
            # Without a KL term a group without variance has no gradient at all.
            groups = groups[advantages != 0]
            rows = {name: value[advantages != 0] for name, value in rows.items()}
        packed = pack(rows, groups, width=self._width, count=self._count, parts=self._devices)
        del packed["mask"]  # where the weights are not 0
        return Rows(**packed)
