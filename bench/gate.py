"""Drives a side: a process of its own that takes one step on request and reports its duration.

Sides alternate, so that other load on the machine affects all of them alike; while one works, the others wait
on a pipe. Only the standard library is imported here: TRL's side runs in an environment without showwork.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Never

ROOT = Path(__file__).parents[1]


class Gate:
    """A side's end. Standard output carries the answers; what libraries print there goes to standard error."""

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._started = 0.0

    def wait(self, **facts: Any) -> None:
        """Reports facts of the work just done, with the seconds since the last wait and the peak resident memory of
        the process so far, and waits for the next request."""
        seconds = time.perf_counter() - self._started
        self._answers.write(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), **facts}) + "\n")
        self._answers.flush()
        if not sys.stdin.readline():
            self.leave()
        self._started = time.perf_counter()

    def leave(self) -> Never:
        # Trainers that are stopped in the middle would save, log and raise errors as they exit.
        os._exit(0)


class Side:
    """The bench's end: starts the process and requests its steps."""

    def __init__(self, name: str, command: list[str], *, log: Path, environment: dict[str, str] | None = None):
        self.name, self._log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", **(environment or {})},
        )  # fmt: skip

    def ready(self) -> dict[str, Any]:
        """The side's facts before its first step."""
        return self._answer()

    def step(self) -> dict[str, Any]:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}: {' '.join(last)} ({self._log})")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    # Linux lets a process inherit ru_maxrss from the one that started it; VmHWM is its own.
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def answer_reward(completion: str, gold: str) -> float:
    """The reward of all sides: 1 for the gold answer in its tags, and 0.1 for the tags."""
    found = re.search(r"<answer>([^<]*)</answer>", completion)
    return 0.1 * bool(found) + float(bool(found) and found.group(1).strip() == gold)
