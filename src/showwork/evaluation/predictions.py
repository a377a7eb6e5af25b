"""An arm's scored answers to the test questions: the rows of results/predictions/ARM.jsonl."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from showwork.reading.completion import Reading, read

_NESTED = ("equations", "samples", "probe", "few_shot")  # fields of Prediction that are records themselves


@dataclass(frozen=True)
class JudgedEquation:
    """An equation of a completion as it was written, and whether it is true."""

    expression: str
    value: str
    holds: bool


@dataclass(frozen=True)
class Sample:
    """Another completion of the same question; fields as in Prediction."""

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
    answer block. probe is None without a trace, few_shot without the question asked after solved examples.
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
    few_shot: Sample | None = None

    @cached_property
    def reading(self) -> Reading:
        return read(self.completion)

    @property
    def is_flexibly_correct(self) -> bool:
        """Whether the completion's last number is the gold number, whatever its form."""
        return self.reading.is_flexibly_correct(self.gold)

    def to_json(self) -> dict[str, Any]:
        row = _fields(self, *_NESTED)
        row["equations"] = [_fields(equation) for equation in self.equations]
        row["samples"] = [_fields(sample) for sample in self.samples]
        if self.probe is not None:
            columns = {name: list(column) for name, column in _fields(self.probe, "detectors").items()}
            row["probe"] = {**columns, "detectors": dict(self.probe.detectors)}
        if self.few_shot is not None:
            row["few_shot"] = _fields(self.few_shot)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Prediction":
        rest = {name: value for name, value in row.items() if name not in _NESTED}
        probe = None
        if "probe" in row:
            columns = {name: tuple(column) for name, column in row["probe"].items() if name != "detectors"}
            probe = Probe(**columns, detectors=row["probe"]["detectors"])
        return cls(
            **rest,
            equations=tuple(JudgedEquation(**equation) for equation in row["equations"]),
            samples=tuple(Sample(**sample) for sample in row["samples"]),
            probe=probe,
            few_shot=Sample(**row["few_shot"]) if "few_shot" in row else None,
        )


def _fields(record: JudgedEquation | Sample | Probe | Prediction, *left_out: str) -> dict[str, Any]:
    """Fields in their order; not dataclasses.asdict, which would copy every token."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__ if name not in left_out}
