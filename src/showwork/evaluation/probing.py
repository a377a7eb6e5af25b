"""Traces of completions: one teacher-forced pass that reads every layer through the model's own unembedding.

The logit lens (nostalgebraist 2020): final norm and unembedding on the output of an inner layer, as if it were the
last.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork import tunix_adapter
from showwork.probes import Trace
from showwork.progress import Steps
from showwork.records import Problem
from showwork.tokenizer import Tokenizer

DECIMALS = 3  # of nats: beyond them the same sum in float32 differs between kinds of hardware
ROWS_PER_CALL = 16
LOGITS_AT_ONCE = 2**26  # in float32: 256 MiB
BUCKET = 16
LONGEST_CHARACTER = 4  # bytes, each a token of its own where the vocabulary lacks the character


def take_traces(
    model: nnx.Module, tokenizer: Tokenizer, problems: Sequence[Problem], completions: Sequence[str], *, system: str,
    late_layer: float, name: str,
) -> list[Trace]:  # fmt: skip
    """A trace for each problem's completion, in calls of one shape.

    late_layer, a share of the depth, is where objections are read: 0 is the embedding, 1 the last layer. Adapters
    must have been merged (see tunix_adapter.layer_outputs). A completion is read as the tokenizer spells its text.
    """
    prompts = [tokenizer.prompt_ids(p.question, system=system) for p in problems]
    written = [tokenizer.encode(text) for text in completions]
    packed = pack(list(zip(prompts, written, strict=True)), vocabulary=model.num_embed)
    digits = jnp.array([tokenizer.encode(digit)[-1] for digit in "0123456789"])
    late = round(late_layer * model.config.num_layers)
    graphdef, state = nnx.split(model)
    calls = []
    with Steps(name, len(packed.tokens)) as bar:
        for start in range(0, len(packed.tokens), ROWS_PER_CALL):
            rows = slice(start, start + ROWS_PER_CALL)
            inputs = (values[rows] for values in (packed.tokens, packed.positions, packed.segments, packed.at))
            calls.append(jax.device_get(_read(graphdef, state, *inputs, digits, late=late)))
            bar.update(start + ROWS_PER_CALL, "probes")
    entropy, logp, settled, objection = (np.concatenate(parts) for parts in zip(*calls, strict=True))
    return [
        Trace(
            tokens=tuple(token_pieces(tokenizer, ids)), entropy=_rounded(entropy[place]), logp=_rounded(logp[place]),
            settled=tuple(settled[place].tolist()), objection=_rounded(objection[place]),
        )
        for ids, place in zip(written, packed.places, strict=True)
    ]  # fmt: skip


def token_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token; joined they are the decoded text.

    A character that is spelled in bytes stands whole at its last byte, and its other bytes are "".
    """
    pieces: list[str] = []
    run: list[int] = []
    for left, token in zip(range(len(ids) - 1, -1, -1), ids, strict=True):
        run.append(token)
        text = tokenizer.decode(run)
        is_whole = "\N{REPLACEMENT CHARACTER}" not in text or len(run) == LONGEST_CHARACTER or not left
        pieces.append(text if is_whole else "")
        run = [] if is_whole else run
    return pieces


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple((np.round(values.astype(np.float64), DECIMALS) + 0.0).tolist())  # + 0.0: no -0.0


@dataclass(frozen=True)
class Packed:
    """Prompts with their completions, several to a row: tokens, positions and segments [R, L] as training has them.

    at [R, chunks, chunk] holds the positions whose next token belongs to a completion, in order, filled up with 0;
    places[i] is the (row, slice) of sequence i in what is read at them, [R, chunks * chunk].
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    at: np.ndarray
    places: list[tuple[int, slice]]


def pack(sequences: Sequence[tuple[list[int], list[int]]], *, vocabulary: int) -> Packed:
    """Packs pairs of prompt and completion ids first fit by falling length; R is a multiple of ROWS_PER_CALL."""
    lengths = [len(prompt) + len(written) for prompt, written in sequences]
    width = _round_up(max(lengths), BUCKET)
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((row for row, room in enumerate(free) if room >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(width)
        rows[row].append(i)
        free[row] -= lengths[i]

    count = _round_up(len(rows), ROWS_PER_CALL)
    read_tokens = max(sum(len(sequences[i][1]) for i in row) for row in rows)
    chunk = _round_up(LOGITS_AT_ONCE // (ROWS_PER_CALL * vocabulary), BUCKET)
    chunk = min(chunk, _round_up(read_tokens, BUCKET))
    tokens, positions, segments = (np.zeros((count, width), np.int32) for _ in range(3))
    at = np.zeros((count, _round_up(read_tokens, chunk)), np.int32)
    places = [(0, slice(0))] * len(sequences)
    for row, members in enumerate(rows):
        start = first = 0
        for segment, i in enumerate(members, start=1):
            prompt, written = sequences[i]
            part, read = slice(start, start + lengths[i]), slice(first, first + len(written))
            tokens[row, part], positions[row, part] = prompt + written, range(lengths[i])
            segments[row, part] = segment
            at[row, read] = range(start + len(prompt) - 1, part.stop - 1)
            places[i] = row, read
            start, first = part.stop, read.stop
    return Packed(tokens, positions, segments, at.reshape(count, -1, chunk), places)


def _round_up(number: int, multiple: int) -> int:
    return max(1, -(-number // multiple)) * multiple


@functools.partial(jax.jit, static_argnames=("graphdef", "late"))
def _read(
    graphdef: Any, state: Any, tokens: jax.Array, positions: jax.Array, segments: jax.Array, at: jax.Array,
    digits: jax.Array, *, late: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """Entropy, log-probability, settled layer and objection, [R, chunks * chunk] each, of the tokens after `at`.

    Logits are made for one layer and one chunk at a time, so that [layers, R, L, V] never exists.
    """
    model = nnx.merge(graphdef, state)
    causal = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
    mask = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0) & causal
    pick = jax.vmap(lambda row, index: row[index])

    def look(hidden: jax.Array) -> _Look:
        found = jax.lax.map(
            lambda index: _look(model.decode(pick(hidden, index)), pick(tokens, index + 1), digits),
            jnp.moveaxis(at, 1, 0),
        )
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(len(at), -1), found)

    looks = [look(hidden) for hidden in tunix_adapter.layer_outputs(model, tokens, positions, mask)]
    tops = jnp.stack([layer.top for layer in looks])
    # Counted from the last layer down, for as long as the top choice is the last layer's.
    agreeing = jnp.sum(jnp.cumprod((tops == tops[-1])[::-1], axis=0), axis=0)
    return looks[-1].entropy, looks[-1].logp, len(looks) - agreeing, looks[late].objection


class _Look(NamedTuple):
    """What one layer says of each token; what nobody asks of it is never computed."""

    top: jax.Array
    entropy: jax.Array
    logp: jax.Array
    objection: jax.Array


def _look(logits: jax.Array, targets: jax.Array, digits: jax.Array) -> _Look:
    """From logits [..., V] that predict targets [...]."""
    logits = logits.astype(jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    others = jnp.where(digits == targets[..., None], -jnp.inf, logits[..., digits])
    return _Look(
        top=jnp.argmax(logits, axis=-1),
        entropy=normaliser - jnp.sum(jax.nn.softmax(logits) * logits, axis=-1),
        logp=chosen - normaliser,
        objection=jnp.max(others, axis=-1) - chosen,
    )
