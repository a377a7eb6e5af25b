"""Generation by continuous batching: each prompt is prefilled once for all its samples, and waiting prompts take the
slots of rows that have stopped."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from showwork import batching, devices
from showwork.devices import Tree
from showwork.progress import Steps
from showwork.records import Completion, Problem
from showwork.sampling import Decoding, Sampling
from showwork.shapes import round_up
from showwork.tokenizer import Tokenizer
from showwork.tunix_adapter import gemma
from showwork.tunix_adapter.gemma import Model

# Prompts are padded to a multiple of this, so that only a handful of shapes is compiled.
PROMPT_BUCKET = 16
# A batch shrinks to a quarter as its rows stop, down to this many: each size compiles a loop, and below this a decode
# step hardly gets shorter. Where completions may be long, a last row that never stops is worth more loops.
SMALLEST_BATCH, SMALLEST_BATCH_IF_LONG = 32, 4
# Columns for completions that a cache starts with; it doubles as long as rows need more.
CACHE_BUCKET = 256


@dataclass(frozen=True)
class Generated:
    """N = B * G completions, those of a prompt next to each other."""

    prompt_tokens: np.ndarray
    """[N, P], left-padded."""
    tokens: np.ndarray
    """[N, T], padded after the end."""
    lengths: np.ndarray
    """[N], the stop token included."""
    is_truncated: np.ndarray
    """[N], where no stop token came within T."""

    def completions(self, tokenizer: Tokenizer, stop_ids: Sequence[int]) -> list[Completion]:
        """The texts, without the stop token."""
        texts = []
        for row, length, truncated in zip(self.tokens, self.lengths, self.is_truncated, strict=True):
            ids = row[:length]
            text = tokenizer.decode(ids if truncated else ids[:-1])
            texts.append(Completion(text=text, tokens=int(length), truncated=bool(truncated)))
        return texts


@dataclass(frozen=True)
class Slots:
    """Where rows are generated, and how many at a time: changes memory and speed, and no token."""

    count: int | None = None
    """Rows at a time, rounded up to equal numbers of whole groups on each device; None for all."""
    mesh: jax.sharding.Mesh | None = None
    """Rows are spread over its axis fsdp, where each stays on its device, and weights are laid out as
    devices.for_rollout says. None leaves everything where the weights are."""

    @property
    def shards(self) -> int:
        """Devices among which the rows are shared out."""
        return self.mesh.shape["fsdp"] if self.mesh else 1

    def rows(self, total: int, generations: int) -> int:
        """The count, of so many rows in groups of `generations`."""
        return round_up(self.count or total, generations * self.shards)

    def spread(self, rows: Tree, *, key_heads: int = 1) -> Tree:
        """Arrays [N, …] spread over the devices; caches [N, columns, K * H] by their key heads too, where tp divides K.

        Where XLA chooses, small ones are whole everywhere for a while, and programs are compiled for both cases.
        """
        if not self.mesh:
            return rows
        heads = "tp" if key_heads % self.mesh.shape["tp"] == 0 else None
        return devices.spread(rows, self.mesh, last_of_three=heads)


ALL_AT_ONCE = Slots()


def left_pad(prompts: Sequence[Sequence[int]], *, pad_id: int, width: int = 1) -> np.ndarray:
    """[B, P], where P is the longest prompt or `width` if that is more, rounded up to PROMPT_BUCKET."""
    width = round_up(max(width, *map(len, prompts)), PROMPT_BUCKET)
    padded = np.full((len(prompts), width), pad_id, np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[width - len(prompt) :] = prompt
    return padded


def generate(
    model: Model,
    prompts: np.ndarray,
    *,
    key: jax.Array,
    decoding: Decoding,
    generations: int,
    first_row: int = 0,
    slots: Slots = ALL_AT_ONCE,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Generated:
    """Completes left-padded prompts [B, P], each `generations` times.

    The noise of a row is a function of (key, its number, the step) alone: its tokens do not depend on how a batch is
    split into calls with the right first_row, on padding, on the slots, or on which rows have stopped. on_rows receives
    the number of finished rows.
    """
    with devices.use(slots.mesh):
        return _generate(
            model, prompts, key=key, decoding=decoding, generations=generations, first_row=first_row, slots=slots,
            on_rows=on_rows,
        )  # fmt: skip


def _generate(
    model: Model, prompts: np.ndarray, *, key: jax.Array, decoding: Decoding, generations: int, first_row: int,
    slots: Slots, on_rows: Callable[[int], None],
) -> Generated:  # fmt: skip
    graphdef, state = gemma.computing(model)
    state = devices.for_rollout(state, slots.mesh) if slots.mesh else state
    width, total, shards = prompts.shape[1], len(prompts) * generations, slots.shards
    rows_at_once = slots.rows(total, generations)
    # Refill once a quarter of the slots is free: each refill costs a prefill, and all of them share one program.
    refill = max(1, rows_at_once // (4 * generations * shards)) * generations * shards
    # Columns beyond what the longest row needs: a full cache can then be shifted by more than so many.
    spare = min(decoding.max_tokens, CACHE_BUCKET) // 2 if rows_at_once < total else 0
    longest = width + decoding.max_tokens + spare
    queue = _Queue(prompts, slots, generations=generations, first_row=first_row, pad_id=decoding.pad_id)
    sizes = batching.Sizes(generations, min(longest, width + CACHE_BUCKET), decoding.max_tokens)
    prefill = functools.partial(batching.prefill, graphdef, state, key=key, pad_id=decoding.pad_id)
    advance = functools.partial(batching.advance, graphdef, state, options=_on_device(decoding), shards=shards)
    spread = functools.partial(slots.spread, key_heads=model.config.num_kv_heads)
    found = np.full((total, decoding.max_tokens), decoding.pad_id, np.int32)

    rows, column = prefill(*queue.take(rows_at_once), sizes=sizes), width
    while True:
        count, is_waiting = len(rows.number), queue.is_waiting
        # Of each device, as all that follows.
        least = (count - refill if is_waiting else next_size(count, decoding.max_tokens)) // shards
        until = jnp.int32(rows.visible.shape[1])
        rows, column = advance(spread(rows), jnp.int32(column), until=until, least=jnp.int32(least))
        column, number, tokens, start_column, stopped = jax.device_get(
            (column, rows.number, rows.tokens, rows.start_column, rows.has_stopped)
        )
        is_ours = number < first_row + total
        found[number[is_ours] - first_row] = tokens[is_ours]
        has_stopped = stopped.reshape(shards, -1)
        running = int((~has_stopped).sum(axis=1).max())
        on_rows(max(0, min(total, queue.taken * generations) - count + int(stopped.sum())))
        # Running rows first, in their order.
        order = np.argsort(has_stopped, axis=1, kind="stable").astype(np.int32)
        if is_waiting and running <= least:
            free = order[:, count // shards - refill // shards :]
            new = prefill(*queue.take(refill), sizes=sizes._replace(columns=width))
            rows = batching.put(rows, new, free, jnp.int32(column))
        elif running == 0:
            return _finished(prompts, found, decoding, generations=generations)
        elif running <= least:
            rows = batching.take(rows, order[:, :least])  # stopped ones fill the remaining slots
        else:
            unused = int(start_column[~stopped].min()) - width
            rows, column = _make_room(rows, column, unused, prompt=width, spare=spare, longest=longest)


def stream(
    model: Model, prompt: Sequence[int], *, max_tokens: int, stop_ids: Sequence[int], pad_id: int
) -> Iterator[int]:
    """The greedy completion of one prompt, token by token, the stop token last: the same tokens as generate's."""
    graphdef, state = gemma.computing(model)
    decoding = Decoding(Sampling(greedy=True), max_tokens, tuple(stop_ids), pad_id)
    prompts = left_pad([prompt], pad_id=pad_id)
    width = prompts.shape[1]
    rows = batching.prefill(
        graphdef, state, prompts, jnp.int32(0), key=jax.random.key(0), pad_id=pad_id,
        sizes=batching.Sizes(generations=1, columns=width + max_tokens, tokens=max_tokens),
    )  # fmt: skip
    for column in range(width, width + max_tokens):
        rows, _ = batching.advance(
            graphdef, state, rows, jnp.int32(column), until=jnp.int32(column + 1), least=jnp.int32(0),
            options=_on_device(decoding), shards=1,
        )  # fmt: skip
        yield int(rows.tokens[0, column - width])
        if rows.has_stopped[0]:
            return


