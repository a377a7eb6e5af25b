"""Generation: one compiled program from prompts to completions, prompts prefilled once for all their samples."""

import functools
from collections.abc import Sequence
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
# decode step hardly gets any shorter.
SMALLEST_BATCH = 32


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
    """What a decode step needs of the rows that it advances; the first axis of every leaf is theirs."""

    number: jax.Array
    key: jax.Array
    prompt_length: jax.Array
    is_visible: jax.Array
    logits: jax.Array
    cache: Any
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
) -> Generated:
    """Completes left-padded prompts [B, P] in one call, stopping as soon as every row has stopped.

    The noise of a row is a function of (key, its number, the step) alone: splitting a batch into calls with
    first_row set accordingly, padding it, or leaving out rows that have stopped, changes no token.
    """
    graphdef, state = nnx.split(model)
    tokens, lengths, truncated = _generate(
        graphdef, state, _spread(prompts, state), key, jnp.int32(first_row), jnp.float32(sampling.temperature),
        sizes=batch_sizes(len(prompts) * generations), generations=generations, max_tokens=max_tokens,
        stop_ids=tuple(stop_ids), pad_id=pad_id, greedy=sampling.greedy, top_k=sampling.top_k, top_p=sampling.top_p,
    )  # fmt: skip
    return Generated(np.repeat(prompts, generations, axis=0), *jax.device_get((tokens, lengths, truncated)))


def _spread(prompts: np.ndarray, state: Any) -> jax.Array:
    """The prompts, shared out over the devices that the weights lie on: each would complete them all otherwise."""
    sharding = jax.tree.leaves(state)[0].sharding
    if not isinstance(sharding, jax.NamedSharding) or len(prompts) % sharding.mesh.shape["fsdp"]:
        return jnp.asarray(prompts)
    return jax.device_put(prompts, jax.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec("fsdp")))


def batch_sizes(rows: int) -> tuple[int, ...]:
    """The sizes that a batch goes through as its rows stop: 1,024 → 1,024, 256, 64."""
    sizes = [rows]
    while sizes[-1] >= 4 * SMALLEST_BATCH:
        sizes.append(sizes[-1] // 4)
    return tuple(sizes)


@functools.partial(
    jax.jit,
    static_argnames=(
        "graphdef", "sizes", "generations", "max_tokens", "stop_ids", "pad_id", "greedy", "top_k", "top_p",
    ),
)  # fmt: skip
def _generate(
    graphdef: Any, state: Any, prompts: jax.Array, key: jax.Array, first_row: jax.Array, temperature: jax.Array, *,
    sizes: tuple[int, ...], generations: int, max_tokens: int, stop_ids: tuple[int, ...], pad_id: int, greedy: bool,
    top_k: int, top_p: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    model = nnx.merge(graphdef, state)
    batch, width = prompts.shape
    rows, cache_size = batch * generations, width + max_tokens
    is_prompt = prompts != pad_id
    prompt_lengths = jnp.sum(is_prompt, axis=1)

    # Prefill: attention over the cache [B, P, width + max_tokens], of which only the prompt is written.
    positions = jnp.maximum(jnp.cumsum(is_prompt, axis=1) - 1, 0)
    causal = jnp.tril(jnp.ones((width, width), bool))[None] & is_prompt[:, None, :]
    mask = jnp.pad(causal, ((0, 0), (0, 0), (0, max_tokens)))
    hidden, cache = model(prompts, positions, empty_cache(model, batch, cache_size), mask, return_hidden=True)
    logits = model.decode(hidden[:, -1])

    repeat = functools.partial(jnp.repeat, repeats=generations, axis=0)
    numbers = jnp.arange(rows)
    running = _Rows(
        number=numbers,
        key=jax.vmap(lambda row: jax.random.fold_in(key, row))(first_row + numbers),
        prompt_length=repeat(prompt_lengths),
        is_visible=jnp.pad(repeat(is_prompt), ((0, 0), (0, max_tokens))),
        logits=repeat(logits),
        cache=jax.tree.map(repeat, cache),
        has_stopped=jnp.zeros(rows, bool),
    )
    stops = jnp.asarray(stop_ids)

    def advance(carry: tuple[jax.Array, jax.Array, _Rows]) -> tuple[jax.Array, jax.Array, _Rows]:
        step, tokens, rows = carry
        model = nnx.merge(graphdef, state)  # Qwix sets attributes: this trace needs its own
        # A sampled pad would look like the end of a row.
        chosen = choose(
            rows.logits.at[:, pad_id].set(-jnp.inf), jax.vmap(lambda k: jax.random.fold_in(k, step))(rows.key),
            greedy=greedy, temperature=temperature, top_k=top_k, top_p=top_p,
        )  # fmt: skip
        chosen = jnp.where(rows.has_stopped, pad_id, chosen).astype(jnp.int32)
        is_visible = rows.is_visible.at[:, width + step].set(True)
        hidden, cache = model(
            chosen[:, None], (rows.prompt_length + step)[:, None], rows.cache, is_visible[:, None, :],
            return_hidden=True,
        )  # fmt: skip
        rows = rows._replace(
            is_visible=is_visible, logits=model.decode(hidden[:, 0]), cache=cache,
            has_stopped=rows.has_stopped | jnp.isin(chosen, stops),
        )  # fmt: skip
        return step + 1, tokens.at[rows.number, step].set(chosen), rows

    carry = jnp.int32(0), jnp.full((rows, max_tokens), pad_id, jnp.int32), running
    for next_size in (*sizes[1:], 0):

        def is_crowded(carry: tuple[jax.Array, jax.Array, _Rows], next_size: int = next_size) -> jax.Array:
            step, _, rows = carry
            return (step < max_tokens) & (jnp.sum(~rows.has_stopped) > next_size)

        step, tokens, running = jax.lax.while_loop(is_crowded, advance, carry)
        # Rows that run come first, in their order; where fewer are left than there is room, stopped ones fill up.
        kept = jnp.argsort(running.has_stopped, stable=True)[:next_size]
        carry = step, tokens, jax.tree.map(lambda leaf, kept=kept: leaf[kept], running)
    lengths = jnp.sum(tokens != pad_id, axis=1)
    last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
    return tokens, lengths, ~jnp.isin(last, stops)


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


def empty_cache(model: nnx.Module, rows: int, size: int) -> dict[str, dict[str, jax.Array]]:
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
    """Completes lists of problems in calls of one shape, with a bar.

    prompt_tokens is the width that prompts are padded to: all lists then share one compiled program.
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
        # The last call is filled up with BOS alone.
        ids = [*map(self.ids, problems), *[[self.tokenizer.bos_id()]] * (-len(problems) % per_call)]
        prompts = left_pad(ids, pad_id=pad_id, width=self.prompt_tokens)
        completions: list[Completion] = []
        with Steps(name, len(problems)) as bar:
            for start in range(0, len(prompts), per_call):
                generated = generate(
                    self.model, prompts[start : start + per_call], key=key, sampling=sampling,
                    generations=generations, max_tokens=self.max_tokens, stop_ids=self.stop_ids, pad_id=pad_id,
                    first_row=start * generations,
                )  # fmt: skip
                completions += generated.completions(self.tokenizer, self.stop_ids)
                bar.update(min(start + per_call, len(problems)), "greedy" if sampling.greedy else "sampled")
        return [completions[i * generations : (i + 1) * generations] for i in range(len(problems))]
