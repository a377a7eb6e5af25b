"""Traces of completions by the logit lens, in one teacher-forced pass.

The logit lens (nostalgebraist 2020) applies the final norm and the unembedding to the output of an inner layer, as if
it were the last.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork.probes import Trace
from showwork.progress import Steps
from showwork.records import Problem
from showwork.shapes import packed_mask, round_up
from showwork.tokenizer import Tokenizer
from showwork.tunix_adapter import gemma
from showwork.tunix_adapter.gemma import Model

DECIMALS = 3  # of nats: further digits of a float32 sum differ between kinds of hardware
ROWS_PER_CALL = 16
LOGITS_AT_ONCE = 2**26  # in float32: 256 MiB
BUCKET = 16
LONGEST_CHARACTER = 4  # bytes in UTF-8, one token each where the vocabulary lacks the character


def take_traces(
    model: Model, tokenizer: Tokenizer, problems: Sequence[Problem], completions: Sequence[str], *, system: str,
    late_layer: float, name: str,
) -> list[Trace]:  # fmt: skip
    """A trace of each problem's completion; all calls have one shape.

    late_layer is the depth at which objections are read, as a share: 0 is the embedding, 1 the last layer. Completions
    are tokenized from their text, which the model may have spelled with other tokens.
    """
    prompts = [tokenizer.prompt_ids(p.question, system=system) for p in problems]
    written = [tokenizer.encode(text) for text in completions]
    packed = pack(list(zip(prompts, written, strict=True)), vocabulary=model.num_embed)
    digits = jnp.array([tokenizer.encode(digit)[-1] for digit in "0123456789"])
    late = round(late_layer * model.config.num_layers)
    graphdef, state = gemma.computing(model)
    calls: list[tuple[np.ndarray, ...]] = []
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

    A character that is spelled in bytes appears at its last byte; its other bytes get "".
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
    """Prompts with their completions, several to a row."""

    tokens: np.ndarray
    """[R, L]"""
    positions: np.ndarray
    """[R, L], restarting in each sequence."""
    segments: np.ndarray
    """[R, L], numbering the sequences of a row from 1; 0 is padding."""
    at: np.ndarray
    """[R, chunks, chunk], the columns whose next token belongs to a completion, in order, padded with 0."""
    places: list[tuple[int, slice]]
    """The (row, slice) of each sequence in what is read there, [R, chunks * chunk]."""


def pack(sequences: Sequence[tuple[list[int], list[int]]], *, vocabulary: int) -> Packed:
    """Packs pairs of prompt and completion ids, first-fit by decreasing length; R is a multiple of ROWS_PER_CALL."""
    lengths = [len(prompt) + len(written) for prompt, written in sequences]
    width = round_up(max(lengths), BUCKET)
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((row for row, room in enumerate(free) if room >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(width)
        rows[row].append(i)
        free[row] -= lengths[i]

    count = round_up(len(rows), ROWS_PER_CALL)
    read_tokens = max(1, *(sum(len(sequences[i][1]) for i in row) for row in rows))
    chunk = round_up(max(1, LOGITS_AT_ONCE // (ROWS_PER_CALL * vocabulary)), BUCKET)
    chunk = min(chunk, round_up(read_tokens, BUCKET))
    tokens, positions, segments = (np.zeros((count, width), np.int32) for _ in range(3))
    at = np.zeros((count, round_up(read_tokens, chunk)), np.int32)
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


@functools.partial(jax.jit, static_argnames=("graphdef", "late"))
def _read(
    graphdef: nnx.GraphDef, state: nnx.State, tokens: jax.Array, positions: jax.Array, segments: jax.Array,
    at: jax.Array, digits: jax.Array, *, late: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """Entropy, log-probability, settled layer and objection, [R, chunks * chunk] each, of the tokens after `at`.

    digits [10] are the ids of the digits' tokens, late the number of the layer of the objections. Logits are computed
    for one layer and one chunk at a time, so that [layers, R, L, V] is never materialised.
    """
    model = nnx.merge(graphdef, state)
    mask = packed_mask(segments)
    pick = jax.vmap(lambda row, index: row[index])

    def look(hidden: jax.Array) -> _Look:
        found = jax.lax.map(
            lambda index: _look(model.decode(pick(hidden, index)), pick(tokens, index + 1), digits),
            jnp.moveaxis(at, 1, 0),
        )
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(len(at), -1), found)

    looks = [look(hidden) for hidden in gemma.layer_outputs(model, tokens, positions, mask)]
    tops = jnp.stack([layer.top for layer in looks])
    # The number of layers, counted down from the last, whose top token is that of the last.
    agreeing = jnp.sum(jnp.cumprod((tops == tops[-1:])[::-1], axis=0), axis=0)
    return looks[-1].entropy, looks[-1].logp, len(looks) - agreeing, looks[late].objection


class _Look(NamedTuple):
    """What one layer predicts of each token [...]; XLA drops the fields that are not read."""

    top: jax.Array
    entropy: jax.Array
    logp: jax.Array
    objection: jax.Array


def _look(logits: jax.Array, targets: jax.Array, digits: jax.Array) -> _Look:
    """From logits [..., V] that predict targets [...]. The objection is the lead of the best other digit, in logits."""
    logits = logits.astype(jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    is_written = jnp.expand_dims(digits, tuple(range(targets.ndim))) == targets[..., None]
    others = jnp.where(is_written, -jnp.inf, logits[..., digits])
    return _Look(
        top=jnp.argmax(logits, axis=-1),
        entropy=normaliser - jnp.sum(jax.nn.softmax(logits) * logits, axis=-1),
        logp=chosen - normaliser,
        objection=jnp.max(others, axis=-1) - chosen,
    )
