"""showwork preset | doctor.

JAX takes seconds to import, and these commands have one: what a command needs is imported inside it.
"""

import difflib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from showwork.errors import UserError

PRESETS = Path(__file__).parent / "presets"
LOCK = Path("requirements.lock")
PACKAGES = (
    "jax", "jaxlib", "flax", "google-tunix", "qwix", "optax", "orbax-checkpoint", "sentencepiece", "dvc",
)  # fmt: skip

SET_METADATA = (
    "LoRA ends in `TypeError: set_metadata takes either 1 argument or 1 or more keyword arguments`: this qwix passes "
    "what this flax does not take. Install flax 0.12.1 or later, or qwix 0.1.3 to 0.1.5"
)


@dataclass(frozen=True)
class Fault:
    """A combination of packages that is known to be wrong, where all of `when` is installed, and the way out."""

    when: tuple[str, ...]
    says: str


FAULTS = (
    Fault(("flax<0.12.1", "qwix==0.1.2"), SET_METADATA),
    Fault(("flax<0.12.1", "qwix>=0.1.6,<=0.1.8"), SET_METADATA),
    Fault(
        ("google-tunix!=0.1.7",),
        "src/showwork/tunix_adapter.py overrides private methods of google-tunix 0.1.7; install that release",
    ),
    Fault(
        ("sentencepiece!=0.2.3",),
        "another sentencepiece than 0.2.3 may train another tokenizer on the same text; install that release",
    ),
)

app = typer.Typer(
    help="Trains Gemma to show its work, and shows whether it did. `dvc repro` runs the pipeline; see README.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The command line. A mistake of the user is told on standard error without a traceback, exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"showwork: {error}", file=sys.stderr)
        sys.exit(2)


def say(text: str = "") -> None:
    # No markup: values may hold brackets. No wrapping: a line stays a line in a pipe.
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


# ---------------------------------------------------------------------------------------------- preset


@app.command()
def preset(
    name: Annotated[str | None, typer.Argument(help="One of the presets that --list shows.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the presets and change nothing.")] = False,
) -> None:
    """Rewrite params.yaml to a preset, comments kept."""
    if listing or name is None:
        width = max(map(len, preset_names()))
        for known in preset_names():
            say(f"{known:{width}}  {describe_preset(known)}")
        return
    changes = apply_preset(name)
    for key, old, new in changes:
        say(f"{key}: {old} → {new}")
    if changes:
        say(f"params.yaml is preset {name} now; `dvc repro` runs what that affects.")
    else:
        say(f"params.yaml was preset {name} already.")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Raises UserError with the nearest name where there is no such preset."""
    known = preset_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"preset {name} is unknown; {hint}")
    return PRESETS / f"{name}.yaml"


def describe_preset(name: str) -> str:
    """The preset's first line, which says what it is and what it costs."""
    first, _, _ = preset_path(name).read_text("utf-8").partition("\n")
    return first.removeprefix("#").strip()


def apply_preset(name: str) -> list[tuple[str, str, str]]:
    """Makes params.yaml the preset, value for value; returns (key, old, new) of what changed.

    The file keeps its comments, a new key brings the preset's. It is checked before it is written, and written
    at once or not at all. Where there is no params.yaml, it is made from the default's text. Raises UserError.
    """
    from ruamel.yaml import YAML

    from showwork import config, files

    wanted = _round_trip().load(preset_path(name).read_text("utf-8"))
    if config.PARAMS.exists():
        text = config.PARAMS.read_text("utf-8")
        before = current = _load_params(text)
    elif Path("dvc.yaml").exists():
        _, _, text = preset_path("tiny").read_text("utf-8").partition("\n")
        before, current = {}, _load_params(text)
    else:
        raise UserError("no params.yaml and no dvc.yaml here; run from the project's root")
    changes = list(_differences(before, wanted))
    if changes:
        _merge(current, wanted)
        text = _dump(current)
        config.check(YAML(typ="safe", pure=True).load(text), f"preset {name}")
        files.write_text(config.PARAMS, text)
    return changes


def _round_trip() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """`adapter: null`, where ruamel would write `adapter:`."""

    Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml = YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 10**6
    return yaml


def _load_params(text: str) -> Any:
    from ruamel.yaml.error import YAMLError

    try:
        values = _round_trip().load(text)
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


def _dump(values: Any) -> str:
    from io import StringIO

    buffer = StringIO()
    _round_trip().dump(values, buffer)
    return buffer.getvalue()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key, _Absent), new.get(key, _Absent)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif not _is_same(before, after):
            yield f"{prefix}{key}", _show(before), _show(after)


class _Absent:
    """Stands for the value of a key that is not there."""


def _is_same(a: Any, b: Any) -> bool:
    # True == 1 in Python, and not in YAML.
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _show(value: Any) -> str:
    import json

    if value is _Absent:
        return "(absent)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _merge(target: Any, source: Any) -> None:
    """Gives target, a commented mapping, the keys and values of source; what stays the same keeps its spelling."""
    tail = _cut_tail(target)
    for key in [key for key in target if key not in source]:
        del target[key]
        target.ca.items.pop(key, None)
    for place, (key, value) in enumerate(source.items()):
        if key not in target:
            target.insert(place, key, value)
            if key in source.ca.items:
                target.ca.items[key] = source.ca.items[key]
        elif isinstance(target[key], dict) and isinstance(value, dict):
            _merge(target[key], value)
        elif not _is_same(target[key], value):
            target[key] = value
            if comment := target.ca.items.get(key, [None] * 3)[2]:
                comment.column = 0  # one space behind the new value, however long the old one was
    _put_tail(target, tail)


