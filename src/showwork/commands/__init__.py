"""The commands of `showwork`, one module each, whose function of the same name cli.py registers.

A command should start within a second, and JAX takes several to import: slow imports are inside the functions.
"""

from rich.console import Console


def say(text: str = "") -> None:
    # No markup, no emoji: values may hold [brackets] and :colons:. No wrapping: a line stays a line in a pipe.
    Console().print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
