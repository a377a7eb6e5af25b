"""Questions asked after solved examples ("few-shot"), for a pretrained model, which can't know the format.

The text has no chat turns, as in lm-evaluation-harness's task gsm8k, since a pretrained model has seen none:

    Question: …
    Answer: <reasoning>
    …
    </reasoning>
    <answer>72</answer>

    Question: …
    Answer:

Such a model seldom ends: it goes on with questions of its own. `cut` drops them before anything is read.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from showwork.errors import UserError
from showwork.problems.splits import find_leaks, normalise
from showwork.problems.styles import render
from showwork.reading.answers import ANSWER_CLOSE
from showwork.records import Completion, Problem

STYLE = "equations"  # as a warm start is taught
QUESTION, ANSWER = "Question:", "Answer:"
# Longest example: question and reasoning. 93% of GSM8K's train rows are no longer; it is some 200 of Gemma's tokens.
MOST_CHARACTERS = 800

_END = re.compile(f"{re.escape(ANSWER_CLOSE)}|(?={QUESTION})")


def choose(train: Sequence[Problem], *, count: int, unseen: Sequence[Problem], seed: int) -> list[Problem]:
    """The examples: the `count` short train rows with the smallest hash of (seed, id), in the order of the hashes.

    None has a question of unseen, the test questions, or nearly one (splits.find_leaks), and none the question of
    another. Raises UserError if there are fewer.
    """
    leaks = find_leaks(train, unseen).details()
    ranked = sorted(train, key=lambda problem: hashlib.sha256(f"{seed}:shot:{problem.id}".encode()).digest())
    found: dict[str, Problem] = {}
    for problem in ranked:
        if problem.id not in leaks and _is_short(problem):
            found.setdefault(normalise(problem.question), problem)
    if len(found) < count:
        raise UserError(
            f"params.yaml: evaluate.few_shot takes {count} solved rows of train, and of its {len(train):,} only "
            f"{len(found):,} have at most {MOST_CHARACTERS} characters and no test question; set it lower"
        )
    return list(found.values())[:count]


def _is_short(problem: Problem) -> bool:
    """Whether it may be an example; a blank line in it would look like its end."""
    return len(problem.question) + len(problem.reasoning) <= MOST_CHARACTERS and "\n\n" not in (
        f"{problem.question}\n{problem.reasoning}"
    )


def prompt(question: str, examples: Sequence[Problem]) -> str:
    """Everything before the completion, without BOS. It ends without a space, which is part of Gemma's next token."""
    return "\n\n".join([*_solved(examples), f"{QUESTION} {question}\n{ANSWER}"])


def _solved(examples: Sequence[Problem]) -> Iterator[str]:
    for problem in examples:
        yield f"{QUESTION} {problem.question}\n{ANSWER} {render(problem, STYLE)}"


def cut(completion: Completion) -> Completion:
    """The completion up to the end of its first answer block, or up to the next question, whichever comes first.

    Whitespace around it is dropped. A completion that reaches such an end is not truncated. tokens stays the number
    that was generated.
    """
    end = _END.search(completion.text)
    text = completion.text[: end.end()] if end else completion.text
    return replace(completion, text=text.strip(), truncated=completion.truncated and end is None)


def rows_per_call(rows: int, *, columns: int, longer: int) -> int:
    """`rows` halved until so many of `longer` columns take no more memory than `rows` of `columns`; at least 1.

    Halved, so that a number that divides over the devices mostly still does.
    """
    fitting = rows
    while fitting > 1 and fitting * longer > rows * columns:
        fitting //= 2
    return fitting
