"""Training curves as CSV, written while training runs and cut back when it resumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from showwork.errors import UserError
from showwork.files import csv_line, read_csv, write_bytes, write_csv


class Curve:
    """One row per step, in the plot that people watch and, for resuming, in the scratch folder.

    DVC deletes a stage's outs before it runs it, so the plot alone would not survive an interruption. live is a folder
    that DVCLive writes the same values to; without one, DVCLive need not be installed.
    """

    def __init__(self, plot: Path, kept: Path, columns: Sequence[str], *, live: Path | None = None):
        self._plot, self._kept, self._columns = plot, kept, ("step", *columns)
        self._live = _open_live(live) if live else None
        self.rows: list[dict[str, Any]] = []

    def start(self, *, step: int) -> None:
        """Starts after `step` steps: rows beyond them are removed, as those steps will run again."""
        kept = read_csv(self._kept) if self._kept.exists() else []
        self.rows = [row for row in kept if int(row["step"]) <= step]
        self._write_all()
        for row in self.rows:
            self._log(int(row["step"]), row)

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Sets values of a step: of the last row, or of a new one."""
        unknown = set(values) - set(self._columns)
        if unknown:
            raise ValueError(f"no such columns: {sorted(unknown)}")
        if self.rows and int(self.rows[-1]["step"]) == step:
            self.rows[-1].update(values)
            self._write_all()
        else:
            self.rows.append({"step": step, **values})
            line = csv_line(self.rows[-1].get(column) for column in self._columns)
            for path in (self._kept, self._plot):
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)
        self._log(step, values)
        if self._live:
            self._live.next_step()  # makes DVC's extension for VS Code redraw its plots

    def last(self, column: str, default: float = 0.0) -> float:
        """The newest value of a column, rounded as in the file, so that a resumed run reads the same."""
        for row in reversed(self.rows):
            if row.get(column) not in (None, ""):
                return float(csv_line([row[column]]))
        return default

    def _write_all(self) -> None:
        write_csv(self._kept, self._columns, self.rows)
        write_bytes(self._plot, self._kept.read_bytes())

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if self._live:
            self._live.step = step
            for column, value in values.items():
                if column != "step" and value not in (None, ""):
                    self._live.log_metric(column, float(value))


def _open_live(folder: Path) -> Any:
    """DVCLive on an emptied folder: a resumed run logs its kept rows again, and none twice.

    It writes no dvc.yaml and saves no experiment. Raises UserError where the package is missing.
    """
    try:
        from dvclive import Live  # ty: ignore[import-not-found]  # an optional package
    except ImportError:  # or of Live alone: the folder of an earlier run, on the path, counts as a package
        raise UserError(
            "params.yaml: live is true, and DVCLive is not installed: `pip install dvclive`, or set live to false"
        ) from None
    return Live(str(folder), dvcyaml=None, save_dvc_exp=False)
