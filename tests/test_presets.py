"""The presets: valid, with the notebooks' exact settings, and models that divide over their mesh. No weights."""

import dataclasses
import functools
import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx
from ruamel.yaml import YAML

from showwork import config, presets
from showwork.errors import UserError
from showwork.models.specs import MODELS, PUBLISHED
from showwork.tunix_adapter import gemma, lora

ROOT = Path(__file__).parents[1]
AT_HOME = ("gemma3_270m", "gemma3_270m_gsm8k", "smoke", "tiny")
ROWS = [name for name in presets.names() if name not in AT_HOME]
# As their pages have it.
WEIGHTS = {
    "gemma_2b": 2_506_172_416, "gemma_7b": 8_537_680_896, "gemma2_2b": 2_614_341_888, "gemma3_1b": 999_885_952,
}  # fmt: skip


@functools.cache
def load(name: str) -> config.Params:
    return presets.load(name)


# ------------------------------------------------------------------------------------------------ the headers


def test_each_notebook_has_its_rows() -> None:
    told = {name: presets.about(name).notebook for name in ROWS}
    assert sorted(int(row.split(",")[0]) for row in told.values()) == [1, 2, 2, 3, 4, 5, 6, 7]
    assert "and 8," in told["tt_gemma2_2b"]


@pytest.mark.parametrize("name", [name for name in presets.names() if name != "tiny"])
def test_the_head_says_what_it_is_and_what_it_costs(name: str) -> None:
    about = presets.about(name)
    optional = {"differs"} if name in AT_HOME else set()
    missing = {field.name for field in dataclasses.fields(about) if not getattr(about, field.name)}
    assert missing <= optional
    assert name in AT_HOME or about.cost.startswith("not measured; derived: ")  # no preset has been run on a TPU so far


