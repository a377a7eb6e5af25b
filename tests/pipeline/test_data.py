"""The stages ingest and clean, one after the other in an empty folder, on a CSV of basic maths."""

import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from showwork import presets
from showwork.files import read_json, read_jsonl
from showwork.problems import styles
from showwork.reading.answers import extract_answer, matches_format
from showwork.reading.dual import parse_monologue
from showwork.records import Problem
from showwork.sources import generator
from tests.pipeline.effects import ROOT

TABLE = Path("data/source/maths.csv")
ROWS = """question,answer,reasoning,calc_expr
"What is 7 times 8, then?",56,I multiply.,7*8
What is 30 less 4?,26,That is 30-4 = 26.,30-4 = 26
What is 2 and 2?,5,I add.,2+2
What is 9 and 9?
"""
SOURCES: dict[str, dict[str, Any]] = {
    "generated": {"source": "generated", "seed": 0, "train_rows": 20, "test_rows": 5, "shifted_rows": 0,
                  "difficulty": "easy"},
    "held out": {"source": "jsonl", "train_files": ["data/source/train.jsonl"], "test_files": [], "hold_out_rows": 5},
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    TABLE.parent.mkdir(parents=True)
    TABLE.write_text(ROWS, "utf-8")
    rows = generator.generate(seed=1, train_rows=25, test_rows=0, difficulty="easy")["train"]
    (TABLE.parent / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))  # no newline at its end
    return tmp_path


def run(data: dict[str, Any]) -> Any:
    """Runs both stages with this data section; the metrics of clean."""
    values = presets.values("tiny")
    values["data"], values["clean"]["validation_rows"] = data, 2
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(values, file)
    for stage in ("ingest", "clean"):
        runpy.run_path(str(ROOT / "stages" / f"{stage}.py"))["main"]()
    return read_json(Path("results/metrics/clean.json"))


@pytest.mark.parametrize("source", SOURCES)
def test_its_rows_are_cleaned_with_those_of_train_and_taught(project: Path, source: str) -> None:
    metrics = run({**SOURCES[source], "basic_maths_files": [str(TABLE)]})
    # 20 rows of the source, then the four of the table, of which the last two are rejected.
    assert metrics["train"]["read"] == 24
    assert metrics["train"]["reasons"] == {"missing_field": 1, "annotation_does_not_compute": 1}
    assert metrics["test"]["read"] == 5
    rejected = [(row["split"], row["row"], row["reason"]) for row in read_jsonl(Path("data/clean/rejected.jsonl"))]
    assert rejected == [("train", 23, "annotation_does_not_compute"), ("train", 24, "missing_field")]
    assert metrics["provenance"]["basic_maths"]["files"] == [
        {
            "path": "data/source/maths.csv",
            "sha256": hashlib.sha256(ROWS.encode()).hexdigest(),
            "rows": 4,
            "bytes": len(ROWS),
        }
    ]

    taught = [
        Problem.from_json(row) for split in ("train", "val") for row in read_jsonl(Path(f"data/clean/{split}.jsonl"))
    ]
    found = {problem.question: problem for problem in taught if problem.question.startswith("What is")}
    times, less = found["What is 7 times 8, then?"], found["What is 30 less 4?"]
    assert styles.render(times, "dual") == (
        "<reasoning>\n"
        "Plan: multiply\n"
        "Reasoning: I multiply.\n7*8 = 56\n"
        "Evidence:\nCALC: 7*8 = 56\n"
        "Sanity_check: 56/8 = 7\n"
        "</reasoning>\n<answer>56</answer>"
    )
    for problem in (times, less):
        for style in ("dual", "dual_at_once", "equations", "words", "at_once"):
            text = styles.render(problem, style)
            assert matches_format(text)
            assert extract_answer(text) == problem.answer
    assert parse_monologue(styles.render(less, "dual_at_once")).conclusion == "26"


def test_without_one_nothing_is_added(project: Path) -> None:
    metrics = run({**SOURCES["generated"], "basic_maths_files": []})
    assert (metrics["train"]["read"], metrics["train"]["rejected"]) == (20, 0)
    assert set(metrics["provenance"]) == {"source", "train", "test", "families", "numbers"}
