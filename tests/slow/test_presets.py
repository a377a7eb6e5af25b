"""Every preset's whole pipeline at toy size: its own settings, on a tiny model of the same family.

The stages run in this process, one after another as dvc.yaml lists them, because starting and compiling is nearly all
that they cost here; that DVC runs them, reruns them and leaves them alone is the smoke preset's test (test_pipeline).
One preset of each family runs every arm; the others, which share those sections with it, what their own command runs.
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

from showwork import config, presets, tokenizer, tunix_adapter
from showwork.models import checkpoints
from showwork.models.specs import MODELS, PUBLISHED
from showwork.sources import generator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = [name for name in presets.names() if presets.load(name).base.weights]
WHOLE = ("dsa_cast_gemma3_1b", "trajectory_gemma2_2b", "dsa_cast_gemma_7b")  # a Gemma 3, a Gemma 2, a Gemma
VOCABULARY = 420
PROBLEMS = {"seed": 0, "train_rows": 80, "test_rows": 6, "shifted_rows": 4, "difficulty": "easy"}
LENGTH = 640  # tokens of a row or a prompt: a small vocabulary spells the long prompt nearly by letters


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs are compiled for one step each, and those of one family again and again."""
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
    """A folder such as a published model's, of two layers and nothing learned."""
    made: dict[str, Path] = {}
    rows = generator.generate(**PROBLEMS)["train"]
    words = tokenizer.train([row[key] for row in rows for key in ("question", "answer")], vocabulary=VOCABULARY)

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder = tmp_path_factory.mktemp(name)
            tokenizer.save(words, folder)
            model = tunix_adapter.build_model(MODELS[name], vocabulary=VOCABULARY, dtype="float32")
            tunix_adapter.draw_weights(model, key=jax.random.key(0))
            checkpoints.save(model, folder, spec=MODELS[name], stop_ids=(1,))
        return made[name]

    return make


def toy(name: str, weights: Callable[[str], Path]) -> dict[str, Any]:
    """The preset's values with its model, data, steps, rows and lengths cut down, and all else left as it is."""
    values = YAML(typ="safe").load(presets.text(name))
    model = f"{MODELS[values['model']['name']].family}_test"
    values["data"] = {"source": "generated", "basic_maths_files": [], **PROBLEMS}
    values["clean"]["validation_rows"] = 6
    values["model"]["name"] = model
    values["hardware"]["mesh"] = {"fsdp": 1, "tp": 1}
    values["base"]["weights"] = f"folder:{weights(model)}"
    training = {"steps": 2, "rows_per_step": 2, "micro_batch_rows": 1, "max_tokens": LENGTH}
    often = {"validate_every_steps": 1, "checkpoint_every_steps": 1}
    for section in (values["sft"], values["sft_dual"], values["cast"]["training"]):
        section.update(training, **often)
    values["cast"] |= {"rounds": 1, "problems_per_round": 2, "variants_per_round": 2, "validation_problems": 2}
    for arm in config.GROUP_ARMS:
        values[arm] |= {"steps": 1, "prompts_per_step": 2, "validation_problems": 2, "watched_problems": 1, **often}
        values[arm]["micro_batches"] = min(2, values[arm]["micro_batches"])
    for arm in (*config.GROUP_ARMS, "cast"):
        short = {"max_prompt_tokens": LENGTH, "max_completion_tokens": 8}
        values[arm]["rollout"] |= {**short, "rows_per_call": 2 * values[arm]["generations"]}
        if values[arm]["adapter"]:
            values[arm]["adapter"] |= {"rank": 2}
    values["evaluate"] |= {"max_completion_tokens": 8, "rows_per_call": 10, "sampled_questions": 2, "samples": 2}
    return values


def arms_of(name: str, params: config.Params) -> tuple[list[str], list[str]]:
    """The arms that the preset's command trains, and those that it evaluates."""
    if name in WHOLE:
        return list(config.ARMS), list(config.ARMS)
    evaluated = [target.partition("@")[2] for target in presets.about(name).run.split()[2:]]
    trained = {"base"}
    for arm in evaluated:
        while arm not in trained:
            trained.add(arm)
            arm = getattr(params, arm).start
    return [arm for arm in config.ARMS if arm in trained], evaluated


def commands(trained: list[str], evaluated: list[str]) -> list[list[str]]:
    """[script, arguments …] of the stages that make these arms, in dvc.yaml's order, which goes from data to report."""
    found = []
    for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items():
        command = stage["cmd"].removeprefix("exec python ")
        if "matrix" in stage:
            found += [command.replace("${item.arm}", arm).split() for arm in evaluated]
        elif name in trained or (name not in config.ARMS and (name != "report" or evaluated == list(config.ARMS))):
            found.append(command.split())
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
    for part in ("src", "stages", "dvc.yaml", "data/source"):  # what a stage's key is made from
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).symlink_to(ROOT / part)
    YAML().dump(toy(name, weights), tmp_path / "params.yaml")
    trained, evaluated = arms_of(name, config.load())
    for command in commands(trained, evaluated):
        run(*command)
    for arm in trained:
        has_adapter = Path(f"models/{arm}/adapter/adapter_model.safetensors").exists()
        assert has_adapter == bool(arm != "base" and getattr(config.load(), arm).adapter)
    for arm in evaluated:
        assert json.loads(Path(f"results/metrics/eval/{arm}.json").read_text())["n"] == PROBLEMS["test_rows"]
    assert Path("results/report.md").exists() == (name in WHOLE)


@pytest.mark.parametrize("model", sorted({presets.load(name).model.name for name in ROWS}))
def test_the_adapter_reaches_every_layer_of_the_whole_model(model: str) -> None:
    """Abstractly: shapes alone."""

    def build() -> nnx.Module:
        whole = tunix_adapter.build_model(MODELS[model], vocabulary=PUBLISHED[model].vocabulary, dtype="bfloat16")
        return tunix_adapter.add_lora(whole, rank=64, alpha=64.0, key=jax.random.key(0))

    reached = tunix_adapter.lora_modules(nnx.eval_shape(build))
    fused = MODELS[model].heads == MODELS[model].kv_heads
    assert len(reached) == MODELS[model].layers * (5 if fused else 6)
