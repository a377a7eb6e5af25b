"""showwork params: the meaning and the value of a key of params.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showwork.commands import say
from showwork.errors import UserError
from showwork.names import suggest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from showwork.config import Params


def params(
    key: Annotated[str | None, typer.Argument(help="Such as rl.beta, rl.arms.grpo, evaluate; default: all.")] = None,
) -> None:
    """Show the meaning of a key of params.yaml, its unit and usual range, and its value."""
    from showwork import config

    values = config.load()
    path = key.split(".") if key else []
    say("\n".join(describe(values, path)))


def describe(values: Params, path: list[str]) -> Iterator[str]:
    """One line per key at and below the path. Raises UserError with the nearest key if there is none."""
    from showwork.config.params import SETTINGS, Kind
    from showwork.config.params import Params as Whole

    if not path:
        for name, field in Whole.model_fields.items():
            yield f"{name}: {field.description}"
        return
    if path[0] not in Whole.model_fields:
        raise UserError(f"params.yaml has no key {path[0]}; {suggest(path[0], list(Whole.model_fields))}")
    if path[0] not in SETTINGS:
        yield from _explain(Whole, getattr(values, path[0]), Whole.model_fields[path[0]].description, path, depth=1)
        return
    kind, rest = path[0], path[1:]
    arms = {arm.name: arm for arm in values.arms.values() if arm.kind == kind}
    if not rest:
        yield f"{kind}: {Whole.model_fields[kind].description}"
        yield from (f"{kind}.{name}: {field.description}" for name, field in Kind.model_fields.items())
        yield from _fields(SETTINGS[kind], None, f"{kind}.shared")
        return
    if rest[:1] == ["arms"] and len(rest) == 1:
        yield from (f"{kind}.arms.{name}: starts from {arm.start}, prompt: {arm.prompt}" for name, arm in arms.items())
        return
    if rest[0] == "arms":
        if rest[1] not in arms:
            raise UserError(f"{kind}.arms has no {rest[1]}; {suggest(rest[1], list(arms))}")
        inside, prefix, settings = rest[2:], f"{kind}.arms.{rest[1]}", arms[rest[1]].settings
    else:  # rl.beta: the shared value, and the value of each arm
        inside, prefix, settings = rest[1:] if rest[0] == "shared" else rest, f"{kind}.shared", None
    if not inside:
        yield from _fields(SETTINGS[kind], settings, prefix)
        return
    yield from _find(SETTINGS[kind], settings, inside, prefix)
    if settings is None:
        for name, arm in arms.items():
            value: Any = arm.settings
            for part in inside:
                value = getattr(value, part, None)
            yield f"  {kind}.arms.{name}: {_show(value)}"


def _explain(
    model: type[BaseModel], value: Any, description: str | None, path: list[str], *, depth: int
) -> Iterator[str]:
    """A key outside the kinds of arms, with its value at the path."""
    from pydantic import BaseModel as Model

    prefix = ".".join(path[:depth])
    if depth < len(path):
        fields = type(value).model_fields if isinstance(value, Model) else {}
        part = path[depth]
        if part not in fields:
            raise UserError(f"{prefix} has no key {part}; {suggest(part, list(fields))}")
        yield from _explain(type(value), getattr(value, part), fields[part].description, path, depth=depth + 1)
    elif isinstance(value, Model):
        yield f"{prefix}: {description}"
        yield from _fields(type(value), value, prefix)
    else:
        yield f"{prefix}: {description}"
        yield f"  {_show(value)}"


def _find(model: type[BaseModel], value: Any, path: list[str], prefix: str) -> Iterator[str]:
    from showwork.config.reading import section_of

    name, *rest = path
    if name not in model.model_fields:
        raise UserError(f"{prefix} has no key {name}; {suggest(name, list(model.model_fields))}")
    inner, found = section_of(model, name), getattr(value, name, None)
    if rest and inner:
        yield from _find(inner, found, rest, f"{prefix}.{name}")
        return
    if rest:
        raise UserError(f"{prefix}.{name} has no key {rest[0]}")
    yield f"{prefix}.{name}: {model.model_fields[name].description}"
    if inner:
        yield from _fields(inner, found, f"{prefix}.{name}")
    elif value is not None:
        yield f"  {_show(found)}"


def _fields(model: type[BaseModel], value: Any, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        shown = "" if value is None else f" [{_show(getattr(value, name))}]"
        yield f"{prefix}.{name}:{shown} {field.description}"


def _show(value: Any) -> str:
    from pydantic import BaseModel as Model

    plain = value.model_dump() if isinstance(value, Model) else value
    text = json.dumps(plain, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