def next_size(rows: int, max_tokens: int) -> int:
    """Batch size to shrink to as rows stop: 1,024 → 256 → 64 → 0; at 0 the batch runs to the end."""
    smallest = SMALLEST_BATCH if max_tokens <= CACHE_BUCKET else SMALLEST_BATCH_IF_LONG
    return rows // 4 if rows >= 4 * smallest else 0


class _Queue:
    """Prompts [B, P] that wait for a slot; `taken` counts those that have had one."""

    def __init__(self, prompts: np.ndarray, slots: Slots, *, generations: int, first_row: int, pad_id: int):
        self._prompts, self._generations, self._first_row, self._pad_id = prompts, generations, first_row, pad_id
        self._slots = slots
        self.taken = 0

    @property
    def is_waiting(self) -> bool:
        return self.taken < len(self._prompts)

    def take(self, rows: int) -> tuple[jax.Array, jax.Array]:
        """The next prompts for so many rows, padded with empty ones, and the number of their first row."""
        first, count = self.taken, rows // self._generations
        self.taken += count
        chosen = self._prompts[first : self.taken]
        chosen = np.pad(chosen, ((0, count - len(chosen)), (0, 0)), constant_values=self._pad_id)
        return self._slots.spread(jnp.asarray(chosen)), jnp.int32(self._first_row + first * self._generations)


