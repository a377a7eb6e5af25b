"""Generation over slots: prompts prefilled once for all their samples, and waiting ones put where rows have stopped.

All rows write to the same column of the cache at the same time, wherever they began: what a row sees is told by a mask,
and how far back in its window by distances between columns. So rows of any age advance in one compiled loop.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork.progress import Steps
from showwork.records import Completion, Problem
from showwork.tokenizer import Tokenizer

# Prompts are padded to a multiple of this, so that a handful of shapes is compiled and no more.
PROMPT_BUCKET = 16
# A batch is cut to a quarter as its rows stop, down to this many: each size is a loop to compile, and below this a
# decode step hardly gets any shorter. Where completions may be long, a last row that never stops is worth more loops.
SMALLEST_BATCH, SMALLEST_BATCH_IF_LONG = 32, 4
# Columns for completions that a cache begins with; it doubles as long as rows need more.
CACHE_BUCKET = 256


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. greedy ignores the rest; top_k 0 and top_p 1 keep every token."""

    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Generated:
    """N = B * G completions, those of a prompt next to each other.

    tokens [N, T] with pad after the end; lengths [N] count the stop token; is_truncated [N] where no stop
    token came within T.
    """

    prompt_tokens: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    is_truncated: np.ndarray

    def completions(self, tokenizer: Tokenizer, stop_ids: Sequence[int]) -> list[Completion]:
        """The texts, without the stop token."""
        texts = []
        for row, length, truncated in zip(self.tokens, self.lengths, self.is_truncated, strict=True):
            ids = row[:length]
            text = tokenizer.decode(ids if truncated else ids[:-1])
            texts.append(Completion(text=text, tokens=int(length), truncated=bool(truncated)))
        return texts


class _Rows(NamedTuple):
    """What a decode step needs of the rows that it advances; the first axis of every leaf is theirs.

    begun is the column of a row's first token; its prompt stands before it, is_visible [N, columns] at what it sees.
    """

    number: jax.Array
    key: jax.Array
    prompt_length: jax.Array
    begun: jax.Array
    is_visible: jax.Array
    logits: jax.Array
    cache: Any
    tokens: jax.Array
    has_stopped: jax.Array


