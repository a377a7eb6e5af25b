"""The parts of the bench on the tiny model: every side beside all of its peers, and the machine's limit."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import limit, material
from bench.compare import Check, Driver, Figure, figure
from showwork.files import read_json

LOSS_TOLERANCE = 1e-4


class Bench:
    """The parts, over one folder of material."""

    names = ("limit", "sft", "grpo", "evaluate", "start")
    warm_up = 2  # rounds that are not counted: compilation, and shapes that first occur in the second step

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
