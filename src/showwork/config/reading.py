"""Reads and checks params.yaml.

A key that is unknown, missing, of the wrong type or at odds with another ends the run before any work. The message
has the key, the file and the nearest known name.
"""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from showwork import arms
from showwork.arms import BASE, KINDS, OWN_KEYS, Arm
from showwork.config.params import SETTINGS, Params
from showwork.config.sections import GeneratedData, HubData, JsonlData
from showwork.config.training import Rl
from showwork.errors import UserError
from showwork.names import suggest

PARAMS = Path("params.yaml")
ARM_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Stages, and files of results/ that would be an arm's.
RESERVED = frozenset((
    "code", "ingest", "clean", "weights", "tokenizer", BASE, "evaluate", "report", "plan", "arms", "shared",
    "workspace",
))  # fmt: skip
# Keys of an earlier version, and what there is in their place.
GONE = dict.fromkeys(
    ("micro_batches", "micro_batch_rows"), "hardware.tokens_per_pass says how much a device takes at a time"
)
_SOURCES: dict[str, type[BaseModel]] = {"generated": GeneratedData, "jsonl": JsonlData, "hub": HubData}
# Sections of the former layout, and where their arms are now.
FORMER = {
    "sft": "sft.arms.sft", "sft_dual": "sft.arms.sft_dual", "grpo": "rl.arms.grpo", "trajectory": "rl.arms.trajectory",
    "dsa_cast": "rl.arms.dsa_cast", "cast": "cast.arms.cast", "prompt.system": "prompt.plain",
}  # fmt: skip


