"""Training rows: problems to tokens, packed without waste."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from showwork.problems.answers import render_completion
from showwork.prompts import render_prompt
from showwork.records import Problem
from showwork.tokenizer import Tokenizer


@dataclass(frozen=True)
class Example:
    """One training row, unpadded: tokens [L] and which of them the loss counts, [L]."""

    tokens: np.ndarray
    trained: np.ndarray


def encode_example(problem: Problem, tokenizer: Tokenizer, *, system: str, stop_id: int) -> Example:
    """BOS, prompt, completion, stop token; the loss counts the completion and the stop token."""
    prompt = [tokenizer.bos_id(), *tokenizer.encode(render_prompt(problem.question, system=system))]
    completion = [*tokenizer.encode(render_completion(problem.reasoning, problem.answer)), stop_id]
    trained = np.repeat([0, 1], [len(prompt), len(completion)])
    return Example(np.array(prompt + completion, np.int32), trained.astype(np.int32))


def encode_examples(
    problems: Sequence[Problem], tokenizer: Tokenizer, *, system: str, stop_id: int, max_tokens: int
) -> tuple[list[Example], int]:
    """Examples that fit max_tokens, and the number of those that do not."""
    examples = [encode_example(problem, tokenizer, system=system, stop_id=stop_id) for problem in problems]
    fitting = [example for example in examples if len(example.tokens) <= max_tokens]
    return fitting, len(examples) - len(fitting)


def encode_drills(
    lines: Iterable[tuple[str, str]], tokenizer: Tokenizer, *, rows: int, max_tokens: int
) -> list[Example]:
    """Rows of drills, a line each, BOS first; the loss counts the answers and the line's end."""
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


def packed_rows(examples: Sequence[Example], *, max_tokens: int, seed: int | None) -> Iterator[dict[str, np.ndarray]]:
    """Rows of max_tokens positions that hold whole examples, first fit.

    With a seed: without end, shuffled anew each epoch. Without one: once, in order. Each row is a dict of [L]
    arrays: tokens, positions (restart in each example), segments (1, 2, … for the examples, 0 for padding) and
    trained (1 where the loss counts).
    """
    dataset = grain.MapDataset.source(range(len(examples))).map(
        lambda i: {"tokens": examples[i].tokens, "trained": examples[i].trained}
    )
    if seed is not None:
        dataset = dataset.seed(seed).shuffle().repeat()
    packed = grain.experimental.FirstFitPackIterDataset(
        dataset.to_iter_dataset(),
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


def micro_batches(
    rows: Iterator[dict[str, np.ndarray]], *, rows_per_step: int, micro_batch_rows: int
) -> Iterator[dict[str, np.ndarray]]:
    """Stacks rows to steps and cuts them into micro-batches whose weights sum to the number of micro-batches.

    weights [B, L] = trained / (trained tokens of the whole step) * (micro-batches a step); see training.losses.
    A last step of fewer rows is filled up with rows of padding.
    """
    parts = rows_per_step // micro_batch_rows
    while True:
        step = [row for _, row in zip(range(rows_per_step), rows, strict=False)]
        if not step:
            return
        step += [{name: np.zeros_like(value) for name, value in step[0].items()}] * (rows_per_step - len(step))
        batch = {name: np.stack([row[name] for row in step]) for name in step[0]}
        trained = batch.pop("trained")
        batch["weights"] = (trained * (parts / max(1, trained.sum()))).astype(np.float32)
        for start in range(0, rows_per_step, micro_batch_rows):
            yield {name: value[start : start + micro_batch_rows] for name, value in batch.items()}
