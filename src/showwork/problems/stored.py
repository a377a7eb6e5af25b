"""Reads the problems that the clean stage wrote."""

from pathlib import Path

from showwork.files import read_jsonl
from showwork.records import Problem


def read_problems(path: Path) -> list[Problem]:
    """The problems of a JSON Lines file. Raises UserError if it is missing or a line is not JSON."""
    return [Problem.from_json(row) for row in read_jsonl(path)]
