"""Measures training, sampling and evaluation against the stock loops of Tunix, TRL, and the machine's limit.

    python -m bench.speed                        # everything, some 20 minutes
    python -m bench.speed --only sft,grpo        # some of it; the other figures in the file stay
    python -m bench.speed --size toy --no-trl    # all the machinery in two minutes; its ratios mean nothing

Every side is a process of its own with the same model, rows and settings (material.py); they take their steps in
turn. Figures are medians over the rounds, ratios are taken round by round. The result goes to
bench/results/speed-HARDWARE.json.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import environment, limit, material
from bench.compare import Check, Driver, Figure, figure
from bench.pipeline import hardware, slug
from showwork.files import read_json, write_json

RESULTS = material.ROOT / "bench" / "results"
GSM8K = material.ROOT / ".." / "shared" / "gsm8k" / "train.jsonl"
LOSS_TOLERANCE = 1e-4
PARTS = ("limit", "sft", "grpo", "evaluate", "start")


class Bench:
    """The parts, over one folder of material."""

    def __init__(self, driver: Driver):
        self.driver, self._say = driver, driver.say
        self._size, self._work = material.read(driver.folder)
        self._config = read_json(driver.folder / "model" / "config.json")
        self.figures: list[Figure] = []
        self.checks: list[Check] = []

    def limit(self) -> None:
        answers = self.driver.alternate(["limit"])[1]["limit"]
        for what, unit in (("flops_per_second", "GFLOP/s"), ("bytes_per_second", "GB/s")):
            values = [answer[what] / 1e9 for answer in answers]
            name = "float32 matmul" if unit == "GFLOP/s" else "memory, read and written"
            self.figures.append(figure("limit", name, "itself", unit, values, values, at_least=None))

    def sft(self) -> None:
        peers = {
            "stock, padded to the maximum": ("stock sft-maximum", 6.0),
            "stock, padded to the longest": ("stock sft-longest", 1.5),
            "TRL, padded to the longest": ("trl_side sft-longest", 1.3),
            "TRL, packing": ("trl_side sft-packed", 1.3),
        }
        peers = {peer: row for peer, row in peers.items() if self.driver.trl or "TRL" not in peer}
        ready, answers = self.driver.alternate(["ours sft", *(side for side, _ in peers.values()), "limit"])
        lengths = [len(row["tokens"]) for row in self._work["sft"]]
        what = f"SFT, {len(lengths)} rows of {self._work['sft_source']}, {sum(lengths) // len(lengths)} tokens each"
        rates = {name: [sum(lengths) / a["seconds"] for a in given] for name, given in answers.items()}
        for peer, (side, at_least) in peers.items():
            self._add("sft", what, peer, "useful tokens/s", rates["ours sft"], rates[side], at_least)
            difference = abs(ready[side]["loss"] - ready["ours sft"]["first"]["loss"])
            self.checks.append(Check("sft", f"loss of the first step, ours and {peer}", difference, LOSS_TOLERANCE))
        used = [limit.training_flops(self._config, lengths) / a["seconds"] for a in answers["ours sft"]]
        self._share("sft", "SFT", used, answers["limit"], 0.30)

    def grpo(self) -> None:
        size = self._size
        peers = {"stock": ("stock grpo", 3.0)} | ({"TRL": ("trl_side grpo", 2.0)} if self.driver.trl else {})
        _, answers = self.driver.alternate(["ours grpo", *(side for side, _ in peers.values())])
        what = f"GRPO step, {size.prompts} prompts x {size.generations}"
        seconds = {name: [a["seconds"] for a in given] for name, given in answers.items()}
        for peer, (side, at_least) in peers.items():
            self._add("grpo", what, peer, "s", seconds["ours grpo"], seconds[side], at_least, more_is_better=False)
        written = {name: statistics.mean(a["completion_tokens"] for a in given) for name, given in answers.items()}
        for peer, (side, _) in peers.items():
            # Sides sample different completions: their lengths agree only on average.
            difference = abs(written[side] / written["ours grpo"] - 1)
            self.checks.append(Check("grpo", f"mean length of completions, ours and {peer}, relative", difference, 0.2))

    def evaluate(self) -> None:
        size = self._size
        peers = {
            "stock, one at a time": ("stock evaluate-alone", size.alone, 25.0),
            "stock Sampler, same batch": ("stock evaluate-batch", size.questions, 1.5),
        }
        _, answers = self.driver.alternate(["ours evaluate", *(side for side, *_ in peers.values()), "limit"])
        ours = answers["ours evaluate"]
        rates = [size.questions / a["seconds"] for a in ours]
        for peer, (side, asked, at_least) in peers.items():
            theirs = [asked / a["seconds"] for a in answers[side]]
            self._add(
                "evaluate", f"evaluation, {size.questions} questions", peer, "questions/s", rates, theirs, at_least
            )
            texts = answers[side][0]["texts"]
            unequal = sum(a != b for a, b in zip(ours[0]["texts"], texts, strict=False))
            self.checks.append(Check("evaluate", f"completions unequal to those of {peer}", unequal / len(texts), 0.0))
        prompts = [len(row["tokens"]) for row in self._work["questions"]]
        used = [limit.decoding_flops(self._config, prompts, a["tokens"]) / a["seconds"] for a in ours]
        self._share("evaluate", "evaluation", used, answers["limit"], None)

    def start(self) -> None:
        """From the start of the process to the end of its first step, with an empty and a filled cache of programs."""
        for what in ("sft", "grpo"):
            first, second = [], []
            with tempfile.TemporaryDirectory() as filled:
                self._first_step(what, Path(filled))
                for number in range(self.driver.runs):
                    with tempfile.TemporaryDirectory() as empty:
                        first.append(self._first_step(what, Path(empty)))
                    second.append(self._first_step(what, Path(filled)))
                    self._say(
                        f"  run {number + 1} of {self.driver.runs}: {what} {first[-1]:.1f} s, then {second[-1]:.1f} s"
                    )
            self._add(
                "start", f"first step of {what}", "itself, no cache", "s", second, first, 2.5, more_is_better=False
            )

    def _first_step(self, what: str, cache: Path) -> float:
        started = time.perf_counter()
        side = self.driver.side(
            f"ours {what}", JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0"
        )
        side.ready()
        side.step()
        seconds = time.perf_counter() - started
        side.close()
        return seconds

    def _add(self, part: str, what: str, peer: str, unit: str, ours: Sequence[float], theirs: Sequence[float],
             at_least: float | None, *, more_is_better: bool = True) -> None:  # fmt: skip
        row = figure(part, what, peer, unit, ours, theirs, at_least=at_least, more_is_better=more_is_better)
        self.figures.append(row)
        self._say(f"  {peer}: {row.ratio:g} times ({row.low:g} to {row.high:g})")

    def _share(self, part: str, what: str, used: Sequence[float], limits: Sequence[dict[str, Any]],
               at_least: float | None) -> None:  # fmt: skip
        ours, theirs = [value / 1e9 for value in used], [a["flops_per_second"] / 1e9 for a in limits]
        self._add(part, f"{what}, share of float32 matmul", "the limit", "GFLOP/s", ours, theirs, at_least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, by commas: {', '.join(PARTS)}")
    parser.add_argument("--size", choices=material.SIZES, default="full")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--gsm8k", type=Path, help="GSM8K's train.jsonl for the SFT rows; else generated problems")
    parser.add_argument("--no-trl", action="store_true", help="leave out TRL, and its environment")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the file")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only: no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    gsm8k = arguments.gsm8k or (GSM8K if GSM8K.exists() else None)

    console, started = Console(stderr=True), time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - started:5.0f} s] {text}", markup=False, highlight=False)

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    say(f"SFT rows from {gsm8k.resolve()}" if gsm8k else "no GSM8K file: SFT rows from generated problems")
    folder = material.prepare(material.SIZES[arguments.size], gsm8k)
    trl = None if arguments.no_trl else environment.python(material.SCRATCH / "trl-venv", say)
    bench = Bench(Driver(folder, runs=arguments.runs, trl=trl, say=say))
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
