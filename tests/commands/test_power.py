"""showwork power: from the arms' own disagreement, or from a given one."""

import json

import pytest
from typer.testing import CliRunner

from showwork import cli
from showwork.errors import UserError
from tests.commands.conftest import Repository


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["power", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_arms_own_discordance(repository: Repository) -> None:
    params = {"sft": {"start": "base"}, "grpo": {"start": "sft"}, "trajectory": {"start": "nothing"}}
    columns = {"base": "0" * 500, "sft": "1" * 100 + "0" * 400, "grpo": "1" * 120 + "0" * 380, "trajectory": "0" * 500}
    repository.write_results(columns, params=params)
    sft, grpo = json.loads(run("--json"))
    assert (sft["pair"], sft["questions"], sft["discordance"]) == ("sft over base", 500, 0.2)
    assert (grpo["pair"], grpo["discordance"]) == ("grpo over sft", 0.04)
    assert sft["needs"]["5"] == 626  # see test_statistics
    assert grpo["needs"]["5"] is None  # 4% flip: 5 points can't be
    assert 0.05 < sft["detects"] < 0.06
    assert "grpo over sft        500   4.0%" in run()


def test_a_given_discordance_needs_no_results(repository: Repository) -> None:
    (row,) = json.loads(run("--discordance", "0.2", "--questions", "626", "--difference", "5", "--json"))
    assert row["needs"] == {"5": 626}
    assert row["detects"] == pytest.approx(0.05, abs=1e-4)
    # 30 points are more than flip, and without a number of questions there is nothing that they show.
    assert "given          –  20.0%        –          –\n" in run("--discordance", "0.2", "--difference", "30")
    stronger = json.loads(run("--discordance", "0.2", "--difference", "5", "--power", "0.9", "--json"))
    assert stronger[0]["needs"]["5"] > 626


def test_bad_input(repository: Repository) -> None:
    with pytest.raises(UserError, match=r"no results/outcomes\.csv here; `dvc repro` makes it, or give --discordance"):
        run()
    repository.write_results({"base": "01"})
    with pytest.raises(UserError, match=r"params\.yaml names no start"):
        run()
    for bad in ("0", "-1", "101", "nan"):
        with pytest.raises(UserError, match="--difference: percentage points"):
            run("--discordance", "0.2", "--difference", bad)
    with pytest.raises(UserError, match="--discordance: where no question flips"):
        run("--discordance", "0")