def left_pad(prompts: Sequence[Sequence[int]], *, pad_id: int, width: int = 1) -> np.ndarray:
    """[B, P] with P the longest prompt, at least width, rounded up to PROMPT_BUCKET."""
    width = -(-max(width, *map(len, prompts)) // PROMPT_BUCKET) * PROMPT_BUCKET
    padded = np.full((len(prompts), width), pad_id, np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[width - len(prompt) :] = prompt
    return padded


def generate(
    model: nnx.Module,
    prompts: np.ndarray,
    *,
    key: jax.Array,
    sampling: Sampling,
    generations: int,
    max_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    first_row: int = 0,
    slots: int | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Generated:
    """Completes left-padded prompts [B, P], slots rows at a time: where rows have stopped, waiting ones go on.

    The noise of a row is a function of (key, its number, the step) alone: splitting a batch into calls with
    first_row set accordingly, padding it, the number of slots, or leaving out rows that have stopped, changes no token.
    slots None means all rows, otherwise a multiple of generations. on_rows is told how many rows are done.
    """
    graphdef, state = nnx.split(model)
    width, total = prompts.shape[1], len(prompts) * generations
    slots = slots or total
    # Waiting prompts go on a quarter of the slots at a time, so that all prefills of them share one program.
    refill = max(1, slots // (4 * generations)) * generations
    # Columns more than the longest row needs: a full cache can then be shifted by more than so many.
    spare = min(max_tokens, CACHE_BUCKET) // 2 if slots < total else 0
    longest = width + max_tokens + spare
    prefill = functools.partial(
        _prefill, graphdef, state, key=key, generations=generations, tokens=max_tokens, pad_id=pad_id
    )
    advance = functools.partial(
        _advance, graphdef, state, temperature=jnp.float32(sampling.temperature), stop_ids=tuple(stop_ids),
        pad_id=pad_id, greedy=sampling.greedy, top_k=sampling.top_k, top_p=sampling.top_p,
    )  # fmt: skip
    found = np.full((total, max_tokens), pad_id, np.int32)
    begun_prompts = 0

    def take(rows: int) -> tuple[jax.Array, jax.Array]:
        """The next prompts, which fill so many rows, and the first of their rows; empty ones where none is left."""
        nonlocal begun_prompts
        first, count = begun_prompts, rows // generations
        begun_prompts += count
        chosen = prompts[first:begun_prompts]
        chosen = np.pad(chosen, ((0, count - len(chosen)), (0, 0)), constant_values=pad_id)
        return _spread(chosen, state), jnp.int32(first_row + first * generations)

    size = min(longest, width + CACHE_BUCKET)
    rows, column = prefill(*take(slots), size=size), width
    while True:
        is_waiting = begun_prompts < len(prompts)
        count = len(rows.number)
        least = count - refill if is_waiting else next_size(count, max_tokens)
        rows, column = advance(rows, jnp.int32(column), until=jnp.int32(size), least=jnp.int32(least))
        column, number, tokens, begun, stopped = jax.device_get(
            (column, rows.number, rows.tokens, rows.begun, rows.has_stopped)
        )
        is_ours = number < first_row + total
        found[number[is_ours] - first_row] = tokens[is_ours]
        running = count - int(stopped.sum())
        on_rows(min(total, begun_prompts * generations) - running)
        if is_waiting and running <= least:
            free = np.flatnonzero(stopped)[:refill].astype(np.int32)
            rows = _put(rows, prefill(*take(refill), size=width), free, jnp.int32(column))
        elif running == 0:
            break
        elif running <= least:
            # Rows that run come first, in their order; where fewer are left than there is room, stopped ones fill up.
            rows = _take(rows, np.argsort(stopped, kind="stable")[:least].astype(np.int32))
        else:
            # No column is left. Those before the oldest row's prompt are nobody's; the cache grows where they are few.
            unused = int(begun[~stopped].min()) - width
            if unused > spare:
                rows, column = _shift(rows, jnp.int32(unused)), column - unused
            else:
                size = min(longest, 2 * size - width)
                rows = _widen(rows, size=size)
    lengths = np.sum(found != pad_id, axis=1)
    last = np.take_along_axis(found, lengths[:, None] - 1, axis=1)[:, 0]
    return Generated(np.repeat(prompts, generations, axis=0), found, lengths, ~np.isin(last, stop_ids))


def stream(
    model: nnx.Module, prompt: Sequence[int], *, max_tokens: int, stop_ids: Sequence[int], pad_id: int
) -> Iterator[int]:
    """The greedy completion of one prompt, token by token, the stop token last: the tokens that generate gives."""
    graphdef, state = nnx.split(model)
    prompts = left_pad([prompt], pad_id=pad_id)
    width = prompts.shape[1]
    rows = _prefill(
        graphdef, state, prompts, jnp.int32(0), key=jax.random.key(0), generations=1, tokens=max_tokens,
        size=width + max_tokens, pad_id=pad_id,
    )  # fmt: skip
    for column in range(width, width + max_tokens):
        rows, _ = _advance(
            graphdef, state, rows, jnp.int32(column), until=jnp.int32(column + 1), least=jnp.int32(0),
            temperature=jnp.float32(1), stop_ids=tuple(stop_ids), pad_id=pad_id, greedy=True, top_k=0, top_p=1.0,
        )  # fmt: skip
        yield int(rows.tokens[0, column - width])
        if rows.has_stopped[0]:
            return


def _spread(prompts: np.ndarray, state: Any) -> jax.Array:
    """The prompts, shared out over the devices that the weights lie on: each would complete them all otherwise."""
    sharding = jax.tree.leaves(state)[0].sharding
    if not isinstance(sharding, jax.NamedSharding) or len(prompts) % sharding.mesh.shape["fsdp"]:
        return jnp.asarray(prompts)
    return jax.device_put(prompts, jax.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec("fsdp")))


def next_size(rows: int, max_tokens: int) -> int:
    """What a batch of so many rows is cut to as they stop, 0 where they all stop first: 1,024 → 256 → 64 → 0."""
    smallest = SMALLEST_BATCH if max_tokens <= CACHE_BUCKET else SMALLEST_BATCH_IF_LONG
    return rows // 4 if rows >= 4 * smallest else 0


@functools.partial(jax.jit, static_argnames=("graphdef", "generations", "tokens", "size", "pad_id"))
def _prefill(
    graphdef: Any, state: Any, prompts: jax.Array, first_row: jax.Array, *, key: jax.Array, generations: int,
    tokens: int, size: int, pad_id: int,
) -> _Rows:  # fmt: skip
    """Rows that begin right after their prompts [B, P], in a cache of that many columns. An empty one has stopped."""
    model = nnx.merge(graphdef, state)
    batch, width = prompts.shape
    is_prompt = prompts != pad_id
    positions = jnp.maximum(jnp.cumsum(is_prompt, axis=1) - 1, 0)
    causal = jnp.tril(jnp.ones((width, width), bool))[None] & is_prompt[:, None, :]
    mask = jnp.pad(causal, ((0, 0), (0, 0), (0, size - width)))
    hidden, cache = model(prompts, positions, _empty_cache(model, batch, size), mask, return_hidden=True)
    logits = model.decode(hidden[:, -1])

    repeat = functools.partial(jnp.repeat, repeats=generations, axis=0)
    numbers = first_row + jnp.arange(batch * generations)
    prompt_length = repeat(jnp.sum(is_prompt, axis=1))
    return _Rows(
        number=numbers,
        key=jax.vmap(lambda row: jax.random.fold_in(key, row))(numbers),
        prompt_length=prompt_length,
        begun=jnp.full(batch * generations, width),
        is_visible=jnp.pad(repeat(is_prompt), ((0, 0), (0, size - width))),
        logits=repeat(logits),
        cache=jax.tree.map(repeat, cache),
        tokens=jnp.full((batch * generations, tokens), pad_id, jnp.int32),
        has_stopped=prompt_length == 0,
    )


@functools.partial(
    jax.jit, static_argnames=("graphdef", "stop_ids", "pad_id", "greedy", "top_k", "top_p"), donate_argnames=("rows",)
)
def _advance(
    graphdef: Any, state: Any, rows: _Rows, column: jax.Array, *, until: jax.Array, least: jax.Array,
    temperature: jax.Array, stop_ids: tuple[int, ...], pad_id: int, greedy: bool, top_k: int, top_p: float,
) -> tuple[_Rows, jax.Array]:  # fmt: skip
    """Steps from one column to another, or until no more than `least` rows run; the rows, and the column reached."""
    stops, most = jnp.asarray(stop_ids), rows.tokens.shape[1]
    # Where the model writes. Whatever moved columns left this to be set here.
    ends = {
        name: layer | {"end_index": jnp.full_like(layer["end_index"], column)} for name, layer in rows.cache.items()
    }
    rows = rows._replace(cache=ends)

    def is_crowded(carry: tuple[jax.Array, _Rows]) -> jax.Array:
        column, rows = carry
        return (column < until) & (jnp.sum(~rows.has_stopped) > least)

    def advance(carry: tuple[jax.Array, _Rows]) -> tuple[jax.Array, _Rows]:
        column, rows = carry
        step = column - rows.begun
        model = nnx.merge(graphdef, state)  # Qwix sets attributes: this trace needs its own
        # A sampled pad would look like the end of a row.
        chosen = choose(
            rows.logits.at[:, pad_id].set(-jnp.inf), jax.vmap(jax.random.fold_in)(rows.key, step),
            greedy=greedy, temperature=temperature, top_k=top_k, top_p=top_p,
        )  # fmt: skip
        chosen = jnp.where(rows.has_stopped, pad_id, chosen).astype(jnp.int32)
        is_visible = rows.is_visible.at[:, column].set(True)
        hidden, cache = model(
            chosen[:, None], (rows.prompt_length + step)[:, None], rows.cache, is_visible[:, None, :],
            return_hidden=True,
        )  # fmt: skip
        written = jnp.where(rows.has_stopped, most, step)  # beyond the end: not at all
        return column + 1, rows._replace(
            is_visible=is_visible, logits=model.decode(hidden[:, 0]), cache=cache,
            tokens=rows.tokens.at[jnp.arange(len(chosen)), written].set(chosen, mode="drop"),
            has_stopped=rows.has_stopped | jnp.isin(chosen, stops) | (step + 1 >= most),
        )  # fmt: skip

    column, rows = jax.lax.while_loop(is_crowded, advance, (column, rows))
    return rows, column


@functools.partial(jax.jit, donate_argnums=0)
def _put(rows: _Rows, new: _Rows, slots: jax.Array, column: jax.Array) -> _Rows:
    """New rows in these slots, with their prompts right before the column that comes next."""
    width = new.is_visible.shape[1]

    def place(part: jax.Array, leaf: jax.Array) -> jax.Array:
        """[N, P, ...] into the columns of zeros of [N, columns, ...]."""
        room = jnp.zeros((len(part), *leaf.shape[1:]), leaf.dtype)
        return jax.lax.dynamic_update_slice(room, part, (0, column - width, *[0] * (leaf.ndim - 2)))

    new = _columns(place, new, rows)._replace(begun=jnp.full_like(new.begun, column))
    return jax.tree.map(lambda leaf, part: leaf.at[slots].set(part), rows, new)


@jax.jit
def _take(rows: _Rows, slots: jax.Array) -> _Rows:
    return jax.tree.map(lambda leaf: leaf[slots], rows)


@functools.partial(jax.jit, donate_argnums=0)
def _shift(rows: _Rows, unused: jax.Array) -> _Rows:
    """Without the first columns, and as many empty ones at the end."""
    rows = _columns(lambda leaf: jnp.roll(leaf, -unused, axis=1), rows)
    size = rows.is_visible.shape[1]
    return rows._replace(begun=rows.begun - unused, is_visible=rows.is_visible & (jnp.arange(size) < size - unused))


@functools.partial(jax.jit, static_argnames="size")
def _widen(rows: _Rows, *, size: int) -> _Rows:
    more = size - rows.is_visible.shape[1]
    return _columns(lambda leaf: jnp.pad(leaf, ((0, 0), (0, more), *[(0, 0)] * (leaf.ndim - 2))), rows)


def _columns(function: Callable[..., jax.Array], rows: _Rows, *others: _Rows) -> _Rows:
    """rows with the function's value for all that has columns, [N, columns, ...]; it gets that of the others too."""
    cache = {
        name: layer | {part: function(layer[part], *(other.cache[name][part] for other in others)) for part in "kv"}
        for name, layer in rows.cache.items()
    }
    return rows._replace(is_visible=function(rows.is_visible, *(other.is_visible for other in others)), cache=cache)


def choose(
    logits: jax.Array, keys: jax.Array, *, greedy: bool, temperature: jax.Array, top_k: int, top_p: float
) -> jax.Array:
    """The next token of each row, [N] from logits [N, V] and one key a row.

    By the inverse of the cumulative distribution: one uniform number a row instead of V Gumbels. top_k and
    top_p keep the tokens that reach their threshold, ties included.
    """
    logits = logits.astype(jnp.float32)
    if greedy:
        return jnp.argmax(logits, axis=-1)
    logits = logits / temperature
    if top_k:
        threshold = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    probabilities = jax.nn.softmax(logits, axis=-1)
    if top_p < 1:
        ordered = -jnp.sort(-probabilities, axis=-1)
        before = jnp.cumsum(ordered, axis=-1) - ordered
        threshold = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        probabilities = jnp.where(probabilities >= threshold, probabilities, 0.0)
    # XLA sums in blocks, so that the sum can rise or fall by rounding at a token of probability 0: those don't count.
    cumulative = jnp.where(probabilities > 0, jnp.cumsum(probabilities, axis=-1), 0.0)
    total = jnp.max(cumulative, axis=-1, keepdims=True)
    draw = jax.vmap(jax.random.uniform)(keys)[:, None] * total
    # The first token whose cumulative probability exceeds the draw; a token of probability 0 never does. The
    # product may round up to the total, which nothing exceeds.
    draw = jnp.minimum(draw, jnp.nextafter(total, 0.0))
    return jnp.argmax(cumulative > draw, axis=-1)


def _empty_cache(model: nnx.Module, rows: int, size: int) -> dict[str, dict[str, jax.Array]]:
    config = model.config
    shape = (rows, size, config.num_kv_heads, config.head_dim)
    dtype = model.embedder.input_embedding.dtype
    return {
        f"layer_{i}": {
            "k": jnp.zeros(shape, dtype),
            "v": jnp.zeros(shape, dtype),
            "end_index": jnp.zeros(rows, jnp.int32),
        }
        for i in range(config.num_layers)
    }


@dataclass(frozen=True)
class Completer:
    """Completes lists of problems, rows_per_call rows at a time, with a bar.

    prompt_tokens is the width that prompts are padded to: all lists then share their compiled programs.
    """

    model: nnx.Module
    tokenizer: Tokenizer
    system: str
    stop_ids: Sequence[int]
    max_tokens: int
    rows_per_call: int
    prompt_tokens: int = 1

    def ids(self, problem: Problem) -> list[int]:
        return self.tokenizer.prompt_ids(problem.question, system=self.system)

    def __call__(
        self, problems: Sequence[Problem], *, key: jax.Array, sampling: Sampling, generations: int, name: str
    ) -> list[list[Completion]]:
        """`generations` completions of each problem. Deterministic in the key."""
        if not problems:
            return []
        pad_id, per_call = self.tokenizer.pad_id(), max(1, self.rows_per_call // generations)
        prompts = left_pad([*map(self.ids, problems)], pad_id=pad_id, width=self.prompt_tokens)
        with Steps(name, len(problems)) as bar:
            generated = generate(
                self.model, prompts, key=key, sampling=sampling, generations=generations, max_tokens=self.max_tokens,
                stop_ids=self.stop_ids, pad_id=pad_id, slots=per_call * generations,
                on_rows=lambda rows: bar.update(rows // generations, "greedy" if sampling.greedy else "sampled"),
            )  # fmt: skip
        completions = generated.completions(self.tokenizer, self.stop_ids)
        return [completions[i * generations : (i + 1) * generations] for i in range(len(problems))]