def load(path: Path = PARAMS) -> Params:
    """Reads and checks the whole file. Raises UserError with every fault, one a line."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run from the project's root, or `showwork preset tiny` makes one"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except (YAMLError, ValueError, RecursionError) as error:  # a ValueError: not UTF-8, a thirteenth month
        raise UserError(f"{path}: not YAML: {error}") from None
    return check(values, str(path))


def check(values: Any, name: str = "params.yaml") -> Params:
    """A mapping as Params. Raises UserError with every fault, one a line."""
    if not isinstance(values, dict):
        raise UserError(f"{name}: empty, or not a mapping of sections")
    if _is_former(values):
        moves = ", ".join(f"{old} → {new}" for old, new in FORMER.items())
        raise UserError(
            f"{name}: this is the layout of an earlier version; arms are sections of sft.arms, rl.arms and cast.arms "
            f"now, with what they share in KIND.shared ({moves}). `showwork preset NAME` writes the new layout"
        )
    faults = []
    try:
        Params.model_validate(values)
    except ValidationError as error:
        faults = [_explain(fault, values) for fault in error.errors()]
    if not any(
        fault.startswith(tuple(f"{kind}{end}" for kind in KINDS for end in (".", " ", ":"))) for fault in faults
    ):
        faults += [*_bad_names(values), *_bad_sections(values)]
    if not faults:
        params = Params.model_validate(values)
        faults = list(_bad_starts(params.arms)) or list(_unknown_names(params))
    if faults:
        raise UserError("\n".join(f"{name}: {fault}" for fault in faults))
    return params


def _is_kind(section: Any) -> bool:
    """Whether a kind's section has the form that its arms can be read from."""
    parts = [section.get(key) for key in ("shared", "arms")] if isinstance(section, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        return False
    return all(isinstance(name, str) and isinstance(own, dict) for name, own in parts[1].items())


def _is_former(values: Mapping[str, Any]) -> bool:
    section = values.get("sft")
    return "grpo" in values or "sft_dual" in values or (isinstance(section, dict) and "steps" in section)


def _bad_names(values: Mapping[str, Any]) -> Iterator[str]:
    kinds: dict[str, str] = {}
    for kind in KINDS:
        for name in values[kind]["arms"]:
            key = f"{kind}.arms.{name}"
            if not ARM_NAME.fullmatch(name):
                yield (
                    f"{key}: {name!r} is no arm's name: lower-case letters, digits and underscores, beginning with a "
                    "letter, at most 40 characters (it names files and a DVC stage)"
                )
            elif name in RESERVED:
                yield f"{key}: {name} is the name of a stage of the pipeline; choose another"
            elif name in kinds:
                yield f"{key}: {kinds[name]}.arms has an arm of that name already; an arm is of one kind"
            kinds[name] = kind


def _bad_sections(values: Mapping[str, Any]) -> Iterator[str]:
    """Each arm's merged section against its model, faults named where the key is; and keys of the shared parts."""
    for kind in KINDS:
        shared, fields = values[kind]["shared"], SETTINGS[kind].model_fields
        found: dict[str, None] = {}
        missing: dict[str, list[str]] = {}
        for key in shared:
            if key in OWN_KEYS:
                found[f"{kind}.shared.{key}: {key} is each arm's own: give it in {kind}.arms.NAME"] = None
            elif key not in fields:
                found[f"{kind}.shared.{key} is unknown; {GONE.get(key) or suggest(str(key), list(fields))}"] = None
        for name, own in values[kind]["arms"].items():
            try:
                SETTINGS[kind].model_validate(arms.overlay(shared, own))
            except ValidationError as error:
                for fault in error.errors():
                    path = [str(part) for part in fault["loc"]]
                    if fault["type"] == "missing":
                        missing.setdefault(".".join(path), []).append(name)
                    elif _has(own, path) or not _has(shared, path):
                        found[_in_section(fault, f"{kind}.arms.{name}", path, kind)] = None
                    elif path[0] in fields:  # an unknown one was named above
                        found[_in_section(fault, f"{kind}.shared", path, kind)] = None
        yield from found
        yield from (_missing(kind, path, names) for path, names in missing.items())


def _missing(kind: arms.Kind, path: str, names: list[str]) -> str:
    first, *others = names
    text = f"{kind}.arms.{first}.{path} is missing"
    text += f" (for {', '.join(others)} too)" if others else ""
    if path not in OWN_KEYS:
        text += f", and {kind}.shared.{path} is missing: give one of them"
    return f"{text}; `showwork params {kind}.{path}` says what it is"


def _in_section(fault: ErrorDetails, prefix: str, path: list[str], kind: arms.Kind) -> str:
    key = ".".join([prefix, *path])
    if fault["type"] == "extra_forbidden":
        way_out = GONE.get(path[-1]) or suggest(path[-1], known_keys(SETTINGS[kind], path[:-1]))
        return f"{key} is unknown; {way_out}"
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    return f"{key}: {fault['msg']} (got {fault['input']!r})"


def _has(values: Any, path: Iterable[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _bad_starts(found: Mapping[str, Arm]) -> Iterator[str]:
    for arm in found.values():
        key = f"{arm.kind}.arms.{arm.name}"
        if arm.start is None:
            continue
        start = found.get(arm.start)
        if start is None:
            others = [name for name in found if name != arm.name]
            yield f"{key}.start: there is no arm {arm.start}; {suggest(arm.start, others)}"
        elif start.name != BASE and start.prompt != arm.prompt:
            yield (
                f"{key}.start: {start.name} has prompt: {start.prompt}, and {arm.name} has prompt: {arm.prompt}; an "
                "arm starts from base or from one with its own prompt"
            )
    if circle := arms.find_circle({arm.name: arm.start for arm in found.values()}):
        yield f"arms start from one another in a circle: {' → '.join(circle)}; one of them must start from base"


def _unknown_names(params: Params) -> Iterator[str]:
    """Names that tables of other modules hold: models, styles, rewards."""
    # Imported by name and not by a statement: every stage checks the whole file, but what a stage makes does not
    # depend on these tables, and the digests of a stage follow import statements.
    models = importlib.import_module("showwork.models.specs").MODELS
    rewards = importlib.import_module("showwork.rewards")
    styles = importlib.import_module("showwork.problems.styles").STYLES
    if params.model.name not in models:
        yield f"model.name: {params.model.name} is unknown; {suggest(params.model.name, list(models))}"
    for arm in params.arms.values():
        key, settings = f"{arm.kind}.arms.{arm.name}", arm.settings
        for field in ("styles", "replay_styles"):
            for style in getattr(settings, field, ()) if not isinstance(settings, Rl) else ():
                if style not in styles:
                    yield f"{key}.{field}: {style} is unknown; {suggest(style, list(styles))}"
        if isinstance(settings, Rl):
            yield from (f"{key}.rewards: {fault}" for fault in rewards.find_faults(settings.rewards))


def _explain(fault: ErrorDetails, values: Mapping[str, Any]) -> str:
    # pydantic's path holds the discriminator's tag ("generated"), which the file does not: leave it out.
    path = [str(part) for part in fault["loc"]]
    if len(path) > 1 and path[0] == "data" and path[1] in _SOURCES:
        del path[1]
    key = ".".join(path)
    match fault["type"]:
        case "extra_forbidden":
            return f"{key} is unknown; {suggest(path[-1], known_keys(Params, path[:-1], values))}"
        case "missing":
            return f"{key} is missing; `showwork params {key}` says what it is"
        case "union_tag_not_found":
            return f"{key}.source is missing; known: {', '.join(_SOURCES)}"
        case "union_tag_invalid":
            source = str(fault["input"]["source"])
            return f"{key}.source: {source} is unknown; {suggest(source, list(_SOURCES))}"
        case "value_error":
            return f"{key + ': ' if key else ''}{fault['ctx']['error']}"
        case _:
            return f"{key}: {fault['msg']} (got {fault['input']!r})"


def known_keys(model: type[BaseModel], path: Iterable[str], values: Mapping[str, Any] | None = None) -> list[str]:
    """The keys that the section at a path may have; of data, by the source that values name."""
    section: type[BaseModel] | None = model
    for part in path:
        if part == "data" and section is Params:
            section = _SOURCES[(values or {})["data"].get("source")]
            continue
        section = section_of(section, part) if section else None
    return list(section.model_fields) if section else []


def section_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a field that is a section, optional or not; None for another field."""
    annotation = model.model_fields[key].annotation
    options = (annotation, *get_args(annotation))
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
