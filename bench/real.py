"""The parts of the bench on a published model: ours beside one peer at a time, and the peak memory of each.

All sides at once would not fit into a laptop's memory. Where a peer is measured in two dtypes, or packed and padded,
the goal is against the fastest of them; the others' figures are in the file too.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bench.compare import Check, figure
from bench.parts import LOSS_TOLERANCE, Bench

DTYPES = ("float32", "bfloat16")
LOSS_TOLERANCE_BFLOAT16 = 2e-2
# Sides round differently: where two tokens are nearly as likely, the texts part.
UNEQUAL_TEXTS = 0.1
PEER_BYTES = 12e9  # what a peer may take
# Times as long as the fastest of the earlier peers: then one step is enough of a peer.
SLOWER = 1.3
STOCK = {"sft": "stock sft-longest", "evaluate": "stock evaluate-batch"}

Answer = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """Of a part: how many times as fast as the fastest peer, and the most memory of ours."""

    part: str
    what: str
    unit: str
    at_least: float
    most_bytes: float | None


class Said(NamedTuple):
    """By one side."""

    side: str
    facts: dict[str, Any]
    """Before its first step; "first" is what it said after that."""
    answers: list[Answer]
    """After each step that counts."""


def median_seconds(side: Said) -> float:
    return statistics.median(answer["seconds"] for answer in side.answers)


class RealBench(Bench):
    """The same work as Bench's, with Gemma 3 270M or another published model."""

    names = ("limit", "sft", "grpo", "evaluate")
    warm_up = 1

    def sft(self) -> None:
        rows, size = self._work["sft"], self._size
        trained = sum(sum(row["trained"]) for row in rows)
        what = f"SFT, {len(rows)} rows of {self._work['sft_source']} in {size.sft_packed_rows} of {size.sft_max_tokens}"
        peers = self._peers("TRL, packing", "sft-packed") | self._peers("TRL, padded", "sft-longest")
        peers["stock, padded to the longest"] = STOCK["sft"]
        goal = Goal("sft", what, "trained tokens/s", 3.0, 7e9)
        measured = self._measure(goal, peers, lambda answer: trained / answer["seconds"])
        for peer, (ours, theirs) in measured.items():
            difference = abs(theirs.facts["loss"] - ours.facts["first"]["loss"])
            allowed = LOSS_TOLERANCE_BFLOAT16 if "bfloat16" in peer else LOSS_TOLERANCE
            self.checks.append(Check("sft", f"loss of the first step, ours and {peer}", difference, allowed))

    def grpo(self) -> None:
        size = self._size
        what = f"GRPO step, {size.prompts} prompts x {size.generations}, LoRA of rank {size.lora_rank}"
        goal = Goal("grpo", what, "s", 2.0, 4e9)
        measured = self._measure(goal, self._peers("TRL", "grpo"), lambda answer: answer["seconds"])
        for peer, sides in measured.items():
            ours, theirs = (statistics.mean(a["completion_tokens"] for a in side.answers) for side in sides)
            what = f"mean length of completions, ours and {peer}, relative"
            self.checks.append(Check("grpo", what, abs(theirs / ours - 1), 0.2))

    def evaluate(self) -> None:
        size = self._size
        what = f"evaluation, {size.questions} questions x {size.max_completion_tokens} tokens"
        goal = Goal("evaluate", what, "tokens/s", 1.5, None)
        peers = self._peers("transformers' generate", "evaluate") | {"stock Sampler, same batch": STOCK["evaluate"]}
        measured = self._measure(goal, peers, lambda answer: answer["tokens"] / answer["seconds"])
        for peer, sides in measured.items():
            if "bfloat16" not in peer:
                ours, theirs = (side.answers[0]["texts"] for side in sides)
                unequal = sum(a != b for a, b in zip(ours, theirs, strict=True))
                share = unequal / size.questions
                self.checks.append(Check("evaluate", f"completions unequal to those of {peer}", share, UNEQUAL_TEXTS))

    def _peers(self, name: str, what: str) -> dict[str, str]:
        """Name of a peer → side, in each dtype."""
        return {f"{name}, {dtype}": f"trl_side {what} {dtype}" for dtype in DTYPES} if self.driver.trl else {}

    def _measure(self, goal: Goal, peers: dict[str, str], value: Callable[[Answer], float]) -> dict[str, list[Said]]:
        """Steps ours beside one peer after the other, or alone where there is none, and adds their figures.

        A peer whose first step is much slower than an earlier peer's takes no other, and no further peer of its dtype
        is measured. Peer → what ours said, and what the peer did. value is the figure's, of one answer.
        """
        ours = f"ours {goal.part}"
        measured: dict[str, list[Said]] = {}
        slow: set[str] = set()
        for peer, side in (peers or {"itself": ours}).items():
            dtype = side.split()[-1]
            if dtype in slow:
                continue
            if measured:
                # A first step of JAX compiles; torch's is hardly slower than those after it.
                alone = Said(side, *self.driver.once(side, warm_up=int(side in STOCK.values())))
                theirs = [median_seconds(sides[1]) for sides in measured.values()]
                if median_seconds(alone) > SLOWER * min(theirs):
                    measured[peer] = [next(iter(measured.values()))[0], alone]
                    slow.add(dtype)
                    continue
            said, answers = self.driver.alternate([*dict.fromkeys((ours, side))])
            measured[peer] = [Said(name, said[name], answers[name]) for name in (ours, side)]
        self._add_times(goal, measured, value)
        self._add_memory(goal, measured)
        return measured if peers else {}

    def _add_times(self, goal: Goal, measured: dict[str, list[Said]], value: Callable[[Answer], float]) -> None:
        """The goal is that of the figure with the least ratio, which is the fastest peer's; stock Tunix has none."""
        rows = []
        for peer, sides in measured.items():
            ours, theirs = ([value(answer) for answer in side.answers] for side in sides)
            if len(theirs) < len(ours):
                ours = [statistics.median(ours)]
            row = figure(
                goal.part, goal.what, peer, goal.unit, ours, theirs, at_least=None, more_is_better=goal.unit != "s"
            )
            rows.append(row)
        others = [row for row in rows if measured[row.peer][1].side not in STOCK.values()]
        fastest = min(others, key=lambda row: row.ratio, default=None)
        self.figures += [replace(row, at_least=goal.at_least) if row is fastest else row for row in rows]
        for row in rows:
            self._say(f"  {row.peer}: {row.ratio:g} times ({row.low:g} to {row.high:g})")

    def _add_memory(self, goal: Goal, measured: dict[str, list[Said]]) -> None:
        """Peak resident memory of the processes, their start and all of their steps included."""
        what, memory = f"peak memory of {goal.part}", {}
        for peer, sides in measured.items():
            memory[peer] = [max(answer["peak_bytes"] for answer in side.answers) / 1e9 for side in sides]
        most = max(ours for ours, _ in memory.values())
        if goal.most_bytes:
            row = figure(
                goal.part, what, "the most allowed", "GB", [most], [goal.most_bytes / 1e9], at_least=1.0,
                more_is_better=False,
            )  # fmt: skip
            self.figures.append(row)
        for peer, (ours, theirs) in memory.items():
            if peer != "itself":
                row = figure(goal.part, what, peer, "GB", [ours], [theirs], at_least=None, more_is_better=False)
                self.figures.append(row)
                self.checks.append(Check(goal.part, f"{what}, {peer}, in GB", theirs, PEER_BYTES / 1e9))
