"""Reads and atomically writes JSON, JSON Lines and CSV.

Every writer uses a temporary file beside the target and a rename, so that no reader and no killed run
sees half a file. Numbers are written with `repr`, so that equal values give equal bytes.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from showwork.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes atomically; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises UserError if it is missing or is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` makes it") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yields one value per line of a file that showwork wrote. Raises UserError if it is missing or broken."""
    try:
        lines = path.open("r", encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` makes it") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}: line {number} is not JSON ({error})") from None


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def csv_line(values: Iterable[Any]) -> str:
    """One CSV line; floats at 6 significant digits, None as an empty cell."""
    buffer = io.StringIO()
    cells = (f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in values)
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    body = "".join(csv_line(row.get(column) for column in columns) for row in rows)
    write_text(path, csv_line(columns) + body)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as text; the caller converts its columns. Raises UserError if the file is missing."""
    try:
        return parse_csv(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` makes it") from None


def parse_csv(content: bytes) -> list[dict[str, str]]:
    """Rows as text. Raises UnicodeDecodeError if it is not UTF-8, csv.Error if it is not CSV."""
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))
