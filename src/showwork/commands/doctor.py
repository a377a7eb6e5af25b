"""showwork doctor: installed versions and known incompatibilities."""

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from showwork.commands import say
from showwork.errors import UserError

LOCK, WEIGHTS = Path("requirements.lock"), Path("results/weights")
PACKAGES = (
    "jax", "jaxlib", "flax", "google-tunix", "qwix", "optax", "orbax-checkpoint", "sentencepiece", "dvc",
)  # fmt: skip

SET_METADATA = (
    "LoRA ends in `TypeError: set_metadata takes either 1 argument or 1 or more keyword arguments`: this qwix passes "
    "what this flax does not accept. Install flax 0.12.1 or later, or qwix 0.1.3 to 0.1.5"
)


@dataclass(frozen=True)
class Fault:
    """A known bad combination of packages: applies if all of `when` is installed; `says` has the fix."""

    when: tuple[str, ...]
    says: str


FAULTS = (
    Fault(("flax<0.12.1", "qwix==0.1.2"), SET_METADATA),
    Fault(("flax<0.12.1", "qwix>=0.1.6,<=0.1.8"), SET_METADATA),
    Fault(
        ("google-tunix!=0.1.7",),
        "src/showwork/tunix_adapter/ overrides private methods of google-tunix 0.1.7; install that release",
    ),
    Fault(
        ("sentencepiece!=0.2.3",),
        "another sentencepiece than 0.2.3 may train another tokenizer on the same text; install that release",
    ),
)


def doctor(
    devices: Annotated[bool, typer.Option("--devices", help="Import JAX and list its devices.")] = False,
) -> None:
    """List installed versions and known faults. Exit code 1 if there is a fault."""
    versions = installed_versions()
    say(f"Python {platform.python_version()} in {sys.prefix}")
    say(f"{platform.platform()}, {count_cores()} cores, {memory_bytes() / 2**30:.1f} GiB of memory")
    for name in PACKAGES:
        say(f"  {name:16}  {versions.get(name, 'not installed')}")
    if devices:
        list_devices()
    faults = [*find_faults(versions), *find_params_faults(), *find_lost_weights()]
    for fault in faults:
        say(f"✗ {fault}")
    for note in notes(versions):
        say(f"! {note}")
    if faults:
        raise typer.Exit(1)
    say("✓ no known fault")


def find_params_faults() -> list[str]:
    """What is wrong with params.yaml, where there is one. `dvc repro` itself reads only parts of it."""
    from showwork import config

    try:
        if config.PARAMS.exists():
            config.load()
    except UserError as error:
        return str(error).splitlines()
    return []


def find_lost_weights() -> list[str]:
    """Links of results/weights whose files are gone, at which DVC itself stops without saying why."""
    return [
        f"{link} is a link to {link.readlink()}, which is gone, and `dvc repro` and `dvc status` stop there: put it "
        "back, or set base.weights in params.yaml to where it is"
        for link in sorted(WEIGHTS.glob("*"))
        if not link.exists()
    ]


def installed_versions() -> dict[str, str]:
    """Canonical package name → version, read without importing the packages."""
    from importlib.metadata import distributions

    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(distribution.name), distribution.version)
    return found


def find_faults(versions: Mapping[str, str], *, python: tuple[int, ...] = sys.version_info[:2]) -> list[str]:
    """Known faults, one line each."""
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
    """Warnings about what works, but not well."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Measured: a dvc or jax that was installed without bytecode starts three times as slowly.
        yield "PYTHONDONTWRITEBYTECODE is set: modules without bytecode are compiled at every start; unset it"
    if not LOCK.exists():
        yield f"no {LOCK} here: the versions are not compared with it"
        return
    locked = locked_versions(LOCK)
    other = {name: version for name, version in locked.items() if versions.get(name) != version}
    if other:
        yield f"{len(other)} of {len(locked)} packages differ from {LOCK}; `make setup` after `touch {LOCK}` fixes it:"
        for name, version in other.items():
            yield f"  {name}: {versions.get(name, 'not installed')}, locked {version}"


def locked_versions(path: Path) -> dict[str, str]:
    """Name → version, from lines of `name==version`."""
    from packaging.utils import canonicalize_name

    pairs = (line.split("==") for line in path.read_text("utf-8").split())
    return {canonicalize_name(name): version for name, version in pairs}


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, or of the container if that has less."""
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
