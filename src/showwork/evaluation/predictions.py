"""An arm's scored answers to the test questions: the rows of results/predictions/ARM.jsonl."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from showwork.reading.completion import Reading, read


@dataclass(frozen=True)
class JudgedEquation:
    """An equation of a completion as it was written, and whether it is true."""

    expression: str
    value: str
    holds: bool


@dataclass(frozen=True)
class Sample:
    """A sampled completion; fields as in Prediction."""

    text: str
    answer: str | None
    correct: bool
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Probe:
    """The stored part of a completion's trace (`probes.Trace`), one entry per token, and which detectors fire."""

    tokens: tuple[str, ...]
    entropy: tuple[float, ...]
    logp: tuple[float, ...]
    settled: tuple[int, ...]
    detectors: Mapping[str, bool]


@dataclass(frozen=True)
class Prediction:
    """The greedy completion of a question, and its samples, if any. gold and answer are canonical decimals.

    tokens counts the end-of-sequence token; truncated: it reached the token limit. equations are those before the
    answer block. probe is None without a trace.
    """

    id: str
    question: str
    gold: str
    completion: str
    answer: str | None
    correct: bool
    tokens: int
    truncated: bool
    equations: tuple[JudgedEquation, ...] = ()
    samples: tuple[Sample, ...] = ()
    probe: Probe | None = None

    @cached_property
    def reading(self) -> Reading:
        return read(self.completion)

    def to_json(self) -> dict[str, Any]:
        row = _fields(self, "equations", "samples", "probe")
        row["equations"] = [_fields(equation) for equation in self.equations]
        row["samples"] = [_fields(sample) for sample in self.samples]
        if self.probe is not None:
            columns = {name: list(column) for name, column in _fields(self.probe, "detectors").items()}
            row["probe"] = {**columns, "detectors": dict(self.probe.detectors)}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Prediction":
        rest = {name: value for name, value in row.items() if name not in ("equations", "samples", "probe")}
        probe = None
        if "probe" in row:
            columns = {name: tuple(column) for name, column in row["probe"].items() if name != "detectors"}
            probe = Probe(**columns, detectors=row["probe"]["detectors"])
        return cls(
            **rest,
            equations=tuple(JudgedEquation(**equation) for equation in row["equations"]),
            samples=tuple(Sample(**sample) for sample in row["samples"]),
            probe=probe,
        )


def _fields(record: JudgedEquation | Sample | Probe | Prediction, *left_out: str) -> dict[str, Any]:
    """Fields in their order; not dataclasses.asdict, which would copy every token."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__ if name not in left_out}
