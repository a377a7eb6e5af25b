"""Measures training, sampling and evaluation against the stock loops of Tunix, TRL, and the machine's limit.

    python -m bench.speed                        # everything, some 20 minutes
    python -m bench.speed --only sft,grpo        # some of it; the other figures in the file stay
    python -m bench.speed --size toy --no-trl    # all the machinery in two minutes; its ratios mean nothing
    python -m bench.speed --size gemma3_270m --runs 3   # a published model, and the memory that it takes

Every side is a process of its own with the same model, rows and settings (material.py); they take their steps in
turn (parts.py, real.py). Figures are medians over the rounds, ratios are taken round by round. The result goes to
bench/results/speed-HARDWARE.json, that of another size than the full one to speed-HARDWARE-SIZE.json.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import environment, material
from bench.compare import Driver
from bench.parts import Bench
from bench.pipeline import hardware, slug
from bench.real import RealBench
from bench.sizes import SIZES
from showwork.files import read_json, write_json

RESULTS = material.ROOT / "bench" / "results"
GSM8K = material.ROOT / ".." / "shared" / "gsm8k" / "train.jsonl"
BENCHES: dict[str, type[Bench]] = {"gemma3_270m": RealBench, "gemma3_270m-toy": RealBench}  # the others: Bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"parts, by commas: {', '.join(Bench.names)}; all, if left out")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--gsm8k", type=Path, help="GSM8K's train.jsonl for the SFT rows; else generated problems")
    parser.add_argument("--no-trl", action="store_true", help="leave out TRL, and its environment")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the file")
    arguments = parser.parse_args()
    kind = BENCHES.get(arguments.size, Bench)
    parts = arguments.only.split(",") if arguments.only else kind.names
    if unknown := set(parts) - set(kind.names):
        parser.error(f"--only: no part is called {', '.join(sorted(unknown))}; there are {', '.join(kind.names)}")
    gsm8k = arguments.gsm8k or (GSM8K if GSM8K.exists() else None)

    console, started = Console(stderr=True), time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - started:5.0f} s] {text}", markup=False, highlight=False)

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    say(f"SFT rows from {gsm8k.resolve()}" if gsm8k else "no GSM8K file: SFT rows from generated problems")
    folder = material.prepare(SIZES[arguments.size], gsm8k)
    trl = None if arguments.no_trl else environment.python(material.SCRATCH / "trl-venv", say)
    bench = kind(Driver(folder, runs=arguments.runs, warm_up=kind.warm_up, trl=trl, say=say))
    for part in parts:
        say(part)
        getattr(bench, part)()
    path = arguments.results / f"speed-{slug()}{'' if arguments.size == 'full' else '-' + arguments.size}.json"
    merge(path, bench, parts)
    show(bench)
    print(f"Written: {path}")


def merge(path: Path, bench: Bench, parts: Sequence[str]) -> None:
    """Writes the file; parts that were not measured now keep their earlier figures."""
    old = read_json(path) if path.exists() else {"versions": {}, "figures": [], "checks": []}
    own = {name: version(name) for name in ("jax", "jaxlib", "flax", "google-tunix", "optax")}
    kept = {kind: [row for row in old[kind] if row["part"] not in parts] for kind in ("figures", "checks")}
    write_json(path, {
        "hardware": hardware(),
        "versions": {**old["versions"], **own, **bench.driver.versions},
        "figures": [*kept["figures"], *(asdict(row) for row in bench.figures)],
        "checks": [*kept["checks"], *(asdict(row) for row in bench.checks)],
    })  # fmt: skip


def show(bench: Bench) -> None:
    table = Table("figure", "against", "ours", "theirs", "unit", "times", "quartiles", "at least")
    for row in bench.figures:
        mark = "" if row.at_least is None or row.ratio >= row.at_least else " ✗"
        wanted = "" if row.at_least is None else f"{row.at_least:g}"
        spread = f"{row.low:.3g} to {row.high:.3g}"
        table.add_row(row.what, row.peer, f"{row.ours:,g}", f"{row.theirs:,g}", row.unit, f"{row.ratio:.3g}{mark}",
                      spread, wanted)  # fmt: skip
    console = Console()
    console.width = max(console.width, 150)  # one line per figure in logs too
    console.print(table)
    for check in bench.checks:
        print(
            f"{'✗' if check.found > check.allowed else '✓'} {check.what}: {check.found:.2g}, at most {check.allowed:g}"
        )


if __name__ == "__main__":
    main()
