"""The inputs of the report, as the stage reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import pandas as pd

from showwork.arms import Arm
from showwork.evaluation.predictions import Prediction
from showwork.evaluation.scoring import Metrics
from showwork.records import Problem
from showwork.report import gains
from showwork.report.seed_table import SeedTable
from showwork.report.tables import Row, taught


class Cost(TypedDict):
    """The costs of a stage: results/costs/STAGE.json."""

    seconds: float
    peak_memory_bytes: int
    hardware: str


@dataclass(frozen=True)
class Results:
    """Mappings by arm are in the order of the arms, predictions in the order of problems.

    table is `arm_table`'s. plots holds results/plots/ARM.csv, an empty frame for an arm without a curve. costs go by
    stage. params are those to show; inputs maps a file to its md5, versions a package to its version. seeds is None
    without saved seeds.
    """

    arms: Mapping[str, Arm]
    table: pd.DataFrame
    metrics: Mapping[str, Metrics]
    predictions: Mapping[str, Sequence[Prediction]]
    problems: Sequence[Problem]
    plots: Mapping[str, pd.DataFrame]
    costs: Mapping[str, Cost]
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    seeds: SeedTable | None = None

    @property
    def has_curves(self) -> bool:
        return any(len(frame) for frame in self.plots.values())

    @cached_property
    def gained(self) -> list[Row]:
        """The parts of each arm's gain over its start; see gains.rows."""
        return gains.rows({arm.name: arm.start for arm in self.arms.values()}, self.predictions, self.problems)

    @cached_property
    def taught(self) -> list[str]:
        return taught(self.arms.values())