def _on_device(decoding: Decoding) -> Decoding:
    temperature = jnp.float32(decoding.sampling.temperature)
    return dataclasses.replace(decoding, sampling=dataclasses.replace(decoding.sampling, temperature=temperature))


def _make_room(
    rows: batching.Rows, column: int, unused: int, *, prompt: int, spare: int, longest: int
) -> tuple[batching.Rows, int]:
    """Rows of a full cache with free columns at the end, and the next column.

    The first `unused` columns, those before the prompt of the oldest running row, belong to no row. They are shifted
    out where they are many; otherwise the cache grows, up to `longest` columns.
    """
    if unused > spare:
        return batching.shift(rows, jnp.int32(unused)), column - unused
    return batching.widen(rows, columns=min(longest, 2 * rows.visible.shape[1] - prompt)), column


def _finished(prompts: np.ndarray, tokens: np.ndarray, decoding: Decoding, *, generations: int) -> Generated:
    lengths = np.sum(tokens != decoding.pad_id, axis=1)
    last = np.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
    is_truncated = ~np.isin(last, decoding.stop_ids)
    return Generated(np.repeat(prompts, generations, axis=0), tokens, lengths, is_truncated)


@dataclass(frozen=True)
class Completer:
    """Completes lists of problems, rows_per_call rows at a time, with a progress bar."""

    model: Model
    tokenizer: Tokenizer
    system: str
    stop_ids: Sequence[int]
    max_tokens: int
    rows_per_call: int
    mesh: jax.sharding.Mesh | None = None
    """The devices in the layout of sampling: see Slots."""
    prompt_tokens: int = 1
    """The width that prompts are padded to, so that all lists share their compiled programs."""
    prompt_ids: Callable[[Problem], list[int]] | None = None
    """The ids of a problem's prompt, BOS included; None for those of the chat template."""

    def ids(self, problem: Problem) -> list[int]:
        if self.prompt_ids is not None:
            return self.prompt_ids(problem)
        return self.tokenizer.prompt_ids(problem.question, system=self.system)

    def __call__(
        self, problems: Sequence[Problem], *, key: jax.Array, sampling: Sampling, generations: int, name: str
    ) -> list[list[Completion]]:
        """`generations` completions of each problem. Deterministic in the key."""
        if not problems:
            return []
        decoding = Decoding(sampling, self.max_tokens, tuple(self.stop_ids), self.tokenizer.pad_id())
        prompts = left_pad([*map(self.ids, problems)], pad_id=decoding.pad_id, width=self.prompt_tokens)
        with Steps(name, len(problems)) as bar:
            generated = generate(
                self.model, prompts, key=key, decoding=decoding, generations=generations,
                slots=Slots(max(1, self.rows_per_call // generations) * generations, self.mesh),
                on_rows=lambda rows: bar.update(rows // generations, "greedy" if sampling.greedy else "sampled"),
            )  # fmt: skip
        completions = generated.completions(self.tokenizer, self.stop_ids)
        return [completions[i * generations : (i + 1) * generations] for i in range(len(problems))]
