"""Runs a stage of the pipeline: one-line errors, recorded costs, a scratch folder to resume from."""

import ctypes
import fcntl
import gc
import hashlib
import os
import platform
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from showwork import config, digests
from showwork.arms import KINDS
from showwork.errors import UserError
from showwork.files import write_json

# Importing 2,000 modules and tracing programs makes millions of long-lived objects; collecting garbage at every 700th
# costs 0.5 s of a stage's start. Set before those imports, so that they gain too.
gc.set_threshold(100_000, 20, 20)

SCRATCH = Path(".scratch")
COSTS = Path("results/costs")
LIVE = Path("dvclive")  # for params.yaml's `live`, a folder per stage


def run(name: str, main: Callable[[], None]) -> None:
    """Runs a stage. Exit code 2 after a UserError, printed without a traceback; 130 after Ctrl-C.

    Writes seconds and peak memory to results/costs/NAME.json: in git, but not an out of DVC, so that dvc.lock is
    the same from run to run.
    """
    _die_with_parent()
    prepare()
    started = time.monotonic()
    try:
        _check_package()
        if name != "code":
            digests.check(name.partition("-")[0], config.load())  # evaluate-ARM shares the digests of `evaluate`
        main()
    except UserError as error:
        print(f"showwork {name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\nshowwork {name}: interrupted; `dvc repro` resumes from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cost = {"seconds": round(time.monotonic() - started, 1), "peak_memory_bytes": peak, "hardware": _hardware()}
    write_json(COSTS / f"{name}.json", cost)


def _check_package() -> None:
    """Raises UserError if the imported package is not the one beside the stages, which dvc.lock records."""
    beside, imported = Path("src/showwork").absolute(), Path(__file__).parent
    if beside.is_dir() and beside.resolve() != imported.resolve():
        raise UserError(
            f"this project's code is in {beside}, but {imported} was imported; run the stage with `dvc repro`"
        )


def _die_with_parent() -> None:
    """Ends the stage when its parent, DVC, is killed (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def prepare() -> None:
    """Sets up garbage collection and JAX; call after all imports and before the work.

    Compiled programs are cached in .scratch/programs, which arms and reruns share.
    """
    gc.freeze()  # Tunix collects garbage at each trainer's start; frozen objects are skipped
    jax = sys.modules.get("jax")
    if jax and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str((SCRATCH / "programs").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _hardware() -> str:
    if "jax" in sys.modules:
        devices = sys.modules["jax"].devices()
        if devices[0].platform != "cpu":
            return f"{len(devices)} x {devices[0].device_kind}"
    return f"{os.cpu_count()} cores, {platform.machine()}"


@contextmanager
def scratch(name: str) -> Generator[Path]:
    """The stage's folder for training state: .scratch/NAME/KEY, KEY from its params and the contents of its deps.

    So a run resumes only from a run with the same inputs. The folder is locked inside the context, and removed at its
    end unless an exception is raised: write the outs inside. Raises UserError if another run holds the lock.
    """
    folder = SCRATCH / name / _key(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run of this stage with the same inputs is under way ({folder})") from None
        yield folder
        shutil.rmtree(folder)


def _key(name: str) -> str:
    """Hash of what DVC would hash: the stage's params and deps, the digests of its code included."""
    yaml = YAML(typ="safe", pure=True)
    stages, params = yaml.load(Path("dvc.yaml"))["stages"], yaml.load(Path("params.yaml"))
    stage, arm = _find_stage(name, stages, params)
    names = {"key": name, "item": arm}
    digest = hashlib.sha256()
    for key in stage["params"]:
        key = _fill_in(key, names)
        digest.update(f"{key}={_canonical(_look_up(key, params))}\n".encode())
    for dep in stage["deps"]:
        path = Path(_fill_in(dep, names))
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as content:
                digest.update(f"{file}={hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _find_stage(name: str, stages: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The stage of dvc.yaml with this name, or the one that trains this arm, and the arm's section."""
    for kind in KINDS:
        if name in params[kind]["arms"]:
            return stages[kind]["do"], params[kind]["arms"][name]
    return stages[name], {}


def _canonical(value: Any) -> str:
    """A value of params.yaml with its keys sorted, as text."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    return repr(value)


def _fill_in(text: str, names: Mapping[str, Any]) -> str:
    """Fills in dvc.yaml's ${key} and ${item.start}."""
    while "${" in text:
        before, _, rest = text.partition("${")
        name, _, after = rest.partition("}")
        text = f"{before}{_look_up(name, names)}{after}"
    return text


def _look_up(key: str, values: Any) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        values = values[part]
    return values
