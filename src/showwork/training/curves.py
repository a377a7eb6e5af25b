"""Training curves as CSV, written while training runs and cut back when it resumes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from showwork.files import csv_line, read_csv, write_bytes, write_csv


class Curve:
    """One row a step, in the plot that people watch and, for resuming, in the scratch folder.

    DVC deletes a stage's outs before it runs it, so the plot alone could not survive an interruption.
    """

    def __init__(self, plot: Path, kept: Path, columns: Sequence[str]):
        self._plot, self._kept, self._columns = plot, kept, ("step", *columns)
        self.rows: list[dict[str, Any]] = []

    def start(self, *, step: int) -> None:
        """Begins after `step` optimizer steps: what was written beyond them will be made again."""
        kept = read_csv(self._kept) if self._kept.exists() else []
        self.rows = [row for row in kept if int(row["step"]) <= step]
        self._write_all()

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Sets values of a step; a new step becomes a new last row."""
        unknown = set(values) - set(self._columns)
        if unknown:
            raise ValueError(f"no such columns: {sorted(unknown)}")
        if self.rows and int(self.rows[-1]["step"]) == step:
            self.rows[-1].update(values)
            self._write_all()
            return
        self.rows.append({"step": step, **values})
        line = csv_line(self.rows[-1].get(column) for column in self._columns)
        for path in (self._kept, self._plot):
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def last(self, column: str, default: float = 0.0) -> float:
        """The newest value of a column that is not empty, as the file has it: a resumed run reads the same."""
        for row in reversed(self.rows):
            if row.get(column) not in (None, ""):
                return float(csv_line([row[column]]))
        return default

    def _write_all(self) -> None:
        write_csv(self._kept, self._columns, self.rows)
        write_bytes(self._plot, self._kept.read_bytes())
