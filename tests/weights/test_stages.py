"""The stages weights, tokenizer and base on a GGUF file, a package's and a folder that brings only tokenizer.model."""

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from ruamel.yaml import YAML
from safetensors.numpy import load_file

from showwork import files, presets
from showwork import tokenizer as tokenizers
from showwork.commands import doctor
from showwork.commands.export import export
from showwork.errors import UserError
from showwork.models import hf_config, tensors
from showwork.models.specs import MODELS
from showwork.prompts import render_prompt
from showwork.records import Problem
from tests.commands.test_export import DATA, METRICS
from tests.weights import made

ROOT = Path(__file__).parents[2]
RECORD = Path("results/weights/weights.json")


def stage(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stage_{name}", ROOT / "stages" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.folder(tmp_path_factory.mktemp("published") / "gemma")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """An empty project; called with base.weights, it writes params.yaml."""
    monkeypatch.chdir(tmp_path)
    problem = Problem("1", "What is 5 + 3?", "5 + 3 = 8", "8", ())
    for split in ("train", "val"):
        files.write_jsonl(Path(f"data/clean/{split}.jsonl"), [problem.to_json()])
    values = YAML(typ="safe").load(presets.text("tiny"))

    def write(weights: str | None) -> None:
        values["base"] = {"weights": weights, "drills": None}
        values["model"]["name"] = "gemma3_test"
        with Path("params.yaml").open("w") as file:
            YAML().dump(values, file)

    return write


def run(*names: str) -> None:
    for name in names:
        stage(name).main()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_gguf_file_is_brought_in(project: Any, source: Path) -> None:
    path = made.write(source, Path("model.gguf"), kind=Kind.Q8_0)
    project("gguf:model.gguf")
    run("weights", "tokenizer", "base")
    assert files.read_json(RECORD) == {
        "source": "gguf:model.gguf", "revision": None, "sha256": {"model.gguf": sha256(path)}
    }  # fmt: skip
    assert hf_config.read(Path("models/base")) == hf_config.Header(MODELS["gemma3_test"], 320, "float32", False)
    assert files.read_json(Path("results/metrics/train/base.json")) == {
        "optimizer_steps": 0, "train_tokens": 0, "sampled_tokens": 0, "weights": "gguf:model.gguf", "revision": None,
        "sha256": {"model.gguf": sha256(path)},
    }  # fmt: skip
    assert len(tokenizers.load(Path("models/base"))) == made.VOCABULARY


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_keeps_its_precision(dtype: str, project: Any, tmp_path: Path) -> None:
    wanted = np.float32 if dtype == "float32" else getattr(importlib.import_module("ml_dtypes"), dtype)
    published = made.folder(tmp_path / "gemma", dtype=wanted)
    project(f"folder:{published}")
    run("weights", "tokenizer", "base")
    before, after = (load_file(folder / tensors.WEIGHTS) for folder in (published, Path("models/base")))
    assert hf_config.read(Path("models/base")).dtype == dtype
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        np.testing.assert_array_equal(after[name], value)


def test_the_files_are_linked_and_recorded(project: Any, source: Path) -> None:
    project(f"folder:{source}")
    run("weights")
    links = {path.name: path.readlink() for path in RECORD.parent.iterdir() if path.is_symlink()}
    assert links == {name: source / name for name in ("config.json", "model.safetensors", "tokenizer.model")}
    assert files.read_json(RECORD)["sha256"] == {name: sha256(path) for name, path in sorted(links.items())}
    # Again, and then without weights: what was linked stays where it is.
    run("weights")
    project(None)
    run("weights")
    assert [path.name for path in RECORD.parent.iterdir()] == ["weights.json"]
    assert files.read_json(RECORD) == {"source": None, "revision": None, "sha256": {}}
    assert len(list(source.iterdir())) == 3


def test_weights_of_a_hub_are_known_by_their_name_without_a_network(project: Any) -> None:
    project("hub:google/gemma-3-1b-it@abc1234")
    run("weights")
    assert files.read_json(RECORD) == {"source": "hub:google/gemma-3-1b-it@abc1234", "revision": None, "sha256": {}}


def test_a_mistake_is_found_before_anything_is_linked(project: Any, source: Path) -> None:
    path = made.write(source, Path("model.gguf"))
    path.write_bytes(path.read_bytes()[:-100])
    project("gguf:model.gguf")
    with pytest.raises(UserError, match=r"model\.gguf: cut short"):
        run("weights")
    assert not RECORD.parent.exists()


def test_neither_the_stage_nor_what_it_finds_needs_jax(project: Any, source: Path) -> None:
    made.write(source, Path("model.gguf"))
    project("gguf:model.gguf")
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'stages')!r}); import weights; weights.main()\n"
    program += "assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    project(None)
    program += "\nassert 'numpy' not in sys.modules and 'gguf' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_doctor_names_weights_that_are_gone(project: Any, source: Path) -> None:
    made.write(source, Path("model.gguf"))
    project("gguf:model.gguf")
    run("weights")
    assert doctor.find_lost_weights() == []
    Path("model.gguf").unlink()
    (fault,) = doctor.find_lost_weights()
    assert fault.startswith("results/weights/model.gguf is a link to ")
    assert "set base.weights in params.yaml to where it is" in fault


# ------------------------------------------------------------------------------- what transformers makes of the folder

TEXTS = (
    *made.TEXTS,
    "  two  and   three ",
    "a\tb\n\n\nc",
    "é e\u0301 😀 \u202e ½",
    "<start_of_turn>user\n<end_of_turn>",
)


@pytest.mark.parametrize("kind", ["gguf", "folder", "scratch"])
def test_transformers_opens_base_an_arm_and_an_export(
    kind: str, project: Any, source: Path, capfd: pytest.CaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers")
    project({"gguf": "gguf:model.gguf", "folder": f"folder:{source}", "scratch": None}[kind])
    if kind == "gguf":
        made.write(source, Path("model.gguf"))
    if kind == "scratch":
        tokenizers.save(tokenizers.train(made.TEXTS, vocabulary=made.VOCABULARY), Path("models/tokenizer"))
        tokenizers.copy(Path("models/tokenizer"), made.folder(Path("models/base")))
    else:
        run("weights", "tokenizer", "base")
    tokenizers.copy(Path("models/base"), Path("models/arm"))
    files.write_json(Path("results/metrics/clean.json"), DATA)
    files.write_json(Path("results/metrics/eval/base.json"), METRICS)
    export("base", Path("out"), questions=0)
    for folder in ("models/tokenizer", "models/base", "models/arm", "out"):
        ours, theirs = tokenizers.load(Path(folder)), transformers.AutoTokenizer.from_pretrained(folder)
        assert len(theirs) == len(ours)
        for text in TEXTS:
            assert theirs(text)["input_ids"] == [ours.bos_id(), *ours.encode(text)]
            assert theirs.decode(ours.encode(text)) == text
        asked = theirs.apply_chat_template([{"role": "user", "content": "5 + 3?"}], add_generation_prompt=True)
        assert asked["input_ids"] == [ours.bos_id(), *ours.encode(render_prompt("5 + 3?", system=""))]
        special = (theirs.pad_token_id, theirs.eos_token_id, theirs.bos_token_id, theirs.unk_token_id)
        assert special == (tokenizers.PAD, tokenizers.EOS, tokenizers.BOS, tokenizers.UNK)
    assert "incorrect regex pattern" not in capfd.readouterr().err


def test_what_a_published_folder_brings_is_kept(source: Path, tmp_path: Path) -> None:
    """A configuration without a template, and then a template in a file of its own."""
    theirs = tmp_path / "theirs"
    tokenizers.copy(source, theirs)
    files.write_json(theirs / "tokenizer_config.json", {"tokenizer_class": "Gemma2Tokenizer", "mask_token": "<mask>"})
    tokenizers.adopt(theirs, tmp_path / "out")
    config = files.read_json(tmp_path / "out/tokenizer_config.json")
    kept = (config["tokenizer_class"], config["mask_token"], config["bos_token"])
    assert kept == ("Gemma2Tokenizer", "<mask>", "<bos>")
    assert "<start_of_turn>" in config["chat_template"]
    (theirs / "chat_template.jinja").write_text("{{ messages }}")
    tokenizers.adopt(theirs, tmp_path / "other")
    assert "chat_template" not in files.read_json(tmp_path / "other/tokenizer_config.json")
    assert (tmp_path / "other/chat_template.jinja").read_text() == "{{ messages }}"
