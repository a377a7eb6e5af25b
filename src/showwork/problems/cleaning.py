"""Cleaning: turns raw lines into problems and rejects with a reason; every line read becomes one or the other.

A false annotation rejects its row, so that no wrong arithmetic is taught. GSM8K's train split has no false and no
rounded annotation.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from showwork.reading.annotations import parse_solution, render
from showwork.reading.answers import (
    FINAL_ANSWER,
    TAGS,
    Reason,
    RowError,
    extract_answer,
    gold_answer,
    matches_format,
    render_completion,
)
from showwork.records import Problem

__all__ = ["REASONS", "CleanResult", "Reason", "RowError", "clean_lines", "gold_rejects", "reject_leaks"]

REASONS = tuple(Reason)
MAX_FIELD_LENGTH = 20_000  # characters
FIELDS = ("question", "answer")
# Gemma's special tokens and our tags: in a problem's text they would end a turn or an answer.
# U+2581 is SentencePiece's space character and would be decoded as a space.
RESERVED = (*TAGS, "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "\u2581")

_BOM = b"\xef\xbb\xbf"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class CleanResult:
    """The cleaned lines of one split: len(problems) + len(rejected) = read.

    rejected: dicts with "split", "row" (counted from 1), "reason", "detail" and "original".
    rows, originals: problem id -> row number, raw line.
    """

    problems: list[Problem]
    rejected: list[dict[str, Any]]
    read: int
    rows: Mapping[str, int]
    originals: Mapping[str, str]

    @property
    def equations(self) -> int:
        return sum(len(problem.equations) for problem in self.problems)

    @property
    def equations_rounded(self) -> int:
        return sum(equation.rounded for problem in self.problems for equation in problem.equations)

    def reasons(self) -> dict[str, int]:
        """Number of rejected rows by reason, for the reasons that occur, in the order of REASONS."""
        found = [row["reason"] for row in self.rejected]
        return {str(reason): found.count(reason) for reason in REASONS if reason in found}


def clean_lines(lines: Iterable[bytes], *, split: str, annotation_style: str) -> CleanResult:
    """Reads the raw lines of a JSON Lines file with GSM8K's two fields, `question` and `answer`.

    A byte order mark and CRLF are accepted. Blank lines at the end are ignored; any other blank line is rejected as
    broken_json. Other fields of a row are ignored.

    A problem's id is SPLIT-DIGEST, with a digest of its question and answer, so that the same question has the same
    id in any row of any file; exact repeats within the split get the suffix -2, -3, ...
    """
    problems: list[Problem] = []
    rejected: list[dict[str, Any]] = []
    rows: dict[str, int] = {}
    originals: dict[str, str] = {}
    seen: Counter[str] = Counter()
    blanks: list[int] = []

    def reject(row: int, error: RowError, original: str) -> None:
        rejected.append(
            {"split": split, "row": row, "reason": str(error.reason), "detail": error.detail, "original": original}
        )

    for row, raw in enumerate(lines, start=1):
        # Each of several concatenated files may start with a byte order mark.
        line = raw.removeprefix(_BOM).rstrip(b"\r\n")
        if not line.strip():
            blanks.append(row)
            continue
        for blank in blanks:
            reject(blank, RowError(Reason.BROKEN_JSON, "a blank line"), "")
        blanks = []
        try:
            problem = _read_problem(line, split=split, annotation_style=annotation_style)
        except RowError as error:
            reject(row, error, line.decode("utf-8", "backslashreplace"))
        else:
            seen[problem.id] += 1
            if (times := seen[problem.id]) > 1:
                problem = replace(problem, id=f"{problem.id}-{times}")
            problems.append(problem)
            rows[problem.id] = row
            originals[problem.id] = line.decode("utf-8")
    return CleanResult(problems, rejected, len(problems) + len(rejected), rows, originals)


def _read_problem(line: bytes, *, split: str, annotation_style: str) -> Problem:
    fields = _read_fields(line)
    answer = gold_answer(fields["answer"])
    worked, _, _ = fields["answer"].partition(FINAL_ANSWER)
    solution = parse_solution(worked.strip())
    reasoning = render(solution, annotation_style).strip()
    if not reasoning:
        raise RowError(Reason.EMPTY_FIELD, f"answer: nothing before {FINAL_ANSWER}")
    # 40 bits: a collision among GSM8K's 1,319 test questions has a chance of one in a million.
    digest = hashlib.sha256(f"{fields['question']}\0{answer}".encode()).hexdigest()[:10]
    return Problem(f"{split}-{digest}", fields["question"], reasoning, answer, solution.equations)


def _read_fields(line: bytes) -> dict[str, str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(Reason.NOT_UTF8, f"byte {error.start}: {error.reason}") from None
    try:
        row = json.loads(text)
    except RecursionError:
        raise RowError(Reason.BROKEN_JSON, "nested too deep") from None
    except ValueError as error:  # JSONDecodeError, or an integer of thousands of digits
        raise RowError(Reason.BROKEN_JSON, str(error)[:200]) from None
    if not isinstance(row, dict):
        raise RowError(Reason.NOT_AN_OBJECT, f"a {type(row).__name__}; a row is an object with {' and '.join(FIELDS)}")
    return {name: _read_field(row, name) for name in FIELDS}


def _read_field(row: dict[str, Any], name: str) -> str:
    if name not in row:
        raise RowError(Reason.MISSING_FIELD, f"{name}; the row has {', '.join(row) or 'no field'}"[:200])
    value = row[name]
    if not isinstance(value, str):
        raise RowError(Reason.NOT_TEXT, f"{name} is a {type(value).__name__}")
    if len(value) > MAX_FIELD_LENGTH:
        raise RowError(Reason.TOO_LONG, f"{name} has {len(value)} characters; the limit is {MAX_FIELD_LENGTH}")
    value = value.replace("\r\n", "\n").replace("\r", "\n").strip(" \t\n")
    if not value or value.isspace():
        raise RowError(Reason.EMPTY_FIELD, name)
    if control := _CONTROL.search(value):
        raise RowError(Reason.CONTROL_CHARACTER, f"{name}: U+{ord(control[0]):04X} at character {control.start()}")
    if ("<" in value or "\u2581" in value) and (found := [mark for mark in RESERVED if mark in value]):
        raise RowError(Reason.RESERVED_TAG, f"{name} has {' and '.join(found)}")
    return value


def reject_leaks(result: CleanResult, leaks: Mapping[str, str], *, split: str) -> CleanResult:
    """Moves leaked problems to the rejects, in row order. leaks: problem id -> description of the leak."""
    moved = [
        {
            "split": split,
            "row": result.rows[problem.id],
            "reason": str(Reason.LEAK),
            "detail": leaks[problem.id],
            "original": result.originals[problem.id],
        }
        for problem in result.problems
        if problem.id in leaks
    ]
    return replace(
        result,
        problems=[problem for problem in result.problems if problem.id not in leaks],
        rejected=sorted(result.rejected + moved, key=lambda row: row["row"]),
    )


def gold_rejects(problems: Sequence[Problem]) -> list[str]:
    """Ids of the problems whose own solution the scorer rejects; the clean stage fails if there are any."""
    return [problem.id for problem in problems if not _is_accepted(problem)]


def _is_accepted(problem: Problem) -> bool:
    completion = render_completion(problem.reasoning, problem.answer)
    return matches_format(completion) and extract_answer(completion) == problem.answer
