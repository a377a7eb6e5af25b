"""Fixtures of the command-line tests, and the end of a module's compiled programs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from showwork import cli, presets


@pytest.fixture(autouse=True, scope="module")
def compiled_programs() -> Iterator[None]:
    """Drops them after each module: each takes a hundred memory maps, of which a process has 65,530 at most."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the default's params.yaml; the process works in it."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    Path("params.yaml").write_text(presets.text("tiny"), "utf-8")
    return tmp_path


def invoke(*arguments: str) -> str:
    """The output of a command, which must succeed."""
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
