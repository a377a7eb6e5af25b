"""showwork compare with arms as data: only results that match the params are shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from showwork import presets
from showwork.errors import UserError
from tests.commands.conftest import Repository, md5
from tests.commands.test_compare import as_json, run, stage

SHARED: dict[str, Any] = {
    "sft": {"shared": {"lr": 1}},
    "rl": {"shared": {"beta": 0.0}},
    "cast": {"shared": {}, "arms": {}},
}


def params(**grpo: Any) -> dict[str, Any]:
    """Two arms, sft and grpo, which starts from sft."""
    arms = {"sft": {"sft": {"start": "base"}}, "rl": {"grpo": {"start": "sft", **grpo}}, "cast": {}}
    return {"seed": 0, **{kind: {**SHARED[kind], "arms": arms[kind]} for kind in arms}}


def lock(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """dvc.lock of a run with these params."""
    sft, rl = values["sft"], values["rl"]
    return {
        "base": stage(params={"seed": values["seed"]}),
        "sft@sft": stage(params={"sft.shared": sft["shared"], "sft.arms.sft": sft["arms"]["sft"]}),
        "rl@grpo": stage(params={"rl.shared": rl["shared"], "rl.arms.grpo": rl["arms"]["grpo"]}),
        **more,
    }


@pytest.fixture
def ran(repository: Repository) -> Repository:
    values = params(steps=5)
    repository.write_results({"base": "0000", "sft": "1100", "grpo": "1110"}, params=values, stages=lock(values))
    repository.commit()
    return repository


def test_an_arm_of_other_params_is_left_out_and_named(ran: Repository) -> None:
    values = params(steps=6)
    ran.write("params.yaml", json.dumps(values))
    result = as_json("HEAD")
    assert [arm["arm"] for arm in result["arms"]] == ["base", "sft"]
    assert "left out of workspace: grpo was made with another rl.arms.grpo.steps; `dvc repro`" in result["notes"]


def test_what_an_arm_starts_from_counts(ran: Repository) -> None:
    values = params(steps=5)
    values["sft"]["shared"]["lr"] = 2
    ran.write("params.yaml", json.dumps(values))
    assert [arm["arm"] for arm in as_json("HEAD")["arms"]] == ["base"]


def test_an_arm_that_params_yaml_has_no_more(ran: Repository) -> None:
    values = params(steps=5)
    del values["rl"]["arms"]["grpo"]
    ran.write("params.yaml", json.dumps(values))
    result = as_json("HEAD")
    assert [arm["arm"] for arm in result["arms"]] == ["base", "sft"]
    assert "left out of workspace: grpo is no arm of params.yaml; `dvc repro`" in result["notes"]


def test_after_another_preset_nothing_of_the_old_run_is_shown(ran: Repository) -> None:
    ran.write("params.yaml", presets.text("grpo_demo_gemma3_1b"))
    ran.write("dvc.lock", json.dumps({"stages": lock(params(steps=5), clean=stage(params={"clean": {"rows": 1}}))}))
    with pytest.raises(UserError, match=r"workspace: its results are of other params \(.*`dvc repro` makes them anew"):
        run("HEAD")


def test_code_is_compared_by_its_digests(ran: Repository) -> None:
    Path("code").mkdir()
    ran.write("src/showwork/a.py", "a = 1\n")
    from showwork import syntax

    ran.write("code/grpo.json", json.dumps({"src/showwork/a.py": syntax.digest(Path("src/showwork/a.py"))}))
    ran.commit()
    ran.write("src/showwork/a.py", "a = 2\n")
    assert as_json("HEAD")["notes"] == [
        "the results of workspace were made before src/showwork/a.py changed; `dvc repro`"
    ]
    new = syntax.digest(Path("src/showwork/a.py"))
    ran.write("code/grpo.json", json.dumps({"src/showwork/a.py": new}))
    result = as_json("HEAD")
    assert [(c["name"], c["b"], c["stages"]) for c in result["code"]] == [("src/showwork/a.py", new[:8], ["grpo"])]
    ran.write("src/showwork/a.py", "a = 2  # a comment\n")
    assert as_json("HEAD")["notes"] == []


def test_a_state_of_the_former_layout_is_compared_key_by_key(repository: Repository) -> None:
    former = {"seed": 0, "grpo": {"start": "sft", "beta": 0.0, "steps": 5}}
    made = {
        "grpo": stage(
            params={"seed": 0, "grpo": former["grpo"]}, deps={"src/rl.py": md5("x")}, outs={"models/grpo": "m"},
        ),
        "evaluate@grpo": stage(outs={"results/predictions/grpo.jsonl": "p"}),
    }  # fmt: skip
    repository.write("src/rl.py", "x")
    repository.write_results({"grpo": "10"}, params=former, stages=made)
    repository.commit()
    values = params(steps=6, prompt="plain")
    repository.write_results(
        {"grpo": "10"}, params=values,
        stages={
            "rl@grpo": stage(
                params={"seed": 0, "rl.shared": {"beta": 0.0}, "rl.arms.grpo": values["rl"]["arms"]["grpo"]},
                outs={"models/grpo": "m"},
            ),
            "evaluate_rl@grpo": stage(outs={"results/predictions/grpo.jsonl": "q"}),
        },
    )  # fmt: skip
    repository.write("code/grpo.json", "{}")
    result = as_json("HEAD")
    assert [(c["name"], c["a"], c["b"]) for c in result["params"]] == [("grpo.steps", "5", "6")]
    assert result["stages"] == ["evaluate@grpo"]
