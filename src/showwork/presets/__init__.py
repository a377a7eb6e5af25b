"""The presets: params.yaml for each notebook that the project reproduces, and for the machines at hand.

A preset's file holds what differs from tiny.yaml, which is whole; `over: NAME` at its top names another that lies
between. Its head, in comments, says what it is: the first line in a sentence, then the fields of About. A file whose
name starts with an underscore is only for others to lie over.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showwork.errors import UserError

if TYPE_CHECKING:  # it takes half a second, which no command has to spare at its start
    from showwork.config import Params

FOLDER = Path(__file__).parent
WHOLE_FILE = "tiny"
# Their keys are names, or decided by another key: they come as one, or not at all.
REPLACED_WHOLE = frozenset(("data", "rewards", "styles", "drills", "adapter"))


@dataclass(frozen=True)
class About:
    """What the head of a preset says; "" for a field that it has not. cost is of the arm that `run` makes."""

    summary: str
    notebook: str = ""
    model: str = ""
    hardware: str = ""
    cost: str = ""
    differs: str = ""
    run: str = ""

    def items(self) -> list[tuple[str, str]]:
        """The fields that it has, the summary left out."""
        return [(name, value) for name in _FIELDS if (value := getattr(self, name))]


_FIELDS = tuple(field.name for field in fields(About) if field.name != "summary")
_FIELD = re.compile(rf"# ({'|'.join(_FIELDS)}): (.+)")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("[!_]*.yaml"))


def about(name: str) -> About:
    """Raises UserError with the nearest name where there is no such preset."""
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
    """The preset as params, with these changes laid over it as its own file is laid over tiny.yaml.

    Raises UserError where there is no such preset, or where it is not valid with the changes.
    """
    from ruamel.yaml import YAML

    from showwork import config

    values = _laid_over(name, YAML(typ="safe", pure=True))
    return config.check(overlay(values, changes or {}), f"preset {name}")


def values(name: str) -> Any:
    """The preset's values, whole, as a mapping that keeps their spelling and comments."""
    from showwork.presets import comments

    return _laid_over(name, comments.yaml())


def text(name: str) -> str:
    """The whole params.yaml that the preset stands for, with the comments of tiny.yaml."""
    from showwork.presets import comments

    _, _, whole = _read(WHOLE_FILE).partition("\n")
    target = comments.yaml().load(whole)
    comments.merge(target, values(name))
    return whole if name == WHOLE_FILE else comments.dump(target)


def overlay(values: Any, layer: Mapping[str, Any]) -> Any:
    """Lays a layer over values, in place: mappings key by key, but those of REPLACED_WHOLE as one. Returns values."""
    for key, value in layer.items():
        old = values.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key not in REPLACED_WHOLE:
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
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"preset {name} is unknown; {hint}")


def _read(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text("utf-8")
