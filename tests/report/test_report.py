"""The report from a made-up results folder: its numbers, its files, and model text that tries to break it."""

import contextlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from showwork.arms import Arm, flatten
from showwork.config import Base, Cast, Drills, Rl, Sft
from showwork.errors import UserError
from showwork.evaluation.predictions import JudgedEquation, Prediction
from showwork.evaluation.seeds import COLUMNS, digest
from showwork.files import read_csv, read_json, write_csv, write_json, write_jsonl, write_text
from showwork.records import Equation, Problem
from showwork.report.charts import curves_svg
from showwork.report.curves import along, curve, panels, parting
from showwork.report.markdown import render, traces
from showwork.report.results import Results
from showwork.report.tables import (
    accuracy_by_steps,
    arm_table,
    detectors,
    display,
    outcomes,
    read_outcomes,
    taught,
)
from showwork.report.test_sets import few_shot, few_shot_note, second, second_note
from tests.report import made

STARTS = {"base": None, "sft": "base", "grpo": "sft"}
PARAMS = made.with_arms(("sft", "sft", "sft", "base"), ("rl", "grpo", "grpo", "sft"))
# 200 questions: base gets none, sft the first 80, grpo 0-77 and 80-83: 4 gained, 2 lost.
RIGHT = {"base": set(), "sft": set(range(80)), "grpo": set(range(78)) | set(range(80, 84))}
N = 200
SHIFTED = {
    "shifted_n": 8, "shifted_accuracy": 0.25, "shifted_accuracy_flexible": 0.375,
    "shifted_families_n": 4, "shifted_families_accuracy": 0.5, "shifted_families_accuracy_flexible": 0.5,
    "shifted_gsm8k_test_n": 4, "shifted_gsm8k_test_accuracy": 0.0, "shifted_gsm8k_test_accuracy_flexible": 0.25,
}  # fmt: skip
GRPO_LINE = f"grpo,1,,,,{1 / 60},,,{1 / 7},,"  # as the stage of the arm wrote it
NASTY = "```\n| <script>alert(1)</script> ````\n\x00\x1b[31m \u202eevil\u202c"


def prediction(arm: str, i: int) -> Prediction:
    right = i in RIGHT[arm]
    return Prediction(
        id=f"q{i:03}",
        question=f"How many are 3 times 4, for the {i}th time?",
        gold="12",
        completion=NASTY if (arm, i) == ("grpo", 78) else f"{arm} says 3*4 = {12 if right else 13}",
        answer="12" if right else "13" if i % 2 else None,
        correct=right,
        tokens=20 + i % 3,
        truncated=i == 199,
        equations=(JudgedEquation("3*4", "12" if right else "13", right),),
    )


def eval_metrics(arm: str) -> dict:
    right = len(RIGHT[arm])
    return {
        "n": N,
        "accuracy": right / N,
        "accuracy_low": max(0, right / N - 0.07),
        "accuracy_high": right / N + 0.07,
        "accuracy_within_10pct": right / N,
        "accuracy_flexible": right / N + 0.05,
        "format_rate": 0.975,
        "truncated_rate": 0.005,
        "completion_tokens_mean": 21.0,
        "faithful_rate": 0.125,
        "equations_n": N,
        "equations_hold_rate": right / N,
        "samples_n": 50,
        "samples_k": 4,
        "accuracy_sampled": 0.3,
        "pass_at_4": 0.5,
        "maj_at_4": 0.4,
        "n_steps_1": 120,
        "accuracy_steps_1": 0.61,
        "n_steps_2": 80,
        "accuracy_steps_2": 0.22,
        "n_op_add": 150,
        "accuracy_op_add": 0.33,
        "n_op_divide": 90,
        "accuracy_op_divide": 0.11,
    }


def sft_curve(steps: int = 60) -> pd.DataFrame:
    step = np.arange(1, steps + 1)
    return pd.DataFrame(
        {"step": step, "loss": 3 / step + 0.2, "val_loss": np.where(step % 10 == 0, 3 / step + 0.3, np.nan)}
    )


def grpo_curve(steps: int = 60) -> pd.DataFrame:
    step = np.arange(1, steps + 1)
    shares = dict.fromkeys(("kl", "entropy", "zero_variance", "clip_fraction"), step % 7 / 7)
    rewards = {"reward": step / 60, "reward_correct": step / 90, "reward_format": np.ones(steps)}
    return pd.DataFrame({"step": step, "loss": 0.0 * step, **rewards, **shares, "completion_tokens": 20 + step / 10})


