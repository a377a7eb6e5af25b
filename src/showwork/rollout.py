"""Generation: one compiled program from prompts to completions, prompts prefilled once for all their samples."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork.progress import Steps
from showwork.prompts import render_prompt
from showwork.records import Completion, Problem
from showwork.tokenizer import Tokenizer

# Prompts are padded to a multiple of this, so that a handful of shapes is compiled and no more.
PROMPT_BUCKET = 16


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


def left_pad(prompts: Sequence[Sequence[int]], *, pad_id: int, bucket: int = PROMPT_BUCKET) -> np.ndarray:
    """[B, P] with P the longest prompt, rounded up to the bucket."""
    width = -(-max(len(prompt) for prompt in prompts) // bucket) * bucket
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
    first_row set accordingly, or padding it, changes no token.
    """
    graphdef, state = nnx.split(model)
    tokens, lengths, truncated = _generate(
        graphdef, state, jnp.asarray(prompts), key, jnp.int32(first_row), jnp.float32(sampling.temperature),
        generations=generations, max_tokens=max_tokens, stop_ids=tuple(stop_ids), pad_id=pad_id,
        greedy=sampling.greedy, top_k=sampling.top_k, top_p=sampling.top_p,
    )  # fmt: skip
    return Generated(np.repeat(prompts, generations, axis=0), *jax.device_get((tokens, lengths, truncated)))


@functools.partial(
    jax.jit,
    static_argnames=("graphdef", "generations", "max_tokens", "stop_ids", "pad_id", "greedy", "top_k", "top_p"),
)
def _generate(
    graphdef: Any, state: Any, prompts: jax.Array, key: jax.Array, first_row: jax.Array, temperature: jax.Array, *,
    generations: int, max_tokens: int, stop_ids: tuple[int, ...], pad_id: int, greedy: bool, top_k: int, top_p: float,
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
    hidden, cache = model(prompts, positions, _empty_cache(model, batch, cache_size), mask, return_hidden=True)
    logits = model.embedder.decode(hidden[:, -1])

    repeat = functools.partial(jnp.repeat, repeats=generations, axis=0)
    cache = jax.tree.map(repeat, cache)
    logits, prompt_lengths = repeat(logits), repeat(prompt_lengths)
    is_visible = jnp.pad(repeat(is_prompt), ((0, 0), (0, max_tokens)))
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(first_row + jnp.arange(rows))
    stops = jnp.asarray(stop_ids)

    def is_running(carry: Any) -> jax.Array:
        step, *_, has_stopped = carry
        return (step < max_tokens) & ~jnp.all(has_stopped)

    def advance(carry: Any) -> Any:
        step, logits, cache, is_visible, tokens, has_stopped = carry
        model = nnx.merge(graphdef, state)  # Qwix sets attributes: this trace needs its own
        # A sampled pad would look like the end of a row.
        chosen = choose(
            logits.at[:, pad_id].set(-jnp.inf), jax.vmap(lambda k: jax.random.fold_in(k, step))(row_keys),
            greedy=greedy, temperature=temperature, top_k=top_k, top_p=top_p,
        )  # fmt: skip
        chosen = jnp.where(has_stopped, pad_id, chosen).astype(jnp.int32)
        tokens = tokens.at[:, step].set(chosen)
        is_visible = is_visible.at[:, width + step].set(True)
        hidden, cache = model(
            chosen[:, None], (prompt_lengths + step)[:, None], cache, is_visible[:, None, :], return_hidden=True
        )
        has_stopped |= jnp.isin(chosen, stops)
        return step + 1, model.embedder.decode(hidden[:, 0]), cache, is_visible, tokens, has_stopped

    tokens = jnp.full((rows, max_tokens), pad_id, jnp.int32)
    start = (jnp.int32(0), logits, cache, is_visible, tokens, jnp.zeros(rows, bool))
    *_, tokens, has_stopped = jax.lax.while_loop(is_running, advance, start)
    return tokens, jnp.sum(tokens != pad_id, axis=1), ~has_stopped


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
    dtype = config.param_dtype
    return {
        f"layer_{i}": {
            "k": jnp.zeros(shape, dtype),
            "v": jnp.zeros(shape, dtype),
            "end_index": jnp.zeros(rows, jnp.int32),
        }
        for i in range(config.num_layers)
    }


class Completer:
    """Completes lists of problems in calls of one shape, with a bar. Deterministic in the key."""

    def __init__(
        self, model: nnx.Module, tokenizer: Tokenizer, *, system: str, stop_ids: Sequence[int], max_tokens: int,
        rows_per_call: int, key: jax.Array, name: str,
    ):  # fmt: skip
        self._model, self._tokenizer, self._system, self._stop_ids = model, tokenizer, system, stop_ids
        self._max_tokens, self._rows_per_call, self._key, self._name = max_tokens, rows_per_call, key, name

    def __call__(self, problems: Sequence[Problem], *, sampling: Sampling, generations: int) -> list[list[Completion]]:
        """`generations` completions for each problem."""
        if not problems:
            return []
        tokenizer, pad_id = self._tokenizer, self._tokenizer.pad_id()
        ids = [
            [tokenizer.bos_id(), *tokenizer.encode(render_prompt(p.question, system=self._system))] for p in problems
        ]
        per_call = min(max(1, self._rows_per_call // generations), len(ids))
        # All calls have the same shape, so that there is one program: the last is filled up with BOS alone.
        ids += [[tokenizer.bos_id()]] * (-len(ids) % per_call)
        prompts = left_pad(ids, pad_id=pad_id)
        completions: list[Completion] = []
        with Steps(self._name, len(problems)) as bar:
            for start in range(0, len(prompts), per_call):
                generated = generate(
                    self._model, prompts[start : start + per_call], key=self._key, sampling=sampling,
                    generations=generations, max_tokens=self._max_tokens, stop_ids=self._stop_ids, pad_id=pad_id,
                    first_row=start * generations,
                )  # fmt: skip
                completions += generated.completions(tokenizer, self._stop_ids)
                bar.update(min(start + per_call, len(problems)), "greedy" if sampling.greedy else "sampled")
        rows = [completions[i : i + generations] for i in range(0, len(completions), generations)]
        return rows[: len(problems)]
