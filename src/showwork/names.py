"""Suggestions for misspelt names."""

import difflib
from collections.abc import Sequence


def suggest(name: str, known: Sequence[str], *, otherwise: str | None = None) -> str:
    """A question with the nearest known name; without one `otherwise`, or all known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise or f"known: {', '.join(known) or 'none'}"
