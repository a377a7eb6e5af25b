"""Tables and model text for a terminal and for Markdown."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

MISSING = "–"
SHOWN_CHARACTERS = 2000  # of a completion

Rows = Sequence[Mapping[str, str]]


def text_table(rows: Rows) -> str:
    """Columns side by side, two spaces apart: words to the left, numbers to the right."""
    names = list(rows[0])
    width = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    place = {name: str.rjust if _is_numeric(rows, name) else str.ljust for name in names}
    lines = [dict(zip(names, names, strict=True)), *rows]
    return "\n".join("  ".join(place[n](line[n], width[n]) for n in names).rstrip() for line in lines)


def markdown_table(rows: Rows) -> str:
    names = list(rows[0])
    rule = ["---:" if _is_numeric(rows, name) else "---" for name in names]
    lines = [names, rule, *([row[name].replace("|", "\\|") for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_numeric(rows: Rows, name: str) -> bool:
    return all(row[name][:1] in f"0123456789+−<{MISSING}" for row in rows)


def fenced(text: str) -> str:
    """A code block that no text can leave."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def visible(text: str) -> str:
    """A model's text, harmless in a terminal: controls and direction marks as \\u escapes, a long one cut."""
    shown = "".join(
        f"\\u{ord(c):04x}" if c not in "\n\t" and unicodedata.category(c)[0] == "C" else c
        for c in text[:SHOWN_CHARACTERS]
    )
    rest = len(text) - SHOWN_CHARACTERS
    return f"{shown}… {rest:,} more characters" if rest > 0 else shown


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """A signed difference of shares in percentage points, with a true minus sign."""
    value = round(100 * difference, 1)
    return f"{value:+.1f}".replace("-", "−") if value else "0.0"


def p_value(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"