ARMS = {
    "dsa_cast_gemma3_1b": ["sft_dual", "dsa_cast", "cast"], "dsa_cast_gemma_7b": ["sft_dual", "dsa_cast", "cast"],
    "grpo_demo_gemma3_1b": ["grpo"], "grpo_efficient_v3_8": ["grpo"], "sft_full_gemma3_1b": ["sft"],
    "starter": ["grpo"], "trajectory_gemma2_2b": ["trajectory"], "tt_gemma2_2b": ["grpo"],
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_preset_brings_its_own_arms_and_no_others(name: str) -> None:
    assert list(load(name).arms) == ["base", *ARMS[name]]


def test_the_mesh_in_the_head_is_the_one_in_the_values() -> None:
    for name in ROWS:
        mesh = load(name).hardware.mesh
        assert f"mesh fsdp {mesh.fsdp} × tp {mesh.tp}" in presets.about(name).hardware


# ------------------------------------------------------------------------------------------------ the settings

REFERENCE = {
    "rollout.max_prompt_tokens": 256, "rollout.max_completion_tokens": 768, "rollout.temperature": 0.9,
    "rollout.top_p": 1.0, "rollout.top_k": 50, "generations": 4, "iterations": 1, "beta": 0.08, "epsilon_low": 0.2,
    "epsilon_high": 0.2, "optimizer.learning_rate": 3e-6, "optimizer.b1": 0.9, "optimizer.b2": 0.99,
    "optimizer.weight_decay": 0.1, "optimizer.warmup_ratio": 0.1, "optimizer.final_ratio": 0.0,
    "optimizer.max_grad_norm": 0.1, "adapter.rank": 64, "adapter.alpha": 64.0, "start": "base",
    "rewards": dict.fromkeys(("cookbook_format", "cookbook_tags", "cookbook_answer", "cookbook_number"), 1.0),
}  # fmt: skip
# Neither max_tokens nor the steps of ten epochs: rows are packed, and test_preset_sizes.py checks what a step holds.
FULL_SFT = {
    "adapter": None, "optimizer.learning_rate": 2e-5, "optimizer.b2": 0.999,
    "optimizer.weight_decay": 0.01, "optimizer.max_grad_norm": 1.0, "optimizer.final_ratio": 0.1,
}  # fmt: skip
DSA_CAST = {
    "adapter": None, "start": "sft_dual", "rollout.max_prompt_tokens": 256, "rollout.max_completion_tokens": 384,
    "rollout.temperature": 0.9, "rollout.top_k": 50, "generations": 2, "optimizer.learning_rate": 3e-6,
    "optimizer.b2": 0.99, "optimizer.weight_decay": 0.1, "optimizer.max_grad_norm": 0.1, "beta": 0.08,
    "rewards": dict.fromkeys(("dsa_structure", "dsa_soft_structure", "dsa_composite"), 1.0),
}  # fmt: skip
TRAJECTORY = {
    "adapter.rank": 16, "generations": 4, "rollout.max_completion_tokens": 128, "optimizer.learning_rate": 1e-5,
    "beta": 0.05, "epsilon_low": 0.1, "epsilon_high": 0.1, "steps": 10, "rewards": {"trajectory": 1.0},
}  # fmt: skip
SETTINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "reference": ("grpo_demo_gemma3_1b", "grpo", REFERENCE),
    "dual SFT": (
        "dsa_cast_gemma3_1b",
        "sft_dual",
        FULL_SFT | {"styles": {"dual": 1.0}, "optimizer.warmup_ratio": 0.1, "steps": 3500},
    ),
    "DSA-CAST": ("dsa_cast_gemma3_1b", "dsa_cast", DSA_CAST),
    "DSA-CAST, 7B": ("dsa_cast_gemma_7b", "dsa_cast", DSA_CAST),
    "trajectory": ("trajectory_gemma2_2b", "trajectory", TRAJECTORY),
    "full SFT": ("sft_full_gemma3_1b", "sft", FULL_SFT | {"styles": {"equations": 1.0}}),
    "efficient": ("grpo_efficient_v3_8", "grpo", REFERENCE | {"adapter.rank": 32, "adapter.alpha": 32.0}),
    "on a mesh": ("tt_gemma2_2b", "grpo", REFERENCE),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_an_arm_has_the_settings_of_its_notebook(case: str) -> None:
    name, arm, wanted = SETTINGS[case]
    found = load(name).arms[arm].settings.model_dump()
    assert {key: get(found, key) for key in wanted} == wanted


def get(values: Any, path: str) -> Any:
    return functools.reduce(lambda value, part: value[part], path.split("."), values)


def test_fifty_steps_of_warm_up_are_fifty() -> None:
    sft = load("sft_full_gemma3_1b").arms["sft"].settings
    assert round(sft.optimizer.warmup_ratio * sft.steps) == 50


def test_the_efficient_row_has_half_the_rank_and_half_the_rows_over_the_same_problems() -> None:
    whole, small = (load(name).arms["grpo"].settings for name in ("grpo_demo_gemma3_1b", "grpo_efficient_v3_8"))
    assert 2 * small.adapter.rank == whole.adapter.rank
    assert 2 * small.rollout.rows_per_call == whole.rollout.rows_per_call
    assert small.steps * small.prompts_per_step == whole.steps * whole.prompts_per_step
    same = ("adapter", "rollout", "steps", "prompts_per_step")
    assert small.model_dump(exclude=set(same)) == whole.model_dump(exclude=set(same))


def test_what_fills_the_memory_is_recomputed() -> None:
    assert {name for name in ROWS if load(name).model.remat} == {"dsa_cast_gemma_7b", "grpo_efficient_v3_8"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_reads_gsm8k_and_published_weights_and_is_told_the_format(name: str) -> None:
    params = load(name)
    assert params.data == config.HubData(
        source="hub", repo="openai/gsm8k", config="main", revision=params.data.revision, basic_maths_files=[],
        second_test_files=[],
    )  # fmt: skip
    assert re.fullmatch("[0-9a-f]{40}", params.data.revision)
    published = PUBLISHED[params.model.name]
    assert re.fullmatch(rf"{re.escape(published.kaggle)}/[1-9]\d*", params.base.weights)
    assert params.base.drills is None
    for tag in ("<reasoning>", "</reasoning>", "<answer>", "</answer>"):
        assert tag in params.prompt.plain
        assert tag in params.prompt.dual
    headings = [params.prompt.dual.find(heading) for heading in ("Plan:", "Reasoning:", "Evidence:", "Sanity_check:")]
    assert headings[0] > -1
    assert headings == sorted(headings)
    assert "CALC: expression = result" in params.prompt.dual


def test_smoke_has_every_arm_and_little_of_it() -> None:
    smoke = load("smoke")
    assert list(smoke.arms) == list(load("tiny").arms)
    assert all(getattr(arm.settings, "steps", 1) <= 6 for arm in smoke.arms.values())
    cast = smoke.arms["cast"].settings
    assert cast.rounds * cast.problems_per_round <= 8


# ------------------------------------------------------------------------------------------------ the models


@functools.cache
def abstract(model: str) -> nnx.Module:
    return gemma.abstract_model(
        MODELS[model], vocabulary=PUBLISHED[model].vocabulary, dtype="bfloat16", weights_dtype="bfloat16"
    )


@pytest.mark.parametrize("name", ROWS)
def test_the_model_is_whole_and_divides_over_the_mesh(name: str) -> None:
    params = load(name)
    mesh = {"fsdp": params.hardware.mesh.fsdp, "tp": params.hardware.mesh.tp}
    state = nnx.state(abstract(params.model.name), nnx.Param)
    leaves, specs = jax.tree.leaves(state), jax.tree.leaves(nnx.get_partition_spec(state))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == WEIGHTS[params.model.name]
    spread = 0
    for leaf, spec in zip(leaves, specs, strict=True):
        assert leaf.dtype == params.model.dtype
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None:
                assert size % mesh[axis] == 0, f"{size} over {axis}"
                spread += axis == "fsdp"
    assert spread  # otherwise the loop above has checked nothing


@pytest.mark.parametrize("name", ROWS)
def test_rows_divide_over_the_mesh(name: str) -> None:
    params = load(name)
    size = params.hardware.mesh.fsdp
    for arm in list(params.arms.values())[1:]:
        training = arm.settings.training if arm.kind == "cast" else arm.settings
        rows = training.prompts_per_step * training.generations if arm.kind == "rl" else training.rows_per_step
        assert rows % size == 0
        assert arm.kind == "sft" or arm.settings.rollout.rows_per_call % size == 0


@pytest.mark.parametrize("name", ["grpo_demo_gemma3_1b", "grpo_efficient_v3_8", "starter", "tt_gemma2_2b"])
def test_the_adapter_reaches_every_projection(name: str) -> None:
    """At the model's real width with two of its layers; the slow tests adapt all of them."""
    params = load(name)
    spec = MODELS[params.model.name]
    spec = dataclasses.replace(spec, layers=2, global_layers=(0, 1) if spec.sliding_window is None else (1,))
    adapter = params.arms["grpo"].settings.adapter

    def build() -> nnx.Module:
        model = gemma.build_model(spec, vocabulary=256, dtype="bfloat16")
        return lora.add_lora(model, rank=adapter.rank, alpha=adapter.alpha, key=jax.random.key(0))

    adapted = lora.lora_modules(nnx.eval_shape(build))
    assert len(adapted) == 2 * 6  # q, kv, attention-out, gate, up, down
    ranks = {getattr(module, f"{weight}_lora_a").shape[-1] for module, weight in adapted.values()}
    assert ranks == {adapter.rank}


# ------------------------------------------------------------------------------------------------ the layers


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the test's own presets, with tiny.yaml as their base."""
    (tmp_path / "tiny.yaml").write_text((presets.FOLDER / "tiny.yaml").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    return tmp_path


def test_a_layer_changes_what_it_names_and_nothing_else(folder: Path) -> None:
    (folder / "_middle.yaml").write_text("rl: {shared: {beta: 0.5, rollout: {temperature: 0.5}}}\n")
    (folder / "mine.yaml").write_text("# Mine.\nover: _middle\nrl: {shared: {rollout: {temperature: 0.75}}}\n")
    tiny, mine = presets.load("tiny").model_dump(), presets.load("mine").model_dump()
    shared, before = mine["rl"]["shared"], tiny["rl"]["shared"]
    assert (shared["beta"], shared["rollout"]["temperature"]) == (0.5, 0.75)
    shared["beta"], shared["rollout"]["temperature"] = before["beta"], before["rollout"]["temperature"]
    assert mine == tiny
    assert presets.names() == ["mine", "tiny"]


def test_rewards_and_the_like_come_as_one(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "# Mine.\nsft: {arms: {sft: {styles: {words: 1.0}, adapter: {rank: 4, alpha: 8.0, modules: []}}}}\n"
        "rl: {arms: {grpo: {rewards: {answer: 2.0}}}}\n"
        "data: {source: jsonl, train_files: [a.jsonl], test_files: [], hold_out_rows: 5, "
        "basic_maths_files: [a.csv], second_test_files: []}\nbase: {drills: null}\n"
    )
    params = presets.load("mine")
    sft, grpo = (params.arms[arm].settings for arm in ("sft", "grpo"))
    assert sft.styles == {"words": 1.0}
    assert sft.adapter.alpha == 8.0
    assert grpo.rewards == {"answer": 2.0}
    assert params.data.train_files == ["a.jsonl"]
    assert params.base.drills is None


def test_changes_lie_on_top_and_are_checked(folder: Path) -> None:
    changed = presets.load("tiny", {"rl": {"arms": {"grpo": {"rollout": {"top_k": 7}}}}})
    assert changed.arms["grpo"].settings.rollout.top_k == 7
    with pytest.raises(UserError, match=r"preset tiny: rl\.arms\.grpo\.betaa is unknown; did you mean beta\?"):
        presets.load("tiny", {"rl": {"arms": {"grpo": {"betaa": 0.0}}}})


def test_an_empty_mapping_takes_all_arms_away(folder: Path) -> None:
    (folder / "mine.yaml").write_text("# Mine.\nrl: {arms: {}}\ncast: {arms: {}}\n")
    assert list(presets.load("mine").arms) == ["base", "sft", "sft_dual"]


def test_the_text_is_the_values_with_the_defaults_comments() -> None:
    for name in presets.names():
        assert config.check(YAML(typ="safe", pure=True).load(presets.text(name))) == load(name)
        assert "src/showwork/models/specs.py" in presets.text(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("smok", "did you mean smoke?"), ("_published", "known: "), ("x", "known: ")]
)
def test_an_unknown_preset_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(hint)):
        presets.about(name)
