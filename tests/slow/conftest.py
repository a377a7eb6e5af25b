"""A copy of the project with the smoke preset, in which dvc runs as for a user."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from showwork import presets

PROGRAMS = Path(tempfile.mkdtemp(prefix="showwork-programs-"))
ROOT = Path(__file__).parents[2]
PARAMS = presets.load("smoke")
TRAINED = {arm.name: f"{arm.kind}@{arm.name}" for arm in PARAMS.arms.values() if arm.kind != "base"}
EVALUATED = {arm: "evaluate_base" if arm == "base" else f"evaluate_{TRAINED[arm]}" for arm in PARAMS.arms}
TRAINING, EVALUATIONS = {"base", *TRAINED.values()}, set(EVALUATED.values())
COPIED = (
    "rewards",
    "src",
    "stages",
    "data/source",
    "dvc.yaml",
    "pyproject.toml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/plots",
    "results/seeds.csv",
)


class Project:
    """A checkout of its own in a temporary folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, target)
        (folder / "params.yaml").write_text(presets.text("smoke"), "utf-8")
        for command in ("git init -q", "git add -A", "git -c user.name=t -c user.email=t@t commit -q -m start"):
            subprocess.run(command.split(), cwd=folder, check=True)

    @property
    def environment(self) -> dict[str, str]:
        # The copy's own package, not the installed one; `python` is the one that runs the tests.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        # All copies share their compiled programs: compilation is most of what these tests cost.
        programs = {"JAX_COMPILATION_CACHE_DIR": str(PROGRAMS), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return {**os.environ, **identity, **programs, "PATH": path, "PYTHONPATH": str(self.folder / "src")}

    def run(self, *command: str, code: int = 0) -> str:
        """Output of a command; fails the test if its exit code is another."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def repro(self, *arguments: str) -> set[str]:
        """The stages that `dvc repro` ran."""
        return set(re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments)))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replaces the first occurrence in a file; the text must be there."""
        path = self.folder / name
        text = path.read_text("utf-8")
        assert old in text, f"{name} lacks {old!r}"
        path.write_text(text.replace(old, new, 1), "utf-8")

    def files(self, *folders: str) -> dict[str, bytes]:
        """Contents of all files below the folders, by relative path."""
        paths = [path for folder in folders for path in sorted((self.folder / folder).rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The smoke pipeline, run once from nothing and committed."""
    made = Project(tmp_path_factory.mktemp("project") / "here")
    ran = made.repro()
    assert ran == {"code", "ingest", "clean", "weights", "tokenizer", "report", *TRAINING, *EVALUATIONS}
    made.run("git", "add", "-A")
    made.run("git", "commit", "-q", "-m", "first run")
    return made


@pytest.fixture(scope="session", autouse=True)
def programs() -> Iterator[None]:
    yield
    shutil.rmtree(PROGRAMS, ignore_errors=True)
