"""Every preset's whole pipeline at toy size: its own settings, on a tiny model of the same family.

The stages run in this process, in the order of dvc.yaml, because starting and compiling take nearly all of the time
here. test_pipeline tests on the smoke preset that DVC runs, reruns and skips them.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from ruamel.yaml import YAML

from showwork import arms, config, presets, tokenizer
from showwork.models import saving
from showwork.models.specs import MODELS, PUBLISHED
from showwork.sources import generator
from showwork.tunix_adapter import gemma, lora, parameters

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = [name for name in presets.names() if presets.load(name).base.weights]
VOCABULARY = 420
PROBLEMS = {"seed": 0, "train_rows": 80, "test_rows": 6, "shifted_rows": 4, "difficulty": "easy"}
LENGTH = 640  # tokens of a row or a prompt: a small vocabulary splits the long prompt nearly into letters


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each program runs for one step only, and those of one family are compiled repeatedly."""
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.set_cache_dir(str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()  # it looks for its folder once
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder in the layout of a published model, with two untrained layers."""
    made: dict[str, Path] = {}
    rows = generator.generate(**PROBLEMS)["train"]
    words = tokenizer.train([row[key] for row in rows for key in ("question", "answer")], vocabulary=VOCABULARY)

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder = tmp_path_factory.mktemp(name)
            tokenizer.save(words, folder)
            model = gemma.build_model(MODELS[name], vocabulary=VOCABULARY, dtype="float32")
            parameters.draw_weights(model, key=jax.random.key(0))
            saving.save(model, folder, spec=MODELS[name], stop_ids=(1,))
        return made[name]

    return make


def toy(name: str, weights: Callable[[str], Path]) -> dict[str, Any]:
    """The preset's values with a smaller model and less data, fewer steps and rows, and shorter lengths."""
    values = YAML(typ="safe").load(presets.text(name))
    model = f"{MODELS[values['model']['name']].family}_test"
    values["data"] = {"source": "generated", "basic_maths_files": [], "second_test_files": [], **PROBLEMS}
    values["clean"]["validation_rows"] = 6
    values["model"]["name"] = model
    values["hardware"] |= {"mesh": {"fsdp": 1, "tp": 1}, "rollout_tp": 1, "tokens_per_pass": LENGTH}
    values["base"]["weights"] = f"folder:{weights(model)}"
    training = {"steps": 2, "rows_per_step": 2, "max_tokens": LENGTH}
    often = {"validate_every_steps": 1, "checkpoint_every_steps": 1}
    for kind, name, whole in arms.sections(values):
        arm = values[kind]["arms"][name]
        if whole["adapter"]:
            arm["adapter"] = whole["adapter"] | {"rank": 2}
        if kind == "sft":
            arm |= {**training, **often}
            continue
        short = {"max_prompt_tokens": LENGTH, "max_completion_tokens": 8, "rows_per_call": 2 * whole["generations"]}
        arm |= {"rollout": whole["rollout"] | short, "validation_problems": 2}
        if kind == "rl":
            arm |= {"steps": 1, "prompts_per_step": 2, "watched_problems": 1, **often}
        else:
            arm |= {"rounds": 1, "problems_per_round": 2, "variants_per_round": 2}
            arm["training"] = {**whole["training"], **training, **often}
    values["evaluate"] |= {"max_completion_tokens": 8, "rows_per_call": 10, "sampled_questions": 2, "samples": 2}
    values["evaluate"] |= {"few_shot": 1}
    return values


def commands(params: config.Params) -> list[list[str]]:
    """[script, arguments …] of every stage, in dvc.yaml's order, which goes from data to report."""
    found = []
    for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items():
        command = stage.get("do", stage)["cmd"].removeprefix("exec python ")
        kind = name.removeprefix("evaluate_")
        arms_of_kind = [arm.name for arm in params.arms.values() if arm.kind == kind] if "do" in stage else [""]
        found += [command.replace("${key}", arm).split() for arm in arms_of_kind]
    return found


def run(script: str, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location(f"stage_{Path(script).stem}", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*arguments)


@pytest.mark.parametrize("name", ROWS)
def test_the_whole_pipeline_of_a_preset(
    name: str, weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "stages")  # as where a stage is a program
    for part in ("src", "stages", "rewards", "dvc.yaml", "data/source"):  # what a stage's key is made from
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).symlink_to(ROOT / part)
    YAML().dump(toy(name, weights), tmp_path / "params.yaml")
    params = config.load()
    for command in commands(params):
        run(*command)
    for arm in params.arms.values():
        has_adapter = Path(f"models/{arm.name}/adapter/adapter_model.safetensors").exists()
        assert has_adapter == bool(arm.name != "base" and arm.settings.adapter)
        assert json.loads(Path(f"results/metrics/eval/{arm.name}.json").read_text())["n"] == PROBLEMS["test_rows"]
    assert "| plain | plain, flexible | after 1 | after 1, flexible |" in Path("results/report.md").read_text()


@pytest.mark.parametrize("model", sorted({presets.load(name).model.name for name in ROWS}))
def test_the_adapter_reaches_every_layer_of_the_whole_model(model: str) -> None:
    """Abstractly: shapes alone."""

    def build() -> nnx.Module:
        whole = gemma.build_model(MODELS[model], vocabulary=PUBLISHED[model].vocabulary, dtype="bfloat16")
        return lora.add_lora(whole, rank=64, alpha=64.0, key=jax.random.key(0))

    reached = lora.lora_modules(nnx.eval_shape(build))
    fused = MODELS[model].heads == MODELS[model].kv_heads
    assert len(reached) == MODELS[model].layers * (5 if fused else 6)
