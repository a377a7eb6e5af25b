"""Training rows: problems to tokens, packed without waste."""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from showwork.records import Problem
from showwork.tokenizer import Tokenizer
from showwork.training.losses import Rows
from showwork.training.passes import Split


@dataclass(frozen=True)
class Example:
    """One training row, unpadded."""

    tokens: np.ndarray
    """[L]"""
    trained: np.ndarray
    """[L], 1 where the loss counts the token, else 0."""


def encode_example(question: str, completion: str, tokenizer: Tokenizer, *, system: str, stop_id: int) -> Example:
    """BOS, prompt, completion, stop token; the loss counts the completion and the stop token."""
    prompt = tokenizer.prompt_ids(question, system=system)
    target = [*tokenizer.encode(completion), stop_id]
    trained = np.repeat([0, 1], [len(prompt), len(target)])
    return Example(np.array(prompt + target, np.int32), trained.astype(np.int32))


def encode_examples(
    problems: Sequence[Problem], completions: Sequence[str], tokenizer: Tokenizer, *, system: str, stop_id: int,
    max_tokens: int,
) -> tuple[list[Example], int]:  # fmt: skip
    """A completion for each problem: the examples that fit max_tokens, and the number of those that do not."""
    examples = [
        encode_example(problem.question, completion, tokenizer, system=system, stop_id=stop_id)
        for problem, completion in zip(problems, completions, strict=True)
    ]
    fitting = [example for example in examples if len(example.tokens) <= max_tokens]
    return fitting, len(examples) - len(fitting)


def encode_drills(
    lines: Iterable[tuple[str, str]], tokenizer: Tokenizer, *, rows: int, max_tokens: int
) -> list[Example]:
    """Rows of drills, several lines to a row, BOS first; the loss counts answers and line ends."""
    examples, source = [], iter(lines)
    while len(examples) < rows:
        tokens, trained = [tokenizer.bos_id()], [0]
        while True:
            question, answer = (tokenizer.encode(text) for text in next(source))
            answer += tokenizer.encode("\n")
            if len(tokens) + len(question) + len(answer) > max_tokens:
                break
            tokens += question + answer
            trained += [0] * len(question) + [1] * len(answer)
        examples.append(Example(np.array(tokens, np.int32), np.array(trained, np.int32)))
    return examples


def recall_rows(tokenizer: Tokenizer, *, rows: int, max_tokens: int, seed: int) -> list[Example]:
    """Rows of random spans, a third of their tokens digits, each span followed by parts of itself.

    The loss counts a part from its second token on: only tokens that copying can predict. A model from scratch copies
    no name and no number before it has learned this, and word problems teach it slowly.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"recall")])
    ids, digits = tokenizer.word_ids(), [tokenizer.encode(digit)[-1] for digit in "0123456789"]
    examples = []
    for _ in range(rows):
        tokens, trained = [tokenizer.bos_id()], [0]
        while True:
            length = int(rng.integers(6, 25))
            span = np.where(rng.random(length) < 1 / 3, rng.choice(digits, length), rng.choice(ids, length)).tolist()
            if len(tokens) + 2 * length > max_tokens:
                break
            tokens += span
            trained += [0] * length
            left = length
            while left >= 3:
                start = int(rng.integers(length - 2))
                part = span[start : start + int(rng.integers(3, min(left, length - start) + 1))]
                tokens += part
                trained += [0] + [1] * (len(part) - 1)
                left -= len(part)
        examples.append(Example(np.array(tokens, np.int32), np.array(trained, np.int32)))
    return examples


def packed_rows(examples: Sequence[Example], *, max_tokens: int, seed: int | None) -> Iterator[dict[str, np.ndarray]]:
    """Rows of max_tokens positions that hold whole examples, first fit.

    With a seed: without end, shuffled anew each epoch. Without one: once, in order. Each row is a dict of [L]
    arrays: tokens, positions (restarting in each example), segments (1, 2, … for the examples, 0 for padding) and
    trained (1 where the loss counts the token).
    """
    dataset = grain.MapDataset.source(range(len(examples))).map(
        lambda i: {"tokens": examples[i].tokens, "trained": examples[i].trained}
    )
    if seed is not None:
        dataset = dataset.seed(seed).shuffle().repeat()
    packed = grain.experimental.FirstFitPackIterDataset(
        # No reading threads: the tokens are in memory, and threads would only poll each other.
        dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)),
        length_struct={"tokens": max_tokens, "trained": max_tokens},
        num_packing_bins=16,
        shuffle_bins=False,
    )
    for row in packed:
        yield {
            "tokens": row["tokens"],
            "positions": row["tokens_positions"],
            "segments": row["tokens_segment_ids"],
            "trained": row["trained"],
        }


def step_rows(rows: Iterator[dict[str, np.ndarray]], *, rows_per_step: int, split: Split) -> Iterator[Rows]:
    """Stacks rows [L] of packed_rows to the rows of a step, [split.capacity(…), L], whose weights sum to 1.

    weights [N, L] = trained / (trained tokens of the whole step). Rows are dealt to the devices in turn; what is left
    free, because rows don't divide or a last step has fewer, is padding at each device's end.
    """
    while step := list(itertools.islice(rows, rows_per_step)):
        count = split.capacity(rows_per_step, len(step[0]["tokens"]))
        place = [i % split.devices * (count // split.devices) + i // split.devices for i in range(len(step))]
        batch = {name: np.zeros((count, *value.shape), value.dtype) for name, value in step[0].items()}
        for name, array in batch.items():
            array[place] = [row[name] for row in step]
        trained = batch.pop("trained")
        yield Rows(**batch, weights=(trained / max(1, trained.sum())).astype(np.float32))
