"""Published weights under DVC: other ones under the same name rerun what follows from them, and nothing else does."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.slow.conftest import Project
from tests.weights import made

pytestmark = pytest.mark.slow


def test_other_weights_under_the_same_name_rerun_what_follows(tmp_path: Path) -> None:
    project, weights = Project(tmp_path / "project"), tmp_path / "gemma.gguf"
    models = [made.write(made.folder(tmp_path / f"gemma{i}", seed=i), tmp_path / f"{i}.gguf") for i in range(2)]
    shutil.copy(models[0], weights)
    path = project.folder / "params.yaml"
    values = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    values["base"] = {"weights": "gguf:../gemma.gguf", "drills": None}
    values["model"]["name"] = "gemma3_test"
    YAML().dump(values, path)
    assert project.repro("base") == {"code", "ingest", "clean", "weights", "tokenizer", "base"}
    assert project.repro("base") == set()
    assert "up to date" in project.run("dvc", "status", "base")
    before = project.files("models/base")["models/base/model.safetensors"]

    # Of the same size, written over the old one; then the old one again, in another file.
    assert models[1].stat().st_size == weights.stat().st_size
    shutil.copy(models[1], weights)
    assert "results/weights" in project.run("dvc", "status", "weights")
    assert project.repro("base") == {"weights", "tokenizer", "base"}
    assert project.files("models/base")["models/base/model.safetensors"] != before
    models[0].replace(weights)
    assert {"weights"} <= project.repro("base") <= {"weights", "tokenizer", "base"}
    assert project.files("models/base")["models/base/model.safetensors"] == before
    weights.touch()
    assert project.repro("base") == set()

    # Moved away: DVC stops at the link, and the doctor says why. It goes on once params.yaml says where it is.
    weights.rename(tmp_path / "moved.gguf")
    project.run("dvc", "repro", "base", code=255)
    assert "results/weights/gemma.gguf is a link to" in project.run("showwork", "doctor", code=1)
    project.edit("params.yaml", "gguf:../gemma.gguf", "gguf:../moved.gguf")
    assert "base" in project.repro("base")
    assert project.files("models/base")["models/base/model.safetensors"] == before
