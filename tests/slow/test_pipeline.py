"""The pipeline under DVC, on the smoke preset: reruns, reproducibility and resumption."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from showwork import presets
from tests.slow.conftest import EVALUATED, EVALUATIONS, TRAINED, TRAINING, Project

pytestmark = pytest.mark.slow

GSM8K = Path(__file__).parents[2] / ".." / "shared" / "gsm8k" / "train.jsonl"


def after(*arms: str) -> set[str]:
    """The stages that train and evaluate these arms, and the report."""
    return {"report", *(TRAINED[arm] for arm in arms), *(EVALUATED[arm] for arm in arms)}


def test_a_second_repro_does_nothing(project: Project) -> None:
    assert project.repro() == set()
    assert "up to date" in project.run("dvc", "status")


@pytest.mark.parametrize(
    ("name", "old", "new", "reruns"),
    [
        ("params.yaml", "beta: 0.02", "beta: 0.03", {"code", *after("grpo")}),
        ("params.yaml", "samples: 2", "samples: 3", {"code", "report", *EVALUATIONS}),
        ("params.yaml", "      steps: 6", "      steps: 5", {"code", *after("sft", "grpo", "trajectory")}),
        ("params.yaml", "\nseed: 0\n", "\nseed: 1\n", {"code", "report", *TRAINING, *EVALUATIONS}),
        ("params.yaml", "# devices", "# the devices", {"code"}),
        (
            "src/showwork/rewards/trajectory.py",
            "PROCESS, ANSWER =",
            "MORE = 1\nPROCESS, ANSWER =",
            {"code", "rl@trajectory"},
        ),
        ("src/showwork/training/rl.py", '"""', '"""Other words. ', {"code"}),
        ("src/showwork/errors.py", "class UserError", "MORE = 1\n\n\nclass UserError", {"code"}),
        ("src/showwork/report/templates/page.html", "<body", "<body ", {"code", "report"}),
        ("pyproject.toml", "# The bounds", "# the bounds", set()),
    ],
    ids=[
        "beta",
        "samples",
        "sft-steps",
        "seed",
        "params-comment",
        "reward",
        "docstring",
        "errors",
        "template",
        "pyproject",
    ],
)
def test_an_edit_reruns_what_it_affects_and_no_more(
    project: Project, name: str, old: str, new: str, reruns: set[str]
) -> None:
    project.edit(name, old, new)
    try:
        ran = project.repro()
    finally:
        project.edit(name, new, old)
    # A reward with the same scores gives the same model, so DVC skips its evaluation.
    assert ran == reruns
    # Back again, everything comes from DVC's run cache; the report, which git keeps and the cache does not, is quick.
    assert project.repro() <= {"code", "report"}


def test_two_runs_in_different_folders_agree_byte_for_byte(project: Project, tmp_path: Path) -> None:
    project.repro()
    other = Project(tmp_path / "there" / "deeper")
    other.repro()
    ours, theirs = (p.files("results", "models", "data/clean") for p in (project, other))
    timed = {"results/report.md", "results/report.html", *(name for name in ours if name.startswith("results/costs/"))}
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if name not in timed and ours[name] != theirs[name]] == []


def has_checkpoint(folder: Path) -> bool:
    """Orbax names a finished checkpoint by its step alone; one under way has a longer name, and its files go away."""
    try:
        return any(path.name.isdigit() for path in folder.glob("*/state/**/*") if path.is_dir())
    except FileNotFoundError:
        return False


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
    while not has_checkpoint(kept):
        assert time.monotonic() < deadline, "no checkpoint came"
        assert running.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    curve = next(kept.glob("*/records/curve.csv")).read_text().splitlines()
    project.run(*command)
    again = project.files(f"models/{stage}", "results/plots", "results/metrics/train", "results/samples")
    assert [name for name in whole if whole[name] != again[name]] == []
    assert len(curve) < len(whole[f"results/plots/{stage}.csv"].decode().splitlines()), "it was killed after the end"


def test_an_edit_of_a_csv_brings_its_rows_in(tmp_path: Path) -> None:
    project = Project(tmp_path / "maths")
    table = project.folder / "data/source/maths.csv"
    table.write_text("question,answer,reasoning,calc_expr\nWhat is 7 times 8?,56,I multiply.,7*8\n", "utf-8")
    project.edit("params.yaml", "basic_maths_files: []", "basic_maths_files: [data/source/maths.csv]")
    assert project.repro("clean") == {"code", "ingest", "clean"}
    assert project.repro("clean") == set()
    project.edit("data/source/maths.csv", "I multiply.", "Times.")
    assert project.repro("clean") == {"ingest", "clean"}
    taught = project.files("data/clean")
    assert b"Times.\\n7*8 = 56" in taught["data/clean/train.jsonl"] + taught["data/clean/val.jsonl"]


def test_dvc_shows_and_compares(project: Project) -> None:
    project.repro()
    project.run("dvc", "exp", "run", "-S", "rl.arms.grpo.beta=0.1", "-n", "strong")
    assert "rl.arms.grpo.beta" in project.run("dvc", "params", "diff", "--md")
    assert "strong" in project.run("dvc", "exp", "show", "--csv", "--no-pager")
    assert "results" in project.run("dvc", "metrics", "diff", "HEAD", "--all", "--md")
    assert "reward" in project.run("dvc", "plots", "show", "--json")
    project.run("git", "checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-q")


def test_a_broken_params_file_ends_the_run_before_any_work(project: Project) -> None:
    project.edit("params.yaml", "      beta:", "      betaa:")
    try:
        said = project.run("python", "stages/rl.py", "grpo", code=2)
        first = project.run("dvc", "repro", code=255)
    finally:
        project.edit("params.yaml", "      betaa:", "      beta:")
    for text in (said, first):
        assert "params.yaml: rl.arms.grpo.betaa is unknown; did you mean beta?" in text
        assert "Traceback" not in text
    assert "Running stage 'code'" in first
    assert "Running stage 'rl@" not in first


def test_one_section_more_is_one_arm_more_and_less_one_less(tmp_path: Path, project: Project) -> None:
    project.repro()
    before = (project.folder / "params.yaml").read_text("utf-8")
    mine = (
        "    mine: {start: grpo, prompt: plain, steps: 1, rewards: {answer: 1.0, own.brief: 0.1}, "
        "validate_every_steps: 1}\n"
    )
    reward = project.folder / "rewards/own.py"
    reward.write_text(
        "from showwork.rewards import reward\n\n\n@reward(low=0.0, high=1.0)\ndef brief(completions, problems):\n"
        "    return [max(0.0, 1 - c.tokens / 100) for c in completions]\n",
        "utf-8",
    )
    at = before.index("\n# Self-teaching")
    (project.folder / "params.yaml").write_text(before[:at].rstrip("\n") + "\n" + mine + before[at:], "utf-8")
    assert project.repro() == {"code", "rl@mine", "evaluate_rl@mine", "report"}
    shown = project.files("results")
    assert b"| mine |" in shown["results/report.md"]
    assert b"mine" in shown["results/outcomes.csv"].splitlines()[0]
    assert b"mine" in shown["results/curves.csv"]
    assert "mine" in project.run("showwork", "compare", "HEAD")
    reward.write_text(reward.read_text("utf-8").replace("100", "90"), "utf-8")
    assert project.repro() <= {"code", "rl@mine", "evaluate_rl@mine", "report"}
    (project.folder / "params.yaml").write_text(before, "utf-8")
    reward.unlink()
    assert project.repro() <= {"code", "report"}
    left = [name for name, content in project.files("results").items() if b"mine" in content or "mine" in name]
    assert left == []


def test_a_preset_of_one_arm_makes_its_own_report(tmp_path: Path) -> None:
    project = Project(tmp_path / "one")
    values = YAML(typ="safe", pure=True).load(presets.text("smoke"))
    values["sft"]["arms"].pop("sft_dual")
    values["rl"]["arms"] = {"grpo": values["rl"]["arms"]["grpo"]}
    values["cast"]["arms"] = {}
    YAML().dump(values, project.folder / "params.yaml")
    ran = project.repro()
    assert {name for name in ran if "@" in name} == {"sft@sft", "rl@grpo", "evaluate_sft@sft", "evaluate_rl@grpo"}
    assert "report" in ran


def test_a_queued_experiment_runs_its_own_code(project: Project) -> None:
    """Even where another checkout of the package is the installed one."""
    project.repro()
    head = project.run("git", "rev-parse", "HEAD").strip()
    project.edit("src/showwork/rewards/basic.py", "float(not completion.truncated)", "float(completion.truncated)")
    project.run("dvc", "exp", "run", "--queue", "-n", "queued")
    project.edit("src/showwork/rewards/basic.py", "float(completion.truncated)", "float(not completion.truncated)")
    project.run("dvc", "exp", "run", "--run-all")
    (queued,) = project.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/queued").split()
    assert project.run("git", "show", f"{queued}:code/grpo.json") != project.run(
        "git", "show", f"{head}:code/grpo.json"
    )
    curve, before = (project.run("git", "show", f"{commit}:results/plots/grpo.csv") for commit in (queued, head))
    assert curve != before, "the old code ran"
    project.run("git", "checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-q")


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not here")
def test_gsm8k_runs_from_ingest_to_report(tmp_path: Path) -> None:
    project = Project(tmp_path / "gsm8k")
    rows = [line for line in GSM8K.read_text("utf-8").splitlines() if len(line) < 600][:400]
    (project.folder / "data/source/train.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    old = (project.folder / "params.yaml").read_text("utf-8")
    start, end = old.index("data:"), old.index("clean:")
    source = (
        "data:\n  source: jsonl\n  train_files: [data/source/train.jsonl]\n  test_files: []\n  hold_out_rows: 40\n"
        "  basic_maths_files: []\n  second_test_files: []\n\n"
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
