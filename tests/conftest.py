"""Fixtures of the command-line tests."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from showwork import cli, presets


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
