"""The report of any set of arms: one, many, none trained, starts in any order; and leftovers of other arms."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from showwork.files import read_csv, read_json, write_json, write_jsonl, write_text
from showwork.report import colours, leftovers
from showwork.report.page import cost_rows
from showwork.report.tables import arm_table
from tests.report import made

# Nine, of which the fine-tune `after` starts from an RL arm that the file has later.
MANY = made.with_arms(
    ("sft", "warm", "sft", "base"),
    ("sft", "after", "sft", "pay"),
    ("sft", "two", "sft_dual", "base"),
    ("rl", "pay", "grpo", "warm"),
    ("rl", "again", "trajectory", "pay"),
    ("rl", "streams", "dsa_cast", "two"),
    ("rl", "more", "dsa_cast", "streams"),
    ("cast", "own", "cast", "streams"),
)


def make(folder: Path, values: dict, *, questions: int = 24) -> None:
    """A project folder with made-up results of all arms of its params."""
    asked = made.problems(questions)
    for arm in made.arms_of(values).values():
        made.write_arm(folder / "results", arm, asked, steps=20)
    write_jsonl(folder / "data/clean/test.jsonl", [problem.to_json() for problem in asked])
    write_text(folder / "params.yaml", made.as_yaml(values))


def report(folder: Path, values: dict, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The report and the page that the stage writes."""
    make(folder, values)
    monkeypatch.chdir(folder)
    made.load_stage().main()
    return Path("results/report.md").read_text("utf-8"), Path("results/report.html").read_text("utf-8")


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_nine_arms_of_any_names(tmp_path, monkeypatch):
    text, page = report(tmp_path, MANY, monkeypatch)
    names = ["base", "warm", "after", "two", "pay", "again", "streams", "more", "own"]
    assert re.findall(r"^\| (\w+) \| 24 \| [\d.]+% \| [\d.]+ to", text, re.MULTILINE) == names
    assert "after, from pay: 900 steps on solutions written as" in text
    assert data_of(page)["arms"] == names
    assert data_of(page)["starts"]["after"] == "pay"
    assert list(dict.fromkeys(row["arm"] for row in read_csv(Path("results/curves.csv")))) == names
    assert list(read_json(Path("results/metrics/arms.json"))) == names
    assert [row["arm"] for row in read_csv(Path("results/accuracy_by_steps.csv"))][:9] == names
    # The dual-stream arms, whichever they are called.
    assert re.findall(r"^\| (\w+) \| \d\.\d{3} \|", text.partition("## Detectors")[2], re.MULTILINE) == [
        "two", "streams", "more", "own",
    ]  # fmt: skip
    used = set(re.findall(r"var\(--arm-(\d+)\)", page))
    assert {str(i) for i in range(9)} <= used
    defined = re.findall(r"--arm-(\d+): (#[0-9a-f]{6});", page)
    assert [int(i) for i, _ in defined] == [*range(9), *range(9)]  # in light and in dark
    assert len({colour for _, colour in defined[:9]}) == len({colour for _, colour in defined[9:]}) == 9


def test_tokens_of_a_start_count_though_it_comes_later_in_the_file(tmp_path):
    make(tmp_path, MANY)
    arms = made.arms_of(MANY).values()
    made.read_results(tmp_path / "results", arms, made.problems(24))
    table = arm_table(tmp_path / "results", {arm.name: arm.start for arm in arms}, seed=0)
    tokens = {row["arm"]: row["tokens"] for row in cost_rows(table)}
    # 20 steps of 455 tokens for base and fine-tunes, of 4,100 trained and as many sampled for the others.
    assert tokens["warm"] == 2 * 20 * 455
    assert tokens["pay"] == tokens["warm"] + 2 * 20 * 4100
    assert tokens["after"] == tokens["pay"] + 20 * 455


def test_base_and_one_arm(tmp_path, monkeypatch):
    text, page = report(tmp_path, made.with_arms(("rl", "alone", "grpo", "base")), monkeypatch)
    assert "alone, from base: 80 steps on its own samples, rewarded answer 1, format 0.1." in text.replace("\\", "")
    assert "### Gained: alone is right, base was wrong" in text
    assert "## Detectors" not in text
    assert 'id="probes"' not in page
    assert "2 arms on the same 24 test questions" in page


def test_base_from_published_weights_evaluated_alone(tmp_path, monkeypatch):
    values = made.with_arms()
    values["base"] = {"weights": "hub:google/gemma-3-1b-it@abc", "drills": None}
    make(tmp_path, values)
    write_text(tmp_path / "results/plots/base.csv", "step,loss,val_loss\n")
    write_json(tmp_path / "results/metrics/train/base.json", {})
    monkeypatch.chdir(tmp_path)
    made.load_stage().main()
    text = Path("results/report.md").read_text("utf-8")
    assert "base: the model's own weights, not trained here." in text
    assert "No arm was trained." in text
    assert "Learning curves" not in text
    assert "No arm was trained" in Path("results/curves.svg").read_text("utf-8")
    assert Path("results/curves.csv").read_text("utf-8").count("\n") == 1
    assert data_of(Path("results/report.html").read_text("utf-8"))["starts"] == {}


def test_files_of_other_arms_are_removed_and_named(tmp_path, monkeypatch, capsys):
    values = made.with_arms(("sft", "warm", "sft", "base"))
    costs = ["code", "clean", "evaluate-warm", "report"]
    kept = [*(f"costs/{name}.json" for name in costs), "metrics/clean.json", "predictions/.gitignore", "seeds.csv"]
    folders = {"predictions": "jsonl", "samples": "jsonl", "plots": "csv", "metrics/train": "json"}
    gone = [f"{folder}/grpo.{suffix}" for folder, suffix in (folders | {"metrics/eval": "json"}).items()]
    gone += ["costs/grpo.json", "costs/evaluate-grpo.json", "plots/accuracy_by_steps.csv"]
    for name in kept + gone:
        text = json.dumps({"seconds": 1.0, "peak_memory_bytes": 1, "hardware": "x"}) if name[-5:] == ".json" else ""
        write_text(tmp_path / "results" / name, text)
    report(tmp_path, values, monkeypatch)
    assert [name for name in kept if not Path("results", name).exists()] == []
    assert [name for name in gone if Path("results", name).exists()] == []
    said = capsys.readouterr().err.splitlines()
    assert sorted(line.split()[3] for line in said) == sorted(f"results/{name}:" for name in gone)
    assert said[0] == "showwork report: removed results/predictions/grpo.jsonl: params.yaml has no such arm"
    assert list(leftovers.find(Path("results"), ["base", "warm"])) == []


def test_any_number_of_arms_has_colours_that_differ():
    for count in (1, 7, 12, 24):
        rgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours.picture(count)])
        apart = np.abs(rgb[:, None] - rgb[None]).max(axis=-1) + 255 * np.eye(count)
        assert len(rgb) == count
        assert apart.min() >= 50
    assert colours.picture(7) == list(colours.PICTURE)
    assert colours.further(9)[:3] == colours.further(3)  # an arm keeps its colour where another is added
