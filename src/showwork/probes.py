"""Detectors of wrong answers, on a completion's text and on the model's internals at each token.

Three detectors look at one completion. Their rules on text need no model and no JAX; those on a Trace, which
evaluation.probing takes, look inside the model. No detector sees the gold answer.

    premise_echo    the answer is a number of the question, and not the result of any equation
    contradiction   the text contradicts itself, or a late layer prefers another answer than the one written
    knowledge_gap   the model was uncertain of a result as it wrote it
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from showwork.reading.answers import ANSWER_CLOSE, ANSWER_OPEN, canonical_number
from showwork.reading.arithmetic import FoundEquation
from showwork.reading.completion import Reading
from showwork.reading.expressions import NUMBER
from showwork.reading.quantities import operands
from showwork.records import Problem

_NUMBER = re.compile(NUMBER)


@dataclass(frozen=True)
class Trace:
    """Measurements of the model at each token of one completion, without the stop token. Units: nats.

    tokens     pieces of text that join to the completion
    entropy    of the distribution that the token was drawn from
    logp       log-probability of the token
    settled    first layer from which every layer's top token is the last layer's; 0 is the embedding
    objection  at a late layer: logit of the strongest other digit, minus that of the token
    """

    tokens: tuple[str, ...]
    entropy: tuple[float, ...]
    logp: tuple[float, ...]
    settled: tuple[int, ...]
    objection: tuple[float, ...]


# ------------------------------------------------------------------------------------------------ on text alone


def detect_text(reading: Reading, problem: Problem) -> dict[str, bool]:
    """The detectors that need no model: premise_echo and contradiction. Linear in the completion."""
    return {"premise_echo": is_premise_echo(reading, problem.question), "contradiction": contradicts(reading)}


def is_premise_echo(reading: Reading, question: str) -> bool:
    """Whether the answer is a number copied from the question.

    The question has it in figures, and no equation before the sanity check results in it. Those of the sanity check
    don't count: an inverse operation naturally results in a number of the question.
    """
    answer = reading.answer
    return answer is not None and answer in operands(question) and answer not in reading.results


def contradicts(reading: Reading) -> bool:
    """Whether the text contradicts itself.

    An equation before the answer is false, or the last result before the sanity check is not the answer. Without an
    equation or an answer there is no contradiction.
    """
    if not all(equation.holds for equation in reading.equations):
        return True
    return bool(reading.results) and reading.answer is not None and reading.results[-1] != reading.answer


# ------------------------------------------------------------------------------------------------ with a trace


def detect(
    reading: Reading, problem: Problem, trace: Trace, *, objection_nats: float, gap_nats: float
) -> dict[str, bool]:
    """All three detectors. The late layer's objections count as a contradiction too."""
    fired = detect_text(reading, problem)
    fired["contradiction"] |= is_objected_to(reading, trace, nats=objection_nats)
    return {**fired, "knowledge_gap": is_knowledge_gap(reading, trace, nats=gap_nats)}


def is_objected_to(reading: Reading, trace: Trace, *, nats: float) -> bool:
    """Whether a late layer prefers another digit to a token of the answer's number, by more than `nats`."""
    return any(trace.objection[i] > nats for i in tokens_in(trace.tokens, answer_spans(reading)))


def is_knowledge_gap(reading: Reading, trace: Trace, *, nats: float) -> bool:
    """Whether the entropy at a token of the results is above `nats`, a high percentile of the run's own."""
    return any(trace.entropy[i] > nats for i in result_tokens(reading, trace.tokens))


def result_tokens(reading: Reading, tokens: Sequence[str]) -> list[int]:
    """Indices of the tokens that write results; see result_spans."""
    return tokens_in(tokens, result_spans(reading))


def result_spans(reading: Reading) -> list[tuple[int, int]]:
    """[start, end) characters of the computed numbers: the value of each equation, CALC lines and sanity check
    included, and the answer."""
    equations = (equation for equation in reading.equations if canonical_number(equation.value))
    spans = [_value_span(reading.text, equation) for equation in equations]
    return [*_numbers_in(reading.text, spans), *answer_spans(reading)]


def answer_spans(reading: Reading) -> list[tuple[int, int]]:
    """[start, end) characters of the answer's number; empty without an answer."""
    if reading.answer is None:
        return []
    start = reading.text.find(ANSWER_OPEN) + len(ANSWER_OPEN)
    return _numbers_in(reading.text, [(start, reading.text.find(ANSWER_CLOSE))])


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
