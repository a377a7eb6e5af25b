"""Measures how long a user waits for each command of the pipeline, without training.

    make bench ARGS="--gsm8k train.jsonl"

Each command runs once to warm the caches of the disk, then RUNS times. Seconds are the median of the wall clock,
CPU seconds that of user and system time of the command and its children. The result goes to
bench/results/pipeline-HARDWARE.json, with the commands.
"""

import argparse
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from showwork.errors import UserError
from showwork.files import write_json

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
RUNS = 5
HELD_OUT_ROWS = 1000  # of the GSM8K file, as the test set for the search for leaks


@dataclass(frozen=True)
class Measurement:
    what: str
    command: str
    limit_seconds: float
    seconds: float
    cpu_seconds: float
    runs: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gsm8k", type=Path, help="measure cleaning on this file, one row a line as GSM8K's train.jsonl"
    )
    arguments = parser.parse_args()
    # The stages and dvc are started as `make repro` starts them.
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        found = [measure(*row, cwd=ROOT) for row in commands()]
        if arguments.gsm8k:
            found.append(measure_cleaning(arguments.gsm8k))
    except UserError as error:
        sys.exit(f"bench/pipeline.py: {error}")
    path = ROOT / "bench" / "results" / f"pipeline-{slug()}.json"
    write_json(path, {"hardware": hardware(), "measurements": [asdict(row) for row in found]})
    show(found)
    print(f"Written: {path.relative_to(ROOT)}")


def commands() -> list[tuple[str, list[str], float]]:
    """(name, command, limit in seconds) of each measurement."""
    rows = [
        ("command line, help", ["showwork", "--help"], 1.0),
        ("command line, presets", ["showwork", "preset", "--list"], 1.0),
        ("command line, doctor", ["showwork", "doctor"], 1.0),
    ]
    if subprocess.run(["dvc", "status", "--quiet"], cwd=ROOT, check=False).returncode == 0:
        return [("dvc repro, nothing to do", ["dvc", "repro"], 3.0), *rows]
    print("dvc repro with nothing to do is not measured: there is something to do; `make repro` first")
    return rows


def measure(what: str, command: list[str], limit_seconds: float, *, cwd: Path) -> Measurement:
    """Runs a command RUNS times. Raises UserError with its last line if it fails."""
    timed = [run(command, cwd=cwd) for _ in range(RUNS + 1)][1:]
    walls, cpus = zip(*timed, strict=True)
    seconds, cpu = statistics.median(walls), statistics.median(cpus)
    return Measurement(
        what, " ".join(command), limit_seconds, round(seconds, 3), round(cpu, 3), [round(w, 3) for w in walls]
    )


def run(command: list[str], *, cwd: Path) -> tuple[float, float]:
    """Wall and CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"`{' '.join(command)}` ended with {done.returncode}: {' '.join(last)}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_cleaning(path: Path) -> Measurement:
    """The clean stage with start-up and all checks, on one core if the system allows it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; --gsm8k names GSM8K's train.jsonl")
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text("utf-8"))
    params["data"] = {
        "source": "jsonl",
        "train_files": [str(path.absolute())],
        "test_files": [],
        "hold_out_rows": HELD_OUT_ROWS,
        "basic_maths_files": [],
        "second_test_files": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "params.yaml").open("w") as file:
            YAML(typ="safe", pure=True).dump(params, file)
        run([sys.executable, str(ROOT / "stages" / "ingest.py")], cwd=folder)
        rows = sum(
            len((folder / "data" / "raw" / f"{part}.jsonl").read_bytes().splitlines()) for part in ("train", "test")
        )
        stage = [sys.executable, str(ROOT / "stages" / "clean.py")]
        cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()
        if cores:
            os.sched_setaffinity(0, {min(cores)})
        found = measure(f"cleaning {rows:,} rows", stage, 3.0, cwd=folder)
        if cores:
            os.sched_setaffinity(0, cores)
    return Measurement(**{**asdict(found), "command": f"python stages/clean.py, on {path.name}"})


def hardware() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "dvc": version("dvc"),
    }


def processor() -> str:
    """The CPU's name from Linux; elsewhere from Python."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def slug() -> str:
    return f"{os.cpu_count()}-cores-{platform.machine()}"


def show(found: list[Measurement]) -> None:
    table = Table("what", "seconds", "at most", "CPU seconds")
    for row in found:
        mark = "" if row.seconds <= row.limit_seconds else " ✗"
        table.add_row(row.what, f"{row.seconds:.2f}{mark}", f"{row.limit_seconds:g}", f"{row.cpu_seconds:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
