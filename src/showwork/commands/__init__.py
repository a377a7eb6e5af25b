"""The commands of `showwork`, one module each: a function of the module's name, which cli.py registers.

A command has a second to start, and JAX takes several to import: a module imports at its top what is small, and
inside its functions what is not.
"""

from rich.console import Console


def say(text: str = "") -> None:
    # No markup, no emoji: values may hold [brackets] and :colons:. No wrapping: a line stays a line in a pipe.
    Console().print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
