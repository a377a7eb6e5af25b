"""showwork seeds: which seeds are queued, which runs share the recipe, and one test with DVC itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from showwork import cli
from showwork.commands import seeds
from showwork.errors import UserError
from showwork.evaluation.seeds import digest
from tests.commands.conftest import Repository

# Accuracy 0.5 for sft; grpo gets `seed` of 4 right.
STAGE = """\
import pathlib, re
seed = int(re.search(r"^seed: (\\d+)", pathlib.Path("params.yaml").read_text(), re.M)[1])
rows = "".join(f"q{i},{int(i < 2)},{int(i < seed)}\\n" for i in range(4))
pathlib.Path("results").mkdir(exist_ok=True)
pathlib.Path("results/outcomes.csv").write_text("id,sft,grpo\\n" + rows)
"""
PIPELINE = """\
stages:
  all:
    cmd: python stages/all.py
    params: [seed]
    deps: [stages/all.py]
    outs:
      - results/outcomes.csv: {cache: false}
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["seeds", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def experiment(repository: Repository, name: str, baseline: str, seed: int, right: int, **params: object) -> None:
    """A finished experiment as DVC records it: a commit under refs/exps."""
    outcomes = {"sft": "1100", "grpo": "1" * right + "0" * (4 - right)}
    repository.write_results(outcomes, params={"seed": seed, "grpo": {"start": "sft"}, **params})
    made = repository.commit(name)
    repository.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", made)
    repository.git("reset", "--quiet", "--hard", baseline)


@pytest.fixture
def baseline(repository: Repository) -> str:
    repository.write_results({"sft": "1100", "grpo": "1110"}, params={"seed": 0, "grpo": {"start": "sft"}})
    return repository.commit()


def test_a_run_counts_where_the_seed_alone_differs(repository: Repository, baseline: str) -> None:
    experiment(repository, "seed-1", baseline, seed=1, right=4)
    experiment(repository, "seed-2", baseline, seed=2, right=2)
    experiment(repository, "again", baseline, seed=2, right=2)
    experiment(repository, "gentle", baseline, seed=3, right=4, beta=0.5)
    found = json.loads(run("--show", "--json"))
    assert found["seeds"] == [0, 1, 2]
    assert found["left_out"] == ["gentle: it differs in more than the seed", "seed-2: seed 2 is there already"]
    sft, grpo = found["arms"]
    assert sft["across"]["deviation"] == 0
    assert grpo["accuracy"] == [0.75, 1.0, 0.5]
    assert grpo["difference"]["mean"] == pytest.approx(0.25)
    assert grpo["verdict"] == "no difference"
    text = run("--show")
    assert "HEAD: 3 seeds (0, 1, 2)" in text
    assert "+25.0 over sft" in text
    assert "! left out: gentle: it differs in more than the seed" in text
    assert "| grpo | 3 | 75.0% | 25.0 | 50.0 to 100.0% | +25.0 over sft |" in run("--show", "--md")


def test_what_is_saved_for_git(repository: Repository, baseline: str) -> None:
    experiment(repository, "seed-1", baseline, seed=1, right=4)
    run("--save")
    recipe = f"{baseline},{digest({'grpo.start': 'sft'})}"
    # sft has the first 2 right of 4, grpo the first 3 and then all 4; sft's own start is no arm here.
    assert seeds.SAVED.read_text().splitlines() == [
        "seed,arm,start,n,correct,gained,lost,commit,params",
        f"0,sft,,4,2,,,{recipe}",
        f"0,grpo,sft,4,3,1,0,{recipe}",
        f"1,sft,,4,2,,,{recipe}",
        f"1,grpo,sft,4,4,2,0,{recipe}",
    ]


def test_watching_a_run_makes_it_no_other_recipe(repository: Repository, baseline: str) -> None:
    experiment(repository, "seed-1", baseline, seed=1, right=4, live=True)
    assert json.loads(run("--show", "--json"))["seeds"] == [0, 1]


def test_an_experiment_of_another_commit_is_another_recipe(repository: Repository, baseline: str) -> None:
    experiment(repository, "seed-1", baseline, seed=1, right=4)
    repository.commit("next")
    assert json.loads(run("--show", "--json"))["seeds"] == [0]
    assert json.loads(run("--show", "--of", "HEAD~1", "--json"))["seeds"] == [0, 1]


def test_results_of_other_code_are_left_out(repository: Repository, baseline: str) -> None:
    lock = {"grpo": {"params": {"params.yaml": {"grpo": {"start": "base"}}}}}
    repository.write("dvc.lock", json.dumps({"stages": lock}))
    repository.commit()
    with pytest.raises(UserError, match=r"its results were made before grpo\.start changed.*`showwork seeds 3`"):
        run("--show")


def test_bad_input(repository: Repository) -> None:
    with pytest.raises(UserError, match="say how many seeds to queue"):
        run()
    with pytest.raises(UserError, match=r"params\.yaml has no whole number `seed` here"):
        run("3")
    repository.write("params.yaml", "seed: 0\n")
    repository.commit()
    with pytest.raises(UserError, match=r"no run of it has results \(HEAD: commit"):
        run("--show")
    repository.write("params.yaml", "seed: 1\n")
    with pytest.raises(UserError, match=r"^params\.yaml is changed and not committed"):
        run("3")


def test_seeds_that_have_run_are_not_queued_again(
    repository: Repository, baseline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment(repository, "mine", baseline, seed=2, right=4)
    queued = []
    monkeypatch.setattr(seeds, "_queue", queued.append)
    assert seeds.queue(3) == queued == [1, 3, 4]


@pytest.mark.slow
def test_with_dvc_itself(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)

    dvc("init", "--quiet")
    repository.write("params.yaml", "seed: 1 # a comment\ngrpo:\n  start: sft\n")
    repository.write("dvc.yaml", PIPELINE)
    repository.write("stages/all.py", STAGE)
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "start")
    dvc("repro")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "run")

    assert "queued seed-2\nqueued seed-3\n" in run("2")
    assert "queued seed-4\n" in run("1")  # queued seeds are not queued again
    dvc("exp", "run", "--run-all")
    assert Path("params.yaml").read_text() == "seed: 1 # a comment\ngrpo:\n  start: sft\n"
    found = json.loads(run("--show", "--json"))
    assert (found["seeds"], found["left_out"]) == ([1, 2, 3, 4], [])
    assert found["arms"][1]["accuracy"] == [0.25, 0.5, 0.75, 1.0]
    Path("dvc.yaml").write_text("stages: [")
    with pytest.raises(UserError, match=r"`dvc exp run --queue --name seed-5 .* failed:"):
        seeds._queue(5)
