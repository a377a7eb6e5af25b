"""Presets of params.yaml, for each notebook that the project reproduces and for small machines.

A preset's file holds its differences from tiny.yaml, which is complete; `over: NAME` at its top names another preset
in between. Its header, in comments, describes it: a sentence in the first line, then the fields of About. A file whose
name starts with an underscore is only a base for others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showwork.arms import merges
from showwork.errors import UserError
from showwork.names import suggest

if TYPE_CHECKING:  # it takes half a second to import, too long for the start of a command
    from showwork.config import Params

FOLDER = Path(__file__).parent
WHOLE_FILE = "tiny"


@dataclass(frozen=True)
class About:
    """The header of a preset; "" for a missing field."""

    summary: str
    notebook: str = ""
    model: str = ""
    hardware: str = ""
    cost: str = ""
    differs: str = ""

    def items(self) -> list[tuple[str, str]]:
        """The fields that are present, without the summary."""
        return [(name, value) for name in _FIELDS if (value := getattr(self, name))]


_FIELDS = tuple(field.name for field in fields(About) if field.name != "summary")
_FIELD = re.compile(rf"# ({'|'.join(_FIELDS)}): (.+)")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("[!_]*.yaml"))


def about(name: str) -> About:
    """The preset's header. Raises UserError with the nearest name if there is no such preset."""
    _check(name)
    head = _read(name).split("\n")
    found = {"summary": head[0].removeprefix("# ").strip()}
    key = ""
    for line in head[1:]:
        if field := _FIELD.fullmatch(line):
            key = field[1]
            found[key] = field[2].strip()
        elif key and line.startswith("#   "):
            found[key] += f" {line[1:].strip()}"
        else:
            key = ""
    return About(**found)


def load(name: str, changes: Mapping[str, Any] | None = None) -> "Params":
    """The preset as params, with changes merged in as its own file is merged into tiny.yaml.

    Raises UserError if there is no such preset, or if it is not valid with the changes.
    """
    from ruamel.yaml import YAML

    from showwork import config

    values = _laid_over(name, YAML(typ="safe", pure=True))
    return config.check(overlay(values, changes or {}), f"preset {name}")


def values(name: str) -> Any:
    """All values of the preset, as a mapping that keeps their spelling and comments."""
    from showwork.presets import comments

    return _laid_over(name, comments.yaml())


def text(name: str) -> str:
    """The complete params.yaml of the preset, with the comments of tiny.yaml."""
    from showwork.presets import comments

    _, _, whole = _read(WHOLE_FILE).partition("\n")
    target = comments.yaml().load(whole)
    comments.merge(target, values(name))
    return whole if name == WHOLE_FILE else comments.dump(target)


def overlay(values: Any, layer: Mapping[str, Any]) -> Any:
    """Merges layer into values like arms.overlay, but in place, so that comments stay. Returns values."""
    for key, value in layer.items():
        old = values.get(key)
        if merges(old, value, key=key):
            overlay(old, value)
        else:
            values[key] = value
    return values


def _laid_over(name: str, yaml: Any) -> Any:
    _check(name)
    layers = []
    while name != WHOLE_FILE:
        layers.append(yaml.load(_read(name)))
        name = layers[-1].pop("over", WHOLE_FILE)
    whole = yaml.load(_read(WHOLE_FILE))
    for layer in reversed(layers):
        overlay(whole, layer)
    return whole


def _check(name: str) -> None:
    known = names()
    if name not in known:
        raise UserError(f"preset {name} is unknown; {suggest(name, known)}")


def _read(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text("utf-8")
