"""Continuous batching on the device: the rows of a batch, and the compiled steps that start, advance and move them.

All rows write the same cache column each step, whenever they started; a mask selects what each row sees, and distances
in a sliding window are distances between columns. So rows of any age advance in one compiled loop.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from showwork.sampling import Decoding, choose
from showwork.shapes import prefill_mask
from showwork.tunix_adapter.gemma import Model

# "layer_0" → its keys "k" and values "v" [N, columns, K * H], and "end_index" [N], the column that it writes next.
Cache = dict[str, dict[str, jax.Array]]


class Rows(NamedTuple):
    """What a decode step needs of the rows that it advances; N is the first axis of every leaf."""

    number: jax.Array
    """[N], the row's number in the whole run."""
    key: jax.Array
    """[N], random keys."""
    prompt_length: jax.Array
    """[N], 0 of an empty row."""
    start_column: jax.Array
    """[N], the cache column of the row's first completion token; its prompt ends right before it."""
    visible: jax.Array
    """[N, columns], the columns that the row may attend to."""
    logits: jax.Array
    """[N, V], of the token that comes next."""
    cache: Cache
    tokens: jax.Array
    """[N, T], the completion so far, then padding."""
    has_stopped: jax.Array
    """[N]"""


class Sizes(NamedTuple):
    """Sizes of what a prefill makes."""

    generations: int
    columns: int
    """Columns of the cache."""
    tokens: int
    """T, the longest completion."""


@functools.partial(jax.jit, static_argnames=("graphdef", "pad_id", "sizes"))
def prefill(
    graphdef: nnx.GraphDef, state: nnx.State, prompts: jax.Array, first_row: jax.Array, *, key: jax.Array,
    pad_id: int, sizes: Sizes,
) -> Rows:  # fmt: skip
    """Rows that start right after their left-padded prompts [B, P], N = B * generations; empty prompts have stopped."""
    model = nnx.merge(graphdef, state)
    batch, width = prompts.shape
    is_prompt = prompts != pad_id
    positions = jnp.maximum(jnp.cumsum(is_prompt, axis=1) - 1, 0)
    mask = prefill_mask(is_prompt, sizes.columns)
    hidden, cache = model(prompts, positions, _empty_cache(model, batch, sizes.columns), mask, return_hidden=True)
    logits = model.decode(hidden[:, -1])

    count = batch * sizes.generations
    repeat = functools.partial(jnp.repeat, repeats=sizes.generations, axis=0)
    numbers = first_row + jnp.arange(count)
    prompt_length = repeat(jnp.sum(is_prompt, axis=1))
    return Rows(
        number=numbers,
        key=jax.vmap(lambda row: jax.random.fold_in(key, row))(numbers),
        prompt_length=prompt_length,
        start_column=jnp.full(count, width, jnp.int32),  # of a weak type, all programs would be compiled twice
        visible=jnp.pad(repeat(is_prompt), ((0, 0), (0, sizes.columns - width))),
        logits=repeat(logits),
        cache=jax.tree.map(repeat, cache),
        tokens=jnp.full((count, sizes.tokens), pad_id, jnp.int32),
        has_stopped=prompt_length == 0,
    )


@functools.partial(jax.jit, static_argnames=("graphdef", "shards"), donate_argnames="rows")
def advance(
    graphdef: nnx.GraphDef, state: nnx.State, rows: Rows, column: jax.Array, *, until: jax.Array, least: jax.Array,
    options: Decoding, shards: int,
) -> tuple[Rows, jax.Array]:  # fmt: skip
    """Decode steps from `column` up to `until`, or until at most `least` rows run on each of the `shards` devices, of
    which each holds N / shards consecutive rows; the rows, and the next column."""
    stops, most = jnp.asarray(options.stop_ids), rows.tokens.shape[1]
    # The column that the model writes; put, shift and widen leave it to be set here.
    ends = {
        name: layer | {"end_index": jnp.full_like(layer["end_index"], column)} for name, layer in rows.cache.items()
    }
    rows = rows._replace(cache=ends)

    def is_crowded(carry: tuple[jax.Array, Rows]) -> jax.Array:
        column, rows = carry
        running = jnp.sum(~rows.has_stopped.reshape(shards, -1), axis=1)
        return (column < until) & (jnp.max(running) > least)

    def step_once(carry: tuple[jax.Array, Rows]) -> tuple[jax.Array, Rows]:
        column, rows = carry
        step = column - rows.start_column
        model = nnx.merge(graphdef, state)  # Qwix sets attributes of the modules: this trace needs its own
        # A sampled pad would look like the end of a row.
        logits = rows.logits.at[:, options.pad_id].set(-jnp.inf)
        chosen = choose(logits, jax.vmap(jax.random.fold_in)(rows.key, step), options.sampling)
        chosen = jnp.where(rows.has_stopped, options.pad_id, chosen).astype(jnp.int32)
        visible = rows.visible.at[:, column].set(True)
        hidden, cache = model(
            chosen[:, None], (rows.prompt_length + step)[:, None], rows.cache, visible[:, None, :], return_hidden=True
        )
        # Stopped rows get an out-of-range index, which mode="drop" ignores.
        written = jnp.where(rows.has_stopped, most, step)
        return column + 1, rows._replace(
            visible=visible, logits=model.decode(hidden[:, 0]), cache=cache,
            tokens=rows.tokens.at[jnp.arange(len(chosen)), written].set(chosen, mode="drop"),
            has_stopped=rows.has_stopped | jnp.isin(chosen, stops) | (step + 1 >= most),
        )  # fmt: skip

    column, rows = jax.lax.while_loop(is_crowded, step_once, (column, rows))
    return rows, column


