"""A git repository with made-up results and no pipeline, for the commands that read a project."""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

IDENTITY = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def md5(content: str) -> str:
    return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()


class Repository:
    """The current folder. write_results writes results, commit records them."""

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str = "state") -> str:
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, content: str) -> str:
        """Returns the content's md5."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode())
        return md5(content)

    def write_results(
        self,
        columns: Mapping[str, str],
        *,
        ids: Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        stages: Mapping[str, Any] | None = None,
        seconds: float = 60.0,
    ) -> None:
        """columns maps an arm to its outcomes, such as "1011"; stages are those of dvc.lock."""
        n = len(next(iter(columns.values())))
        ids = ids or [f"test-{row:05d}" for row in range(1, n + 1)]
        rows = [",".join([i, *(outcomes[row] for outcomes in columns.values())]) for row, i in enumerate(ids)]
        self.write("results/outcomes.csv", "\n".join([",".join(["id", *columns]), *rows]) + "\n")
        for arm, outcomes in columns.items():
            metrics = {
                "n": n, "accuracy": outcomes.count("1") / n, "accuracy_flexible": 0.75, "format_rate": 0.5,
                "faithful_rate": 0.25, "truncated_rate": 0.0, "completion_tokens_mean": 30.0,
            }  # fmt: skip
            self.write(f"results/metrics/eval/{arm}.json", json.dumps(metrics))
            self.write(f"results/metrics/train/{arm}.json", json.dumps({"train_tokens": 1000, "sampled_tokens": 0}))
            self.write(f"results/costs/{arm}.json", json.dumps({"seconds": seconds, "hardware": "2 cores"}))
        self.write("params.yaml", json.dumps(params or {"seed": 0}))
        self.write("dvc.lock", json.dumps({"schema": "2.0", "stages": stages or {}}))

    def cache(self, content: str) -> str:
        """Puts a file into DVC's cache; returns its md5."""
        key = md5(content)
        return self.write(f".dvc/cache/files/md5/{key[:2]}/{key[2:]}", content)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Empty, and the process works in it."""
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = Repository()
    made.git("init", "--quiet", "--initial-branch", "main")
    return made
