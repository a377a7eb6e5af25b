"""Converts a CSV of basic maths to rows of GSM8K's form, which `cleaning` then checks like any other.

Its columns are question, answer, reasoning and calc_expr, the calculation of the answer: "7*8" or "7*8 = 56".
"""

import csv
import json
from pathlib import Path

from showwork import files
from showwork.errors import UserError
from showwork.reading.answers import FINAL_ANSWER, canonical_number
from showwork.reading.arithmetic import find_equations
from showwork.reading.expressions import BadExpression, evaluate

COLUMNS = ("question", "answer", "reasoning", "calc_expr")

_BOM = "\ufeff"


def to_lines(content: bytes, path: Path) -> list[bytes]:
    """The rows as JSON lines with question and answer; the calculation becomes an annotation. Skips blank rows.

    Rows are not checked here: a missing cell becomes a missing field and a false calculation a false annotation, and
    cleaning rejects both. A byte order mark, CRLF and quoted cells are accepted.
    Raises UserError, naming the path, if the content is not CSV in UTF-8, or lacks a column.
    """
    try:
        rows = files.parse_csv(content)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}: {error.reason}); save it as CSV UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: not CSV ({error})") from None
    if not rows:
        raise UserError(f"{path}: no row; it needs a header with {', '.join(COLUMNS)}, and rows")
    _check_columns(path, {_column(name) for name in rows[0] if isinstance(name, str)})
    # DictReader puts cells beyond the header under the key None, and gives None to the columns that a row lacks.
    cells = [{_column(name): cell for name, cell in row.items() if None not in (name, cell)} for row in rows]
    return [json.dumps(_to_row(row), ensure_ascii=False).encode("utf-8") + b"\n" for row in cells]


def _column(name: str) -> str:
    return name.removeprefix(_BOM).strip().strip('"').lower()


def _check_columns(path: Path, found: set[str]) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UserError(f"{path}: has no column {' and '.join(missing)}; it has {', '.join(sorted(found))}")


def _to_row(cells: dict[str, str]) -> dict[str, str]:
    row = {"question": cells["question"]} if "question" in cells else {}
    if any(name not in cells for name in COLUMNS[1:]):
        return row
    worked = _annotate(cells["reasoning"].strip(), cells["calc_expr"].strip(), cells["answer"].strip())
    return {**row, "answer": f"{worked}\n{FINAL_ANSWER} {cells['answer'].strip()}"}


def _annotate(reasoning: str, calculation: str, answer: str) -> str:
    """The reasoning with the calculation's annotation: in the equation if the text has it, else on a line at the end.

    If the calculation's result is not the answer, both are kept, "7*8=56=65", which cleaning rejects.
    """
    expression, _, result = calculation.partition("=")
    stated = [] if not result.strip() or canonical_number(result) == canonical_number(answer) else [result.strip()]
    mark = f"<<{'='.join([expression.strip(), *stated, answer])}>>"
    for equation in find_equations(reasoning):
        if _value(equation.expression) is not None and _value(equation.expression) == _value(expression):
            start = equation.start + reasoning[equation.start : equation.end].rindex("=") + 1
            gap = len(reasoning[start : equation.end]) - len(reasoning[start : equation.end].lstrip(" $"))
            return reasoning[: start + gap] + mark + reasoning[start + gap :]
    return "\n".join(filter(None, [reasoning, f"{expression.strip()} = {mark}{answer}"]))


def _value(expression: str) -> object:
    try:
        return evaluate(expression)
    except BadExpression:
        return None
