"""showwork preset: params.yaml becomes one of the presets, its comments kept."""

from pathlib import Path
from typing import Annotated, Any

import typer

from showwork import presets
from showwork.commands import say
from showwork.errors import UserError

RUN = "dvc repro"


def preset(
    name: Annotated[str | None, typer.Argument(help="One of the presets that --list shows.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the presets and change nothing.")] = False,
) -> None:
    """Rewrite params.yaml to a preset, comments kept."""
    if listing or name is None:
        say("\n\n".join(map(describe, presets.names())))
        return
    changes = apply_preset(name)
    for key, old, new in changes:
        say(f"{key}: {old} → {new}")
    run = presets.about(name).run or RUN
    if changes:
        say(f"params.yaml is preset {name} now; `{run}` runs what that affects.")
    else:
        say(f"params.yaml was preset {name} already; `{run}` runs what is not up to date.")


def describe(name: str) -> str:
    """What the preset is, as --list shows it: a line, and below it those fields of its head that it has."""
    about = presets.about(name)
    return "\n".join([f"{name}: {about.summary}", *(f"  {field:8}  {value}" for field, value in about.items())])


def apply_preset(name: str) -> list[tuple[str, str, str]]:
    """Makes params.yaml the preset, value for value; returns (key, old, new) of what changed.

    The file keeps its comments, a new key brings the preset's. It is checked before it is written, and written
    at once or not at all. Where there is no params.yaml, it is made from the default's text. Raises UserError.
    """
    presets.about(name)  # an unknown name is told first
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
            f"params.yaml: not YAML{where} ({getattr(error, 'problem', None) or error}); mend it, or move it away and "
            "run this again: it is then made anew"
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
