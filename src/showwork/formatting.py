"""Numbers, tables and model text as text, for a terminal and for Markdown.

A completion is untrusted: `visible_*` makes it harmless, `fenced*`, `code` and `cell` keep it inside its place.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

MISSING = "–"
TERMINAL_LIMIT = 2000  # characters of a model's text in the output of a command
REPORT_LIMIT = 4000  # and in results/report.md

Rows = Sequence[Mapping[str, str]]

# --------------------------------------------------------------------------------------------------------- numbers


def percent(share: float | None) -> str:
    return MISSING if share is None or _is_nan(share) else f"{100 * share:.1f}%"


def share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def points(difference: float) -> str:
    """A signed difference of shares in percentage points, with a true minus sign."""
    value = round(100 * difference, 1)
    return f"{value:+.1f}".replace("-", "−") if value else "0.0"


def points_interval(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def count(number: float | None) -> str:
    return MISSING if number is None or _is_nan(number) else f"{int(number):,}"


def _is_nan(number: float) -> bool:
    return number != number


# ---------------------------------------------------------------------------------------------------------- tables


def text_table(rows: Rows) -> str:
    """Columns side by side, two spaces apart: words to the left, numbers to the right."""
    names = list(rows[0])
    width = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    place = {name: str.rjust if _is_numeric(rows, name) else str.ljust for name in names}
    lines = [dict(zip(names, names, strict=True)), *rows]
    return "\n".join("  ".join(place[n](line[n], width[n]) for n in names).rstrip() for line in lines)


def markdown_table(rows: Rows) -> str:
    """The same rows in Markdown, for cells of our own words: only "|" is escaped."""
    names = list(rows[0])
    rule = ["---:" if _is_numeric(rows, name) else "---" for name in names]
    return _piped([names, rule, *([row[name].replace("|", "\\|") for name in names] for row in rows)])


def report_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of any cells, all marks escaped; the first column left, the others right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return _piped([[*map(cell, columns)], rule, *([cell(row[column]) for column in columns] for row in rows)])


def _piped(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_numeric(rows: Rows, name: str) -> bool:
    return all(row[name][:1] in f"0123456789+−<{MISSING}" for row in rows)


# ------------------------------------------------------------------------------------------------------ model text


def visible_in_terminal(text: str) -> str:
    """Control, format, surrogate and unassigned characters as \\u escapes, cut after TERMINAL_LIMIT characters."""
    shown = "".join(
        f"\\u{ord(c):04x}" if c not in "\n\t" and unicodedata.category(c)[0] == "C" else c
        for c in text[:TERMINAL_LIMIT]
    )
    rest = len(text) - TERMINAL_LIMIT
    return f"{shown}… {rest:,} more characters" if rest > 0 else shown


def visible_in_report(text: str, *, limit: int = REPORT_LIMIT) -> str:
    """Control, format and surrogate characters and line separators as \\u escapes, cut after `limit` characters.

    Five empty lines or more become one that counts them: an untrained model can write nothing else.
    """
    shown = "".join(
        f"\\u{ord(c):04x}" if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text[:limit]
    )
    shown = re.sub(r"(?:\n[ \t]*){6,}", lambda blank: f"\n… {blank[0].count(chr(10)) - 1} empty lines\n", shown)
    return shown + (f"\n… {len(text) - limit:,} more characters" if len(text) > limit else "")


def fenced(text: str) -> str:
    """A code block of the text as it is, which nothing in the text can close."""
    return _fenced(text, "text", against=text)


def fenced_in_report(text: str, language: str = "text", *, limit: int = REPORT_LIMIT) -> str:
    """A code block of the text as `visible_in_report` has it."""
    return _fenced(visible_in_report(text, limit=limit), language, against=text)


def _fenced(text: str, language: str, *, against: str) -> str:
    ticks = "`" * max(3, _backticks(against) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def code(text: str) -> str:
    """An inline code span of one line."""
    text = _one_line(text)
    ticks = "`" * (_backticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def cell(text: object) -> str:
    """Text in one table cell: Markdown's and HTML's marks escaped."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~$])", r"\\\1", _one_line(str(text)))


def _one_line(text: str) -> str:
    return " ".join(visible_in_report(text).split())


def _backticks(text: str) -> int:
    """Length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