def _last_leaf(section: Any) -> tuple[Any, Any, int]:
    """Where ruamel keeps the comment at the end of a section: with its last leaf, beside that line's own."""
    from ruamel.yaml.comments import CommentedMap

    while True:
        is_map = isinstance(section, CommentedMap)
        key = list(section)[-1] if is_map else len(section) - 1
        value = section[key]
        if not isinstance(value, dict | list) or not value or value.fa.flow_style():
            return section, key, 2 if is_map else 0
        section = value


def _cut_tail(section: Any) -> str:
    """Takes the lines after a section's last value (blank, or the next section's comment) off it."""
    if not section or section.fa.flow_style():
        return ""
    holder, key, slot = _last_leaf(section)
    tokens = holder.ca.items.get(key)
    if not tokens or not tokens[slot]:
        return ""
    own, newline, tail = tokens[slot].value.partition("\n")
    tokens[slot].value = own + newline
    return tail


def _put_tail(section: Any, tail: str) -> None:
    if not section or section.fa.flow_style():
        return
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    _cut_tail(section)
    holder, key, slot = _last_leaf(section)
    tokens = holder.ca.items.setdefault(key, [None] * 4)
    if tokens[slot]:
        tokens[slot].value += tail
    elif tail:
        tokens[slot] = CommentToken(f"\n{tail}", CommentMark(0), None)


# ---------------------------------------------------------------------------------------------- doctor


@app.command()
def doctor(
    devices: Annotated[bool, typer.Option("--devices", help="Import JAX and list its devices.")] = False,
) -> None:
    """Say what is installed, and what is known to be wrong with it. Exit code 1 where something is."""
    versions = installed_versions()
    say(f"Python {platform.python_version()} in {sys.prefix}")
    say(f"{platform.platform()}, {count_cores()} cores, {memory_bytes() / 2**30:.1f} GiB of memory")
    for name in PACKAGES:
        say(f"  {name:16}  {versions.get(name, 'not installed')}")
    if devices:
        list_devices()
    faults = find_faults(versions)
    for fault in faults:
        say(f"✗ {fault}")
    for note in notes(versions):
        say(f"! {note}")
    if faults:
        raise typer.Exit(1)
    say("✓ no known fault")


def installed_versions() -> dict[str, str]:
    """Name, as package indexes spell it, → version, read without importing any of them."""
    from importlib.metadata import distributions

    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(distribution.name), distribution.version)
    return found


def find_faults(versions: Mapping[str, str], *, python: tuple[int, ...] = sys.version_info[:2]) -> list[str]:
    """What will fail, one line each."""
    from packaging.requirements import Requirement

    def is_met(text: str) -> bool:
        wanted = Requirement(text)
        return wanted.name in versions and wanted.specifier.contains(versions[wanted.name], prereleases=True)

    found = [] if python == (3, 11) else [f"Python {python[0]}.{python[1]}: showwork runs on 3.11; `make setup`"]
    missing = [name for name in PACKAGES if name not in versions]
    found += [f"{', '.join(missing)}: not installed; `make setup`"] if missing else []
    for fault in FAULTS:
        if all(map(is_met, fault.when)):
            names = [Requirement(text).name for text in fault.when]
            found.append(f"{' with '.join(f'{name} {versions[name]}' for name in names)}: {fault.says}")
    return found


def notes(versions: Mapping[str, str]) -> Iterator[str]:
    """What works, but not as well as it could."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Measured: a dvc or jax that was installed without bytecode starts three times as slowly.
        yield "PYTHONDONTWRITEBYTECODE is set: what has no bytecode yet is compiled anew at every start; unset it"
    if not LOCK.exists():
        yield f"no {LOCK} here: the versions are not compared with it"
        return
    locked = locked_versions(LOCK)
    other = {name: version for name, version in locked.items() if versions.get(name) != version}
    if other:
        yield f"{len(other)} of {len(locked)} packages differ from {LOCK}; `make setup` after `touch {LOCK}` mends it:"
        for name, version in other.items():
            yield f"  {name}: {versions.get(name, 'not installed')}, locked {version}"


def locked_versions(path: Path) -> dict[str, str]:
    """Name → version, from lines of `name==version`."""
    from packaging.utils import canonicalize_name

    pairs = (line.split("==") for line in path.read_text("utf-8").split())
    return {canonicalize_name(name): version for name, version in pairs}


def count_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_bytes() -> int:
    """Of the machine, or of the container where that has less."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return installed if text == "max" else min(installed, int(text))


def list_devices() -> None:
    import jax

    try:
        found = jax.devices()
    except RuntimeError as error:
        raise UserError(f"JAX finds no device: {error}") from None
    for device in found:
        say(f"  device {device.id}: {device.platform}, {device.device_kind}")


if __name__ == "__main__":
    main()
