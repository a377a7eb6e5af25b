"""The pipeline under DVC, on the smoke preset: what reruns, what repeats, what resumes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from showwork.config import ARMS
from tests.slow.conftest import EVALUATIONS, Project

pytestmark = pytest.mark.slow

GSM8K = Path(__file__).parents[2] / ".." / "shared" / "gsm8k" / "train.jsonl"
AFTER_GRPO = {"grpo", "evaluate@grpo", "report"}
AFTER_SFT = {"sft", "evaluate@sft", "trajectory", "evaluate@trajectory", *AFTER_GRPO}
REWARDED = {"grpo", "trajectory", "dsa_cast"}


def test_a_second_repro_does_nothing(project: Project) -> None:
    assert project.repro() == set()
    assert "up to date" in project.run("dvc", "status")


@pytest.mark.parametrize(
    ("name", "old", "new", "reruns"),
    [
        ("params.yaml", "beta: 0.02", "beta: 0.03", AFTER_GRPO),
        ("src/showwork/rewards/basic.py", "found = find_equations", "found  = find_equations", REWARDED),
        ("pyproject.toml", "# The bounds", "# the bounds", set()),
        ("params.yaml", "samples: 2", "samples: 3", {*EVALUATIONS, "report"}),
        ("params.yaml", "  steps: 6", "  steps: 5", AFTER_SFT),
        ("params.yaml", "\nseed: 0\n", "\nseed: 1\n", {*ARMS, *EVALUATIONS, "report"}),
    ],
    ids=["beta", "reward", "comment", "samples", "sft-steps", "seed"],
)
def test_an_edit_reruns_what_it_affects_and_no_more(
    project: Project, name: str, old: str, new: str, reruns: set[str]
) -> None:
    project.edit(name, old, new)
    try:
        ran = project.repro()
    finally:
        project.edit(name, new, old)
    # A reward that scores the same makes the same model, and DVC then stops before its evaluation.
    assert ran == reruns
    # Back again, everything comes from DVC's run cache; the report, which git keeps and the cache does not, is quick.
    assert project.repro() <= {"report"}


def test_two_runs_in_different_folders_agree_byte_for_byte(project: Project, tmp_path: Path) -> None:
    project.repro()
    other = Project(tmp_path / "there" / "deeper")
    other.repro()
    ours, theirs = (p.files("results", "models", "data/clean") for p in (project, other))
    timed = {"results/report.md", "results/report.html", *(name for name in ours if name.startswith("results/costs/"))}
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if name not in timed and ours[name] != theirs[name]] == []


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_killed_stage_goes_on_and_ends_in_the_same_bytes(project: Project, stage: str) -> None:
    project.repro()
    whole = project.files(f"models/{stage}", "results/plots", "results/metrics/train", "results/samples")
    command = ["python", f"stages/{'sft' if stage == 'sft' else 'rl'}.py", stage]
    running = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    kept = project.folder / ".scratch" / stage
    deadline = time.monotonic() + 240
    # Orbax names a finished checkpoint by its step alone; one under way has a longer name.
    while not any(path.name.isdigit() for path in kept.glob("*/state/**/*") if path.is_dir()):
        assert time.monotonic() < deadline, "no checkpoint came"
        assert running.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    curve = next(kept.glob("*/curve.csv")).read_text().splitlines()
    project.run(*command)
    again = project.files(f"models/{stage}", "results/plots", "results/metrics/train", "results/samples")
    assert [name for name in whole if whole[name] != again[name]] == []
    assert len(curve) < len(whole[f"results/plots/{stage}.csv"].decode().splitlines()), "it was killed after the end"


def test_an_edit_of_a_csv_brings_its_rows_in(tmp_path: Path) -> None:
    project = Project(tmp_path / "maths")
    table = project.folder / "data/source/maths.csv"
    table.write_text("question,answer,reasoning,calc_expr\nWhat is 7 times 8?,56,I multiply.,7*8\n", "utf-8")
    project.edit("params.yaml", "basic_maths_files: []", "basic_maths_files: [data/source/maths.csv]")
    assert project.repro("clean") == {"ingest", "clean"}
    assert project.repro("clean") == set()
    project.edit("data/source/maths.csv", "I multiply.", "Times.")
    assert project.repro("clean") == {"ingest", "clean"}
    taught = project.files("data/clean")
    assert b"Times.\\n7*8 = 56" in taught["data/clean/train.jsonl"] + taught["data/clean/val.jsonl"]


def test_dvc_shows_and_compares(project: Project) -> None:
    project.repro()
    project.run("dvc", "exp", "run", "-S", "grpo.beta=0.1", "-n", "strong")
    assert "grpo.beta" in project.run("dvc", "params", "diff", "--md")
    assert "strong" in project.run("dvc", "exp", "show", "--csv", "--no-pager")
    assert "results" in project.run("dvc", "metrics", "diff", "HEAD", "--all", "--md")
    assert "reward" in project.run("dvc", "plots", "show", "--json")
    project.run("git", "checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-q")


def test_a_broken_params_file_ends_the_run_before_any_work(project: Project) -> None:
    project.edit("params.yaml", "  beta:", "  betaa:")
    try:
        said = project.run("python", "stages/rl.py", "grpo", code=2)
    finally:
        project.edit("params.yaml", "  betaa:", "  beta:")
    assert "params.yaml: grpo.betaa is unknown; did you mean beta?" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not here")
def test_gsm8k_runs_from_ingest_to_report(tmp_path: Path) -> None:
    project = Project(tmp_path / "gsm8k")
    rows = [line for line in GSM8K.read_text("utf-8").splitlines() if len(line) < 600][:400]
    (project.folder / "data/source/train.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    old = (project.folder / "params.yaml").read_text("utf-8")
    start, end = old.index("data:"), old.index("clean:")
    source = (
        "data:\n  source: jsonl\n  train_files: [data/source/train.jsonl]\n  test_files: []\n  hold_out_rows: 40\n"
        "  basic_maths_files: []\n\n"
    )
    wider = old[:start] + source + old[end:]
    for name in ("max_tokens: 320", "max_prompt_tokens: 256"):
        wider = wider.replace(name, f"{name.split(':')[0]}: 512")
    (project.folder / "params.yaml").write_text(wider, "utf-8")
    assert "report" in project.repro()
    clean = json.loads((project.folder / "results/metrics/clean.json").read_text())
    assert clean["train"]["read"] + clean["test"]["read"] == 400
    assert clean["gold_accept_rate"] == 1.0
    assert json.loads((project.folder / "results/metrics/eval/grpo.json").read_text())["n"] == 40
