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
NO_FILES: dict[str, Any] = {"basic_maths_files": [], "second_test_files": []}


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
    values["data"], values["clean"]["validation_rows"] = NO_FILES | data, 2
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
    metrics = run(SOURCES["generated"])
    assert (metrics["train"]["read"], metrics["train"]["rejected"]) == (20, 0)
    assert set(metrics["provenance"]) == {"source", "train", "test", "shifted"}
    assert metrics["shifted"] == metrics["provenance"]["shifted"] == {}
    assert not list(read_jsonl(Path("data/clean/shifted.jsonl")))


@pytest.mark.parametrize("source", SOURCES)
def test_files_are_a_second_test_set_under_their_own_names(project: Path, source: str) -> None:
    """After the generator's parts, in the order given: cleaned as any row, and kept out of train."""
    run(SOURCES[source])
    taught = Problem.from_json(next(read_jsonl(Path("data/clean/train.jsonl"))))
    old = {"question": taught.question, "answer": f"{taught.reasoning}\n#### {taught.answer}"}
    new = {"question": "What is 7 times 8, then?", "answer": "I multiply: 7*8 = <<7*8=56>>56\n#### 56"}
    Path("data/source/GSM8K-test.jsonl").write_text(f"{json.dumps(old)}\n{json.dumps(new)}\nbroken\n", "utf-8")
    Path("data/source/own.jsonl").write_text(json.dumps(new | {"answer": "56 or so\n#### 56.0"}), "utf-8")
    files = ["data/source/GSM8K-test.jsonl", "data/source/own.jsonl"]
    own = {"shifted_rows": 3} if source == "generated" else {}
    metrics = run({**SOURCES[source], **own, "second_test_files": files})
    made = ["families", "families", "numbers"] if own else []
    second = [Problem.from_json(row) for row in read_jsonl(Path("data/clean/shifted.jsonl"))]
    assert [problem.id.split("-")[0] for problem in second] == [*made, "gsm8k_test", "gsm8k_test", "own"]
    assert [problem.answer for problem in second][-2:] == ["56", "56"]
    counts = {name: (part["read"], part["rejected"]) for name, part in metrics["shifted"].items()}
    assert counts == ({"families": (2, 0), "numbers": (1, 0)} if own else {}) | {"gsm8k_test": (3, 1), "own": (1, 0)}
    assert metrics["rows"]["shifted"] == len(second)
    assert metrics["provenance"]["shifted"]["own"]["files"][0]["path"] == "data/source/own.jsonl"
    rejected = [(row["split"], row["row"], row["reason"]) for row in read_jsonl(Path("data/clean/rejected.jsonl"))]
    assert ("gsm8k_test", 3, "broken_json") in rejected
    kept = [row["question"] for name in ("train", "val") for row in read_jsonl(Path(f"data/clean/{name}.jsonl"))]
    assert taught.question not in kept
    assert metrics["leaks"] == {"exact": 1, "near": 0, "dropped": True}
