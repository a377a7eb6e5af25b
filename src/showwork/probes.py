"""The monologue stream: what a model thought at each token that it wrote, and what gives a wrong answer away.

Three detectors look at one completion. Their rules on text need no model and no JAX; those on a Trace, which
evaluation.probing takes, look inside the model. No detector sees the gold answer.

    premise_echo    the answer is a number of the question, and not what any equation came to
    contradiction   what was written disagrees with itself, or a late layer disagrees with the answer that was written
    knowledge_gap   the model was unsure of a result as it wrote it
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from showwork.reading.answers import ANSWER_CLOSE, ANSWER_OPEN, canonical_number, extract_answer
from showwork.reading.arithmetic import FoundEquation, find_equations
from showwork.reading.dual import HEADINGS
from showwork.reading.expressions import NUMBER
from showwork.reading.quantities import operands
from showwork.records import Problem

_SANITY_CHECK = f"\n{HEADINGS[-1]}"
_NUMBER = re.compile(NUMBER)


@dataclass(frozen=True)
class Trace:
    """One completion as its model saw it: an entry for each token, the stop token left out. Units: nats.

    tokens     pieces of text that join to the completion
    entropy    of the distribution that the token was drawn from
    logp       log-probability of the token
    settled    the first layer from which on every layer's top choice is the last layer's; 0 is the embedding
    objection  at a late layer: logit of the strongest other digit, minus that of the token
    """

    tokens: tuple[str, ...]
    entropy: tuple[float, ...]
    logp: tuple[float, ...]
    settled: tuple[int, ...]
    objection: tuple[float, ...]


# ------------------------------------------------------------------------------------------------ on text alone


def detect_text(completion: str, problem: Problem) -> dict[str, bool]:
    """The detectors that need no model: premise_echo and contradiction. Linear in the completion."""
    return {"premise_echo": is_premise_echo(completion, problem.question), "contradiction": contradicts(completion)}


def is_premise_echo(completion: str, question: str) -> bool:
    """Whether the answer is a number copied from the question.

    It stands in the question in figures, and no equation before the sanity check comes to it. Those of the sanity
    check don't count: an inverse operation comes to a number of the question by its nature.
    """
    answer = extract_answer(completion)
    return answer is not None and answer in operands(question) and answer not in results(completion)


def contradicts(completion: str) -> bool:
    """Whether the text disagrees with itself.

    An equation before the answer is false, or the last result before the sanity check is not the answer. Without an
    equation, or without an answer, there is nothing to disagree with.
    """
    if not all(equation.holds for equation in find_equations(_before_answer(completion))):
        return True
    found, answer = results(completion), extract_answer(completion)
    return bool(found) and answer is not None and found[-1] != answer


def results(completion: str) -> list[str]:
    """The numbers that the equations before the sanity check come to, in order, as canonical decimals."""
    working = _before_answer(completion).partition(_SANITY_CHECK)[0]
    values = (canonical_number(equation.value) for equation in find_equations(working))
    return [value for value in values if value is not None]


def _before_answer(completion: str) -> str:
    return completion.partition(ANSWER_OPEN)[0]


# ------------------------------------------------------------------------------------------- with what it thought


def detect(
    completion: str, problem: Problem, trace: Trace, *, objection_nats: float, gap_nats: float
) -> dict[str, bool]:
    """All three detectors. The late layer's objections count as a contradiction too."""
    fired = detect_text(completion, problem)
    fired["contradiction"] |= is_objected_to(completion, trace, nats=objection_nats)
    return {**fired, "knowledge_gap": is_knowledge_gap(completion, trace, nats=gap_nats)}


def is_objected_to(completion: str, trace: Trace, *, nats: float) -> bool:
    """Whether a late layer prefers another digit to a token of the answer's number, by more than `nats`."""
    return any(trace.objection[i] > nats for i in tokens_in(trace.tokens, answer_spans(completion)))


def is_knowledge_gap(completion: str, trace: Trace, *, nats: float) -> bool:
    """Whether the entropy at one of the tokens of the results is above `nats`, a high percentile of the run's own."""
    return any(trace.entropy[i] > nats for i in result_tokens(completion, trace))


def result_tokens(completion: str, trace: Trace) -> list[int]:
    """Indices of the tokens that write results; see result_spans."""
    return tokens_in(trace.tokens, result_spans(completion))


def result_spans(completion: str) -> list[tuple[int, int]]:
    """Where the numbers stand that were worked out, as [start, end) characters: the value of each equation, CALC lines
    and sanity check included, and the answer."""
    text = _before_answer(completion)
    spans = [_value_span(text, equation) for equation in find_equations(text) if canonical_number(equation.value)]
    return [*_numbers_in(completion, spans), *answer_spans(completion)]


def answer_spans(completion: str) -> list[tuple[int, int]]:
    """Where the answer's number stands, as [start, end) characters; empty where there is no answer."""
    if extract_answer(completion) is None:
        return []
    start = completion.find(ANSWER_OPEN) + len(ANSWER_OPEN)
    return _numbers_in(completion, [(start, completion.find(ANSWER_CLOSE))])


def tokens_in(tokens: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the tokens that share a character with one of the spans of the joined text."""
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token))
    is_inside = bytearray(starts[-1])
    for start, end in spans:
        is_inside[start:end] = b"\1" * (end - start)
    return [i for i, (start, end) in enumerate(pairwise(starts)) if any(is_inside[start:end])]


def _value_span(text: str, equation: FoundEquation) -> tuple[int, int]:
    return text.rfind("=", equation.start, equation.end) + 1, equation.end


def _numbers_in(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [match.span() for start, end in spans for match in _NUMBER.finditer(text, start, end)]