def make_results(root: Path) -> Path:
    folder = root / "results"
    for arm, start in STARTS.items():
        write_jsonl(folder / "predictions" / f"{arm}.jsonl", [prediction(arm, i).to_json() for i in range(N)])
        write_json(folder / "metrics" / "eval" / f"{arm}.json", eval_metrics(arm))
        train = {"train_tokens": 1_234_567, "sampled_tokens": 89_000, "optimizer_steps": 60}
        write_json(folder / "metrics" / "train" / f"{arm}.json", train)
        if start:
            costs = {"seconds": 90.0, "peak_memory_bytes": 2 * 10**9, "hardware": "cpu"}
            write_json(folder / "costs" / f"{arm}.json", costs)
    grpo = grpo_curve(20)[["step", "reward", "kl"]]
    for arm, frame in {"base": sft_curve(20)[:0], "sft": sft_curve(20), "grpo": grpo}.items():
        (folder / "plots").mkdir(exist_ok=True)
        frame.to_csv(folder / "plots" / f"{arm}.csv", index=False)
    rows = outcomes({arm: [prediction(arm, i) for i in range(N)] for arm in STARTS})
    write_csv(folder / "outcomes.csv", ["id", *RIGHT], rows)
    asked = [
        Problem(f"q{i:03}", f"How many are 3 times 4, for the {i}th time?", "3*4 = 12", "12", (Equation("3*4", "12"),))
        for i in range(N)
    ]
    write_jsonl(root / "data" / "clean" / "test.jsonl", [problem.to_json() for problem in asked])
    write_text(root / "params.yaml", made.as_yaml(PARAMS | {"seed": 7}))
    known = {"n": N, "commit": "0123456789", "params": digest(flatten(PARAMS))}
    seeds = [
        {"seed": seed, "arm": "grpo", "start": "sft", "correct": 82, "gained": 4, "lost": 2} | known for seed in (7, 8)
    ]
    write_csv(folder / "seeds.csv", COLUMNS, seeds)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_results(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A results folder that the stage has run on."""
    folder = make_results(tmp_path_factory.mktemp("reported"))
    with contextlib.chdir(folder.parent):
        made.load_stage().main()
    return folder


def test_arm_table_has_the_numbers(results):
    table = arm_table(results, STARTS, seed=7).set_index("arm")
    assert list(table.index) == ["base", "sft", "grpo"]
    assert pd.isna(table.loc["base", "difference"])
    sft, grpo = table.loc["sft"], table.loc["grpo"]
    assert (sft["accuracy"], sft["difference"], sft["gained"], sft["lost"]) == (0.4, 0.4, 80, 0)
    assert sft["verdict"] == "better"
    assert sft["p"] == pytest.approx(2 * 0.5**80)
    assert grpo["difference"] == pytest.approx(0.01)
    assert (grpo["gained"], grpo["lost"], grpo["verdict"]) == (4, 2, "no difference")
    assert grpo["p"] == pytest.approx(44 / 64)  # 2 * (1 + 6 + 15) / 2^6
    assert (grpo["train_tokens"], grpo["sampled_tokens"], grpo["minutes"]) == (1_234_567, 89_000, 1.5)


def test_costs_may_be_missing_and_leave_a_dash(results):
    (results / "costs" / "sft.json").unlink()
    cells = display(arm_table(results, STARTS, seed=7))
    assert [row["minutes"] for row in cells] == ["–", "–", "1.5"]
    assert cells[2]["tokens trained"] == "1,234,567"


@pytest.mark.parametrize("path", ["outcomes.csv", "metrics/eval/grpo.json", "metrics/train/sft.json"])
def test_a_missing_file_is_named(results, path):
    (results / path).unlink()
    with pytest.raises(UserError, match=path):
        arm_table(results, STARTS, seed=7)


def test_a_missing_key_is_named(results):
    write_json(results / "metrics" / "eval" / "sft.json", {"n": 200, "accuracy": 0.4})
    with pytest.raises(UserError, match=r"sft\.json: no key 'accuracy_low'"):
        arm_table(results, STARTS, seed=7)


def test_outcomes_of_another_run_are_refused(results):
    write_json(results / "metrics" / "eval" / "sft.json", eval_metrics("sft") | {"accuracy": 0.5})
    with pytest.raises(UserError, match=r"accuracy 0\.5 of 200, but outcomes\.csv has 80 right of 200"):
        arm_table(results, STARTS, seed=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,base\nq0,1\n", "'sft' must hold 0 or 1, row 2 has None"),
        ("id,base,sft\nq0,1,1\nq1,0,2\n", "'sft' must hold 0 or 1, row 3 has '2'"),
        ("id,base,sft\n", "'base' must hold 0 or 1, no rows"),
        ("", "no rows"),
    ],
)
def test_malformed_outcomes_are_refused(tmp_path, text, message):
    write_text(tmp_path / "outcomes.csv", text)
    with pytest.raises(UserError, match=message):
        read_outcomes(tmp_path / "outcomes.csv", ["base", "sft"])


def test_outcomes_need_the_same_questions():
    right, wrong = prediction("sft", 0), prediction("sft", 100)
    one, two = [replace(right, id="q0"), replace(wrong, id="q1")], [replace(wrong, id="q0")]
    assert outcomes({"base": one, "sft": one}) == [{"id": "q0", "base": 1, "sft": 1}, {"id": "q1", "base": 0, "sft": 0}]
    with pytest.raises(UserError, match=r"base has 2 questions and sft has 1.*'q1'"):
        outcomes({"base": one, "sft": two})
    with pytest.raises(UserError, match="another order"):
        outcomes({"base": one, "sft": one[::-1]})


def test_the_stage_writes_the_report(reported, capsys):
    page = (reported / "report.md").read_text("utf-8")
    assert "Right answers to 200 test questions: base 0.0%; sft 40.0% (better than base: +40.0 points" in page
    assert "grpo 41.0% (no difference from sft: +1.0 points" in page
    assert "p 0.688, 4 gained, 2 lost" in page
    assert "| grpo | 200 | 41.0% | 34.0 to 48.0% | +1.0 over sft |" in page
    assert "| grpo | 46.0% | 97.5% | 12.5% | 30.0% (50 × 4) | 21.0 | 1,234,567 | 89,000 | 1.5 |" in page
    seeds = "One recipe with the seeds 7, 8 (2 in all): every arm trained anew with each, and asked the same 200 "
    assert f"## The arms over several seeds\n\n{seeds}questions. It is the recipe of commit 0123456, whose" in page
    assert "| grpo | 2 | 41.0% | 0.0 | 41.0 to 41.0% | +1.0 over sft | +1.0 to +1.0 |" in page
    html = (reported / "report.html").read_text("utf-8")
    assert f"<p>{seeds}" in html
    assert "<td>41.0 to 41.0%</td><td>+1.0 over sft</td>" in html
    assert "<td>results/seeds.csv</td>" in html
    assert "| 2 | 80 | 22.0% | 22.0% | 22.0% |" in page
    assert "| divide | 90 | 11.0% | 11.0% | 11.0% |" in page
    assert "![Learning curves of the trained arms](curves.svg)" in page
    assert "### Gained: grpo is right, sft was wrong (4 of 200 questions)\n\nQuestion `q080`" in page
    assert "### Lost: grpo is wrong, sft was right (2 of 200 questions)\n\nQuestion `q078`" in page
    assert "### Both wrong (116 of 200 questions)\n\nQuestion `q084`" in page
    assert "How many are 3 times 4, for the 84th time?" in page
    assert "✓ `3*4 = 12`" in page
    assert "✗ `3*4 = 13`" in page
    assert "rl.shared.beta: 0.0" in page
    assert 'rl.arms.grpo.start: "sft"' in page
    assert "trajectory" not in page  # an arm that these params don't have
    assert "jax 1.2.3" in page
    assert [row["grpo"] for row in read_csv(reported / "outcomes.csv")].count("1") == 82
    assert re.search(r"- sft, from base: [\d,]+ steps on solutions written as", page)
    assert (reported / "accuracy_by_steps.csv").read_text("utf-8").splitlines()[:4] == [
        "steps,n,arm,accuracy",
        "1,120,base,0.61",
        "1,120,sft,0.61",
        "1,120,grpo,0.61",
    ]
    lines = (reported / "curves.csv").read_text("utf-8").splitlines()
    assert lines[0] == "arm,step,train_tokens,loss,val_loss,reward,accuracy,val_accuracy,kl,entropy,completion_tokens"
    assert [lines[1], lines[10], lines[21]] == ["sft,1,,3.2,,,,,,,", "sft,10,,0.5,0.6,,,,,,", GRPO_LINE]
    assert len(lines) == 1 + 20 + 20  # base has no curve
    grpo = {"accuracy": 0.41, "faithful_rate": 0.125, "accuracy_sampled": 0.3}
    assert read_json(reported / "metrics/arms.json")["grpo"] == grpo
    assert ElementTree.parse(reported / "curves.svg").getroot().tag.endswith("svg")

    written = {path: path.read_bytes() for path in reported.rglob("*") if path.is_file()}
    with contextlib.chdir(reported.parent):
        made.load_stage().main()
    assert written == {path: path.read_bytes() for path in reported.rglob("*") if path.is_file()}
    assert capsys.readouterr().out.rstrip().splitlines()[-1] == "Report: results/report.html and results/report.md"


def test_model_text_stays_inside_its_fence(reported):
    """In the report, NASTY is the completion of grpo at q078, the lost question's trace."""
    lines = (reported / "report.md").read_text("utf-8").split("\n")
    open_fence, outside, inside = None, [], []
    for line in lines:
        if open_fence is None and line.startswith("```"):
            open_fence = line.rstrip("abcdefghijklmnopqrstuvwxyz")
        elif open_fence is not None and line == open_fence:
            open_fence = None
        else:
            (outside if open_fence is None else inside).append(line)
    assert open_fence is None
    assert any("<script>" in line for line in inside)
    assert not any("<script>" in line or "\\u202e" in line for line in outside)
    assert "\\u0000\\u001b[31m \\u202eevil\\u202c" in inside
    assert "## Provenance" in outside


def test_without_saved_seeds_the_report_says_nothing_of_them(results, monkeypatch):
    monkeypatch.chdir(results.parent)
    write_csv(results / "seeds.csv", COLUMNS, [])
    made.load_stage().main()
    for name in ("report.md", "report.html"):
        assert "over several seeds" not in (results / name).read_text("utf-8")
        assert "seeds.csv" not in (results / name).read_text("utf-8")


@pytest.mark.parametrize("path", ["params.yaml", "results/predictions/sft.jsonl", "results/plots/grpo.csv"])
def test_the_stage_names_a_missing_input(results, monkeypatch, path):
    monkeypatch.chdir(results.parent)
    Path(path).unlink()
    with pytest.raises(UserError, match=path):
        made.load_stage().main()


def test_a_trace_shows_its_question(results):
    predictions = {arm: [prediction(arm, i) for i in range(N)] for arm in STARTS}
    predictions["grpo"][80] = replace(predictions["grpo"][80], question="How many apples?")
    page = "\n".join(traces(arm_table(results, STARTS, seed=7), predictions))
    assert "```text\nHow many apples?\n```" in page


def test_panels_hold_every_quantity_once():
    found = {
        title: lines for (title, _), lines in panels({"base": pd.DataFrame(), "sft": sft_curve(), "grpo": grpo_curve()})
    }
    assert list(found) == [
        "Loss", "Reward", "Reward: correct", "Reward: format", "KL from the start", "Entropy", "Completion length",
        "Groups without variance", "Clipped ratios",
    ]  # fmt: skip
    assert {line["arm"] for line in found["Loss"]} == {"sft"}  # a policy gradient's surrogate loss stays out
    held_out = [line for line in found["Loss"] if line["kind"] == "held out"]
    assert [line["x"] for line in held_out] == [10, 20, 30, 40, 50, 60]


def test_a_long_curve_is_averaged_in_bins():
    frame = pd.DataFrame({"step": np.arange(1, 1001), "reward": np.arange(1000) % 2})
    raw = [line for line in curve(frame, "reward", frame["step"]) if line["kind"] == "raw"]
    assert len(raw) == 200
    assert raw[0] == {"x": 3.0, "value": 0.4, "kind": "raw"}  # steps 1 to 5: 0, 1, 0, 1, 0


def test_no_curve_at_all_is_an_error():
    with pytest.raises(UserError, match="results/plots"):
        curves_svg({"base": pd.DataFrame()})


def test_tokens_and_minutes_of_a_curve():
    frame = pd.DataFrame(
        {"step": ["0", "1", "2", "4"], "train_tokens": ["", "10", "", "40"], "sampled_tokens": 4 * [""]}
    )
    assert along(frame, "tokens", None).tolist() == [0, 10, 25, 40]
    assert along(frame, "minutes", 240.0).tolist() == [0, 1, 2, 4]
    assert along(frame, "minutes", None) is None
    assert along(frame[["step"]], "tokens", None) is None
    lines = next(iter(panels({"sft": sft_curve(), "grpo": sft_curve()}, axis="minutes", seconds={"sft": 120.0})))[1]
    assert {line["arm"] for line in lines} == {"sft"}
    assert max(line["x"] for line in lines) == 2.0


def rising(per_step: float, steps: int = 20) -> np.ndarray:
    return 0.3 + per_step * np.arange(steps) + 0.001 * (np.arange(steps) % 2)


@pytest.mark.parametrize(
    ("reward", "accuracy", "verdict", "is_parted"),
    [
        (0.01, 0.01, "both rise", False),
        (0.01, -0.01, "they part: reward rose, accuracy fell", True),
        (0.01, 0.0, "they part: reward rose alone", True),
        (0.0, -0.01, "they part: accuracy fell alone", True),
        (-0.01, -0.01, "both fall", False),
        (0.0, 0.0, "no clear change", False),
        (-0.01, 0.01, "accuracy rose more than reward", False),
    ],
)
def test_reward_and_accuracy_part(reward, accuracy, verdict, is_parted):
    frame = pd.DataFrame({"step": np.arange(20), "reward": rising(reward), "accuracy": rising(accuracy)})
    found = parting("grpo", frame)
    assert (found.verdict, found.is_parted) == (verdict, is_parted)
    assert found.reward.difference == pytest.approx(16 * reward)  # 4 steps a fifth, 16 steps apart


def test_too_little_is_said_nothing_about():
    frame = pd.DataFrame({"step": np.arange(9), "reward": rising(0.01, 9), "accuracy": rising(0.01, 9)})
    assert parting("grpo", frame) is None
    assert parting("sft", sft_curve()) is None


def test_optional_tables():
    metrics = {"base": {"accuracy": 0.5}, "sft": {"accuracy": 0.5, "auroc_entropy": 0.75, "rate_premise_echo": 0.125}}
    assert detectors({"base": {"accuracy": 0.5}}) == []
    assert detectors(metrics) == [{"arm": "sft", "auroc entropy": "0.750", "rate premise echo": "12.5%"}]
    metrics = {"sft": {"n_steps_10": 3, "accuracy_steps_10": 0.5, "n_op_add": 1, "accuracy_op_add": 1.0}}
    assert accuracy_by_steps(metrics | {"base": {"n_steps_9": 2, "accuracy_steps_9": 0.0}}) == [
        {"steps": 9, "n": 2, "arm": "sft", "accuracy": None},
        {"steps": 9, "n": 2, "arm": "base", "accuracy": 0.0},
        {"steps": 10, "n": 3, "arm": "sft", "accuracy": 0.5},
        {"steps": 10, "n": 3, "arm": "base", "accuracy": None},
    ]


def test_what_the_arms_were_taught():
    base = Base.model_construct(drills=Drills.model_construct(steps=800))
    sft = Sft.model_construct(steps=600, styles={"equations": 1.0, "bare": 3.0})
    grpo = Rl.model_construct(steps=50, rewards={"answer": 1.0, "format": 0.1})
    arms = [
        Arm("base", "base", None, "plain", base),
        Arm("sft", "sft", "base", "plain", sft),
        Arm("grpo", "rl", "sft", "plain", grpo),
        Arm("cast", "cast", "sft_dual", "dual", Cast.model_construct(rounds=3)),
    ]
    assert taught(arms) == [
        "base: 800 steps on plain equations, before any word.",
        "sft, from base: 600 steps on solutions written as equations 25.0%, bare 75.0%.",
        "grpo, from sft: 50 steps on its own samples, rewarded answer 1, format 0.1.",
        "cast, from sft_dual: at most 3 rounds of sampling, keeping the best samples and training on them.",
    ]
    untrained = Arm("base", "base", None, "plain", Base.model_construct(drills=None))
    assert taught([untrained]) == ["base: the model's own weights, not trained here."]


def test_the_second_test_set_is_shown_part_by_part_and_said_what_it_is():
    assert second({"base": {"n": 8, "accuracy": 0.5}}) == []
    # By hand, with z = 1.96: (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²).
    metrics = {"base": {"n": 8, "accuracy": 0.0}, "sft": {"n": 8, "accuracy": 0.5} | SHIFTED}
    (row,) = second(metrics)
    assert list(row.items()) == [
        ("arm", "sft"), ("test", "50.0% (21.5 to 78.5, n 8)"), ("shifted", "25.0% (7.1 to 59.1, n 8)"),
        ("flexible", "37.5%"), ("change", "−25.0"), ("families", "50.0% (15.0 to 85.0, n 4)"),
        ("gsm8k test", "0.0% (0.0 to 49.0, n 4)"),
    ]  # fmt: skip
    assert second_note(metrics, {"data": {"second_test_files": ["data/source/GSM8K-test.jsonl"]}}) == (
        "`shifted`: a second test set, all of it, then part by part. `families`: scenarios that train never has. "
        "`gsm8k test`: the rows of data/source/GSM8K-test.jsonl. `flexible`: right by the last number, on the second "
        "set. `change`: points from `test`."
    )


def test_a_second_test_set_of_one_part_is_called_by_its_name():
    values = {f"{name}_{key}": value for name in ("shifted", "shifted_gsm8k_test") for key, value in
              {"n": 4, "accuracy": 0.25, "accuracy_flexible": 0.5}.items()}  # fmt: skip
    metrics = {"sft": {"n": 8, "accuracy": 0.5} | values}
    (row,) = second(metrics)
    assert list(row) == ["arm", "test", "gsm8k test", "flexible", "change"]
    assert (row["gsm8k test"], row["flexible"]) == ("25.0% (4.6 to 69.9, n 4)", "50.0%")
    assert second_note(metrics, {"data": {"second_test_files": ["gsm8k_test.jsonl"]}}).startswith(
        "A second test set. `gsm8k test`: the rows of gsm8k_test.jsonl. "
    )


def test_base_after_solved_examples_is_beside_base_asked_plainly():
    assert few_shot({"base": {"n": 8, "accuracy": 0.5}}) == []
    plain = {"n": 8, "accuracy": 0.0, "accuracy_flexible": 0.25} | SHIFTED
    shown = {key: 2 * value if "accuracy" in key else value for key, value in SHIFTED.items()}
    after = {"few_shot_n": 8, "few_shot_accuracy": 0.25, "few_shot_accuracy_flexible": 0.5, "few_shot_shots": 5}
    metrics = {"base": plain | after | {f"few_shot_{key}": value for key, value in shown.items()}, "sft": plain}
    rows = few_shot(metrics)
    assert [row["questions"] for row in rows] == ["test", "shifted", "families", "gsm8k test"]
    assert list(rows[0].items()) == [
        ("questions", "test"), ("n", "8"), ("plain", "0.0% (0.0 to 32.4)"), ("plain, flexible", "25.0% (7.1 to 59.1)"),
        ("after 5", "25.0% (7.1 to 59.1)"), ("after 5, flexible", "50.0% (21.5 to 78.5)"),
    ]  # fmt: skip
    assert rows[3]["after 5, flexible"] == "50.0% (15.0 to 85.0)"  # 0.25 twice, of 4
    assert few_shot_note(metrics).startswith("`base`, asked as every arm is (`plain`), and as a pretrained model is")


def test_second_test_set_and_detectors_are_in_the_report(results):
    page = render(
        Results(
            arms=made.arms_of(PARAMS),
            table=arm_table(results, STARTS, seed=7),
            metrics={
                arm: eval_metrics(arm) | (SHIFTED | {"auroc_entropy": 0.8} if arm == "grpo" else {}) for arm in RIGHT
            },
            predictions={arm: [prediction(arm, i) for i in range(N)] for arm in RIGHT},
            problems=[Problem(f"q{i:03}", "", "", "12", (Equation("3*4", "12"),)) for i in range(N)],
            plots={arm: pd.DataFrame() for arm in RIGHT},
            costs={},
            params={"base": {"drills": None}},
            inputs={},
            versions={},
        )
    )
    assert "| grpo | 41.0% (34.4 to 47.9, n 200) | 25.0% (7.1 to 59.1, n 8) | 37.5% | −16.0 |" in page
    assert "| arm | auroc entropy |\n| --- | ---: |\n| grpo | 0.800 |" in page
    assert "## Learning curves" not in page


def test_the_report_imports_no_jax():
    code = (
        "import sys, showwork.report.markdown, showwork.report.page;"
        "assert not {'jax', 'altair', 'scipy.stats', 'statsmodels'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
