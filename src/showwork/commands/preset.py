"""showwork preset: rewrites params.yaml to a preset, keeping its comments."""

from pathlib import Path
from typing import Annotated, Any

import typer

from showwork import presets
from showwork.commands import say
from showwork.errors import UserError


def preset(
    name: Annotated[str | None, typer.Argument(help="One of the presets that --list shows.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the presets and change nothing.")] = False,
) -> None:
    """Rewrite params.yaml to a preset, keeping its comments."""
    if listing or name is None:
        say("\n\n".join(map(describe, presets.names())))
        return
    changes = apply_preset(name)
    for key, old, new in changes:
        say(f"{key}: {old} → {new}")
    if changes:
        say(f"params.yaml is preset {name} now; `dvc repro` runs what that affects.")
    else:
        say(f"params.yaml was preset {name} already; `dvc repro` runs what is not up to date.")


def describe(name: str) -> str:
    """The preset's entry in --list: its summary, and the fields of its header."""
    about = presets.about(name)
    return "\n".join([f"{name}: {about.summary}", *(f"  {field:8}  {value}" for field, value in about.items())])


def apply_preset(name: str) -> list[tuple[str, str, str]]:
    """Sets the values of params.yaml to the preset's; returns (key, old, new) of each change.

    The file keeps its comments, a new key brings the preset's. It is checked before it is written, and written
    atomically. A missing params.yaml is made from the default's text. Raises UserError.
    """
    presets.about(name)  # reports an unknown name first
    from ruamel.yaml import YAML

    from showwork import config, files
    from showwork.presets import comments

    wanted = presets.values(name)
    if config.PARAMS.exists():
        before = current = _load_params(config.PARAMS.read_text("utf-8"))
    elif Path("dvc.yaml").exists():
        before, current = {}, _load_params(presets.text(presets.WHOLE_FILE))
    else:
        raise UserError("no params.yaml and no dvc.yaml here; run from the project's root")
    changes = [(key, _show(old), _show(new)) for key, old, new in comments.differences(before, wanted)]
    if changes:
        comments.merge(current, wanted)
        text = comments.dump(current)
        config.check(YAML(typ="safe", pure=True).load(text), f"preset {name}")
        files.write_text(config.PARAMS, text)
    return changes


def _load_params(text: str) -> Any:
    from ruamel.yaml.error import YAMLError

    from showwork.presets import comments

    try:
        values = comments.yaml().load(text)
    except YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        raise UserError(
            f"params.yaml: not YAML{where} ({getattr(error, 'problem', None) or error}); fix it, or move it away and "
            "run this again to make a new one"
        ) from None
    if not isinstance(values, dict):
        raise UserError("params.yaml: empty, or not a mapping of sections; move it away and run this again")
    return values


def _show(value: Any) -> str:
    import json

    from showwork.presets import comments

    if value is comments.ABSENT:
        return "(absent)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
