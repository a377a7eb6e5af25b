"""examples/starter.ipynb, executed cell by cell in one namespace: six steps from nothing to submission.csv.

A few lines instead of Jupyter's runner, which would be a dependency for this test only.
"""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "examples" / "starter.ipynb"
STEPS = ["Config", "Data", "Model", "Train", "Infer", "submission.csv"]


def read() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text("utf-8"))


def code_cells() -> list[str]:
    return ["".join(cell["source"]) for cell in read()["cells"] if cell["cell_type"] == "code"]


def test_it_is_a_notebook_of_six_cells_without_outputs() -> None:
    notebook = read()
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        assert set(cell) == wanted
        assert "".join(cell["source"]).strip()
    titles = [source.split("\n")[0] for source in code_cells()]
    assert [title.partition(".")[2].partition(":")[0].strip() for title in titles] == STEPS


def test_it_ends_in_a_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for source, step in zip(code_cells(), STEPS, strict=True):
        exec(compile(source, f"starter.ipynb, {step}", "exec"), namespace)
    with Path("submission.csv").open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        rows = list(reader)
    assert reader.fieldnames == ["id", "output"]
    assert [row["id"] for row in rows] == [problem.id for problem in namespace["test"]]
    assert len(rows) == 64
    # Such a short run teaches at most the format; with a mistake in the recipe the output is noise.
    assert sum("<answer>" in row["output"] for row in rows) > 32
    assert [path.name for path in tmp_path.iterdir()] == ["submission.csv"]
    assert "submission.csv: 64 rows" in capsys.readouterr().out
