"""One line of progress on standard error, with time left."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Steps:
    """A progress bar in a terminal; elsewhere an occasional line, so that logs stay readable."""

    def __init__(self, name: str, total: int, *, every_seconds: float = 15.0):
        self._name, self._total, self._every = name, total, every_seconds
        self._console = Console(stderr=True)
        self._started = self._last = time.monotonic()
        self._first: int | None = None
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(name, total=total, note="")
            self._bar.start()

    def update(self, done: int, note: str = "") -> None:
        """Reports that `done` of `total` units are finished, with a note such as the loss."""
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        if now - self._last >= self._every or done == self._total:
            self._last = now
            passed = done - self._first
            left = f", {(now - self._started) / passed * (self._total - done):.0f} s left" if passed else ""
            print(f"{self._name}: {done}/{self._total}{left}  {note}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
