"""The trace browser's data: every question with every arm's completion, compressed to fit in the page.

The texts are one JSON value, deflated, in base64; uncompressed, 9,000 completions with an entropy per token are 20 MB.
"""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from showwork.errors import UserError
from showwork.evaluation.predictions import Prediction, Probe
from showwork.evaluation.scoring import is_faithful
from showwork.records import Problem

BLOCK_LIMIT = 4_200_000  # characters of base64; the rest of a page of 7 arms is 0.5 MB, and the limit is 5 MB
# (characters of a completion, detail of each token: 2 entropy and layer, 1 entropy, 0 nothing). The first pair with
# which the block fits is used. Whole texts matter more to a reader than their shading.
SIZES = ((4000, 2), (4000, 1), (4000, 0), (1000, 0), (500, 0), (250, 0))
NATS_A_LEVEL = 0.05  # entropy is rounded to this in the page

# Marks of a completion, besides its detectors → their text on the page.
MARKS = {
    "truncated": "truncated",
    "format": "format broken",
    "unformed": "right number, wrong form",
    "unfaithful": "right answer, wrong work",
    "unshown": "right answer, no work",
    "false": "a false equation",
}


def block(problems: Sequence[Problem], predictions: Mapping[str, Sequence[Prediction]]) -> tuple[str, dict[str, int]]:
    """Base64 of the deflated JSON {"questions": [...], "arms": {arm: [...]}}, both in the questions' order.

    Also what was left out to make it fit: {"limit": characters of a completion that are shown, "detail": see SIZES,
    "cut": completions that are longer, "unaligned": completions whose tokens don't join to their text, which are
    shown unshaded}.
    Raises UserError if an arm answered other questions than these.
    """
    ids = [problem.id for problem in problems]
    for arm, rows in predictions.items():
        if [row.id for row in rows] != ids:
            raise UserError(
                f"results/predictions/{arm}.jsonl has other questions than data/clean/test.jsonl; `dvc repro` evaluates"
                " the arm again"
            )
    questions = [
        {
            "id": problem.id, "text": problem.question, "gold": problem.answer, "solution": problem.reasoning,
            "steps": problem.steps, "operations": problem.operations.replace("none", ""),
        }
        for problem in problems
    ]  # fmt: skip
    packed = ""
    for limit, detail in SIZES:
        arms = {arm: [completion(row, limit, detail=detail) for row in rows] for arm, rows in predictions.items()}
        packed = _pack({"questions": questions, "arms": arms})
        if len(packed) <= BLOCK_LIMIT:
            break
    rows = [row for rows in predictions.values() for row in rows]
    left_out = {
        "limit": limit,
        "detail": detail,
        "cut": sum(len(row.completion) > limit for row in rows),
        "unaligned": sum(row.probe is not None and not _is_aligned(row, row.probe) for row in rows),
    }
    return packed, left_out


def completion(prediction: Prediction, limit: int, *, detail: int = 2) -> dict[str, Any]:
    """One completion as the page reads it; positions and lengths are in code points.

    text, more (characters cut off), answer, ok, tokens, marks (names, detectors that fired included), equations
    ([start, end, 1 if it holds]), samples ([answer, how many, 1 if right]); with probes also lengths of the tokens,
    levels (entropy in NATS_A_LEVEL) and settled (layer), as far as detail allows (see SIZES).
    """
    text = prediction.completion
    drawn = Counter((sample.answer, int(sample.correct)) for sample in prediction.samples)
    shown: dict[str, Any] = {
        "text": text[:limit],
        "answer": prediction.answer,
        "ok": int(prediction.correct),
        "tokens": prediction.tokens,
        "marks": marks(prediction),
        "equations": [[e.start, e.end, int(e.holds)] for e in prediction.reading.equations if e.end <= limit],
        "samples": [[answer, times, right] for (answer, right), times in drawn.most_common()],
    }
    if len(text) > limit:
        shown["more"] = len(text) - limit
    probe = prediction.probe
    if detail and probe is not None and _is_aligned(prediction, probe):
        kept = _tokens_within(probe.tokens, limit)
        shown["lengths"] = [len(token) for token in probe.tokens[:kept]]
        shown["levels"] = [round(nats / NATS_A_LEVEL) for nats in probe.entropy[:kept]]
        if detail == 2:
            shown["settled"] = probe.settled[:kept]
    return shown


def marks(prediction: Prediction) -> list[str]:
    """Which of MARKS hold, then the detectors that fired."""
    right, equations = prediction.correct, prediction.equations
    holds = {
        "truncated": prediction.truncated,
        "format": not prediction.reading.is_formatted,
        "unformed": not right and prediction.is_flexibly_correct,
        "unfaithful": right and bool(equations) and not is_faithful(prediction),
        "unshown": right and not equations,
        "false": not all(equation.holds for equation in equations),
    }
    fired = prediction.probe.detectors if prediction.probe else {}
    return [name for name, is_so in (holds | dict(fired)).items() if is_so]


def _is_aligned(prediction: Prediction, probe: Probe) -> bool:
    return "".join(probe.tokens) == prediction.completion


def _tokens_within(tokens: Sequence[str], limit: int) -> int:
    """How many of the first tokens lie in the first `limit` characters; all, where the text is no longer."""
    end = 0
    for kept, token in enumerate(tokens):
        end += len(token)
        if end > limit:
            return kept
    return len(tokens)


def _pack(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii")