@functools.partial(jax.jit, donate_argnums=0)
def put(rows: Rows, new: Rows, slots: jax.Array, column: jax.Array) -> Rows:
    """Replaces the rows in these slots by new ones, whose prompts end right before `column`, the next one written.

    slots [devices, M] are those of each device, among its own rows, and new has as many: no row changes its device.
    """
    width = new.visible.shape[1]

    def place(part: jax.Array, leaf: jax.Array) -> jax.Array:
        """[N, P, ...] at its columns of zeros [N, columns, ...]."""
        room = jnp.zeros((len(part), *leaf.shape[1:]), leaf.dtype)
        return jax.lax.dynamic_update_slice(room, part, (0, column - width, *[0] * (leaf.ndim - 2)))

    new = _map_columns(place, new, rows)._replace(start_column=jnp.full_like(new.start_column, column))

    def write(leaf: jax.Array, part: jax.Array) -> jax.Array:
        found = jax.vmap(lambda x, at, new: x.at[at].set(new))(_split(leaf, slots), slots, _split(part, slots))
        return found.reshape(leaf.shape)

    return jax.tree.map(write, rows, new)


@jax.jit
def take(rows: Rows, slots: jax.Array) -> Rows:
    """The rows in these slots alone, [devices, M] as in put."""

    def read(leaf: jax.Array) -> jax.Array:
        return jax.vmap(lambda x, at: x[at])(_split(leaf, slots), slots).reshape(-1, *leaf.shape[1:])

    return jax.tree.map(read, rows)


def _split(leaf: jax.Array, slots: jax.Array) -> jax.Array:
    """[devices, N / devices, …] of [N, …]."""
    return leaf.reshape(len(slots), -1, *leaf.shape[1:])


@functools.partial(jax.jit, donate_argnums=0)
def shift(rows: Rows, unused: jax.Array) -> Rows:
    """Removes the first `unused` columns and adds as many empty ones at the end."""
    rows = _map_columns(lambda leaf: jnp.roll(leaf, -unused, axis=1), rows)
    size = rows.visible.shape[1]
    return rows._replace(
        start_column=rows.start_column - unused, visible=rows.visible & (jnp.arange(size) < size - unused)[None]
    )


@functools.partial(jax.jit, static_argnames="columns")
def widen(rows: Rows, *, columns: int) -> Rows:
    """Adds empty columns at the end, up to so many."""
    more = columns - rows.visible.shape[1]
    return _map_columns(lambda leaf: jnp.pad(leaf, ((0, 0), (0, more), *[(0, 0)] * (leaf.ndim - 2))), rows)


def _map_columns(function: Callable[..., jax.Array], rows: Rows, *others: Rows) -> Rows:
    """Applies the function to each leaf of rows with columns, [N, columns, ...], and to the same leaf of the others."""
    cache = {
        name: layer | {part: function(layer[part], *(other.cache[name][part] for other in others)) for part in "kv"}
        for name, layer in rows.cache.items()
    }
    return rows._replace(visible=function(rows.visible, *(other.visible for other in others)), cache=cache)


def _empty_cache(model: Model, rows: int, columns: int) -> Cache:
    config = model.config
    shape = (rows, columns, config.num_kv_heads * config.head_dim)
    dtype = model.compute_dtype
    return {
        f"layer_{i}": {
            "k": jnp.zeros(shape, dtype),
            "v": jnp.zeros(shape, dtype),
            "end_index": jnp.zeros(rows, jnp.int32),
        }
        for i in range(config.num_layers)
    }
