"""From raw lines to clean problems and named rejects: every line that is read ends as one or the other.

An annotation that is false rejects its row: a wrong sum must not be taught. GSM8K's train has none, and no rounded one.
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
# Gemma's own marks and ours: in a problem's text they would end a turn or an answer.
# U+2581 is SentencePiece's own sign for a space, and would be decoded as one.
RESERVED = (*TAGS, "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "\u2581")

_BOM = b"\xef\xbb\xbf"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class CleanResult:
    """What became of the lines of one split: len(problems) + len(rejected) = read.

    rejected: {"split", "row", "reason", "detail", "original"} each, row counted from 1.
    rows and originals: the row and the line of each problem, by id.
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
        """How many rows were rejected for each reason that occurs, in the order of REASONS."""
        found = [row["reason"] for row in self.rejected]
        return {str(reason): found.count(reason) for reason in REASONS if reason in found}


def clean_lines(lines: Iterable[bytes], *, split: str, annotation_style: str) -> CleanResult:
    """Reads the raw lines of a JSON Lines file with GSM8K's two fields, `question` and `answer`.

    A byte order mark and CRLF are accepted. Blank lines at the end count as nothing; one before is a row, rejected as
    broken_json. Other fields of a row are passed over.

    A problem's id is SPLIT-DIGEST, the digest that of its question and answer, so that the same question has the same
    id wherever it stands and in whichever file; exact repeats within the split go on with -2, -3.
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
        # Concatenated files may each bring a byte order mark.
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
    # 40 bits: two of GSM8K's 1,319 test questions would share them in one of a million such files.
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
    except ValueError as error:  # JSONDecodeError, and a whole number of thousands of digits
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
    """Moves problems (id -> what they leak from, in words) to the rejects, in the order of their rows."""
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
    """Ids of the problems whose own solution the scorer would not accept; [] is what the clean stage demands."""
    return [problem.id for problem in problems if not _is_accepted(problem)]


def _is_accepted(problem: Problem) -> bool:
    completion = render_completion(problem.reasoning, problem.answer)
    return matches_format(completion) and extract_answer(completion) == problem.answer
