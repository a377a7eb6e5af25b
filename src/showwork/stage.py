"""What every stage needs around its work: errors as one line, its cost on record, a scratch folder to resume from."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from showwork.errors import UserError
from showwork.files import write_json

# Importing 2,000 modules and tracing programs makes millions of objects that stay: looking for garbage at every 700th
# takes 0.5 s of a stage's start. Before those imports, so that they gain too.
gc.set_threshold(100_000, 20, 20)

SCRATCH = Path(".scratch")
COSTS = Path("results/costs")
LIVE = Path("dvclive")  # for params.yaml's `live`, a folder a stage


def run(name: str, main: Callable[[], None]) -> None:
    """Runs a stage. A UserError is printed without a traceback, exit code 2; Ctrl-C says how to go on, 130.

    results/costs/NAME.json gets the seconds and the peak memory: in git, but no out of DVC, so that dvc.lock is
    the same from run to run.
    """
    _die_with_parent()
    prepare()
    started = time.monotonic()
    try:
        main()
    except UserError as error:
        print(f"showwork {name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\nshowwork {name}: interrupted; `dvc repro` goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cost = {"seconds": round(time.monotonic() - started, 1), "peak_memory_bytes": peak, "hardware": _hardware()}
    write_json(COSTS / f"{name}.json", cost)


def _die_with_parent() -> None:
    """A DVC that is killed must not leave its stage training (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def prepare() -> None:
    """Before the work, and after all imports.

    Compiled programs go to .scratch/programs, by what they were compiled from: arms share them, and reruns do.
    """
    gc.freeze()  # Tunix collects garbage at every start of a trainer, which looks through all that was imported
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
def scratch(name: str) -> Iterator[Path]:
    """The stage's folder for training state: .scratch/NAME/KEY, KEY from its params and the contents of its deps.

    So a run resumes where one with the same inputs stopped, and never from another's state. The folder is locked
    inside the context, and goes at its end unless an exception leaves it: write the outs inside. Raises UserError
    where another run holds it.
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
    """sha256 of what DVC would hash: the stage's params, and the files that it depends on."""
    yaml = YAML(typ="safe", pure=True)
    stage = yaml.load(Path("dvc.yaml"))["stages"][name]
    params = yaml.load(Path("params.yaml"))
    digest = hashlib.sha256()
    for key in stage["params"]:
        digest.update(f"{key}={_canonical(params[key])}\n".encode())
    for dep in stage["deps"]:
        path = Path(_fill_in(dep, params))
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as content:
                digest.update(f"{file}={hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _canonical(value: Any) -> str:
    """A value of params.yaml with its keys sorted, as text."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    return repr(value)


def _fill_in(path: str, params: Any) -> str:
    """dvc.yaml's ${section.key} from params.yaml."""
    while "${" in path:
        before, _, rest = path.partition("${")
        name, _, after = rest.partition("}")
        value = params
        for part in name.split("."):
            value = value[part]
        path = f"{before}{value}{after}"
    return path
