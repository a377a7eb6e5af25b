"""CI on a pull request: the workflow's structure, and .ci/compare on a made-up project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.commands.conftest import Repository
from tests.commands.test_seeds import PIPELINE, STAGE

ROOT = Path(__file__).parents[2]


def test_only_the_comment_may_write_and_a_fork_skips_it() -> None:
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/ci.yml")
    assert "pull_request" in workflow["on"]  # not pull_request_target, which would lend a fork the secrets
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert [name for name, job in jobs.items() if "permissions" in job] == ["comment"]
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    assert not any("checkout" in step.get("uses", "") for step in jobs["comment"]["steps"])
    assert "secrets." not in (ROOT / ".github/workflows/ci.yml").read_text()
    for job in jobs.values():
        for step in job["steps"]:
            command = step.get("run", "").split()[:1]
            assert not command or not command[0].startswith(".ci/") or os.access(ROOT / command[0], os.X_OK)


@pytest.mark.slow
def test_the_comparison_of_a_pull_request(repository: Repository) -> None:
    """A stand-in for the pipeline: the params decide the outcomes. The branch makes grpo worse, 4 of 40 right."""
    stage = STAGE.replace("range(4)", "range(40)").replace("int(i < seed)", "int(i < RIGHT + seed)")
    for right in ("30", "4"):
        repository.write("stages/all.py", stage.replace("RIGHT", right))
        if right == "30":
            Path(".ci").mkdir()
            shutil.copy(ROOT / ".ci/compare", ".ci/compare")
            Path(".venv").symlink_to(sys.prefix)
            subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
            repository.write("dvc.yaml", PIPELINE)
            repository.write(".gitignore", "/.venv\n")
            repository.write("params.yaml", (ROOT / "src/showwork/presets/tiny.yaml").read_text("utf-8"))
        subprocess.run([sys.executable, "stages/all.py"], check=True)
        repository.git("add", "--all")
        repository.git("commit", "--quiet", "--message", right)
    done = subprocess.run([".ci/compare", "HEAD^1", "out.md"], capture_output=True, text=True, check=False)
    text = Path("out.md").read_text("utf-8")
    assert done.returncode == 3, done.stderr
    committed, small = text.split("# The small pipeline")
    assert "| grpo | 75.0% | 10.0% | −65.0 |" in committed
    assert "Gate: worse: grpo" in committed
    assert "| grpo | 75.0% | 10.0% | −65.0 |" in small
    assert repository.git("worktree", "list").count("\n") == 0
    assert repository.git("status", "--porcelain") == "?? out.md"
