"""The stages tokenizer and base on published weights, from a folder in the layout of a published Gemma 2."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from ruamel.yaml import YAML

from showwork import files, presets
from showwork import tokenizer as tokenizers
from showwork.errors import UserError
from showwork.models import checkpoints, saving, weights
from showwork.models.specs import MODELS
from showwork.tunix_adapter import gemma, parameters
from tests.numerics.conftest import SENTENCES

ROOT = Path(__file__).parents[2]
VOCABULARY = 320


def stage(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stage_{name}", ROOT / "stages" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A published Gemma 2's folder; two rows of its embedding have no token."""
    folder = tmp_path_factory.mktemp("source")
    model = gemma.build_model(MODELS["gemma2_test"], vocabulary=VOCABULARY + 2, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    saving.save(model, folder, spec=MODELS["gemma2_test"], stop_ids=(1,))
    tokenizers.save(tokenizers.train(SENTENCES, vocabulary=VOCABULARY), folder)
    return folder


@pytest.fixture
def project(tmp_path, source, problems, monkeypatch) -> Any:
    """A project whose params.yaml starts from the folder; called with changes, it writes them there."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        files.write_jsonl(Path(f"data/clean/{split}.jsonl"), [problem.to_json() for problem in problems])
    values = YAML(typ="safe").load(presets.text("tiny"))

    def write(*, weights: str | None = f"folder:{source}", name: str = "gemma2_test", dtype: str = "float32") -> None:
        values["base"] = {"weights": weights, "drills": None}
        values["model"] = {"name": name, "dtype": dtype, "remat": False}
        values["hardware"]["mesh"] = {"fsdp": 1, "tp": 1}
        with Path("params.yaml").open("w") as file:
            YAML().dump(values, file)

    write()
    return write


def test_a_published_model_is_brought_in(project, source):
    project(dtype="bfloat16")  # in which it is computed; the weights keep their own
    stage("tokenizer").main()
    stage("base").main()
    words = tokenizers.load(Path("models/base"))
    assert len(words) == VOCABULARY
    loaded, spec = checkpoints.load(Path("models/base"), dtype="float32")
    assert spec == MODELS["gemma2_test"]
    for name, theirs in parameters.by_name(checkpoints.load(source, dtype="float32")[0]).items():
        ours = parameters.by_name(loaded)[name]
        np.testing.assert_array_equal(ours, theirs[: len(ours)])
    # A training target ends with <end_of_turn>, which the published generation_config.json need not name.
    assert checkpoints.stop_ids(Path("models/base")) == (*words.encode("<end_of_turn>"), 1)
    assert files.read_json(Path("results/metrics/train/base.json")) == {
        "optimizer_steps": 0, "train_tokens": 0, "sampled_tokens": 0, "weights": f"folder:{source}", "revision": None,
        "sha256": weights.digests(weights.Source(source, None)),
    }  # fmt: skip
    for name in ("model.safetensors", "tokenizer.model", "tokenizer_config.json"):
        assert (Path("models/base") / name).exists()


def test_another_model_than_params_yaml_names_is_a_mistake(project):
    stage("tokenizer").main()
    project(name="gemma3_test")
    with pytest.raises(UserError, match=r"model\.name is gemma3_test, but .* holds gemma2_test"):
        stage("base").main()
    assert not Path("models/base").exists()


def test_another_models_tokenizer_is_a_mistake(project):
    tokenizers.save(tokenizers.train(SENTENCES, vocabulary=VOCABULARY + 3), Path("models/tokenizer"))
    with pytest.raises(UserError, match=r"the tokenizer has 323 tokens, the embedding 322 rows"):
        stage("base").main()


def test_a_published_name_without_weights_is_a_mistake_that_says_where_they_are(project):
    stage("tokenizer").main()
    project(weights=None, name="gemma2_2b")
    with pytest.raises(
        UserError, match=r"set it to hub:google/gemma-2-2b-it, kaggle:google/gemma-2/.*, folder:PATH or"
    ):
        stage("base").main()
