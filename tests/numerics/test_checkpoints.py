"""Model folders: the published names, the same bytes, and errors that name the file."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from showwork import tunix_adapter
from showwork.errors import UserError
from showwork.models import checkpoints
from tests.numerics.conftest import ALPHA, RANK, with_lora

IDS = [2, 5, 9, 17, 33, 60, 4, 4, 8, 12, 20, 31, 7, 1]  # longer than the window of 8


@pytest.fixture(scope="module")
def folder(model, spec, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(model, folder, spec=spec, stop_ids=(1, 5))
    return folder


@pytest.fixture
def broken(folder, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "broken"))


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -------------------------------------------------------------------------------------------------- round trip


def test_reading_back_gives_equal_logits(model, spec, folder, logits_of):
    loaded, read = checkpoints.load(folder)
    assert read == spec
    np.testing.assert_array_equal(logits_of(loaded, IDS), logits_of(model, IDS))


def test_writing_again_gives_the_same_bytes(spec, folder, tmp_path):
    loaded, _ = checkpoints.load(folder)
    checkpoints.save(loaded, tmp_path, spec=spec, stop_ids=(1, 5))
    assert hashes(tmp_path) == hashes(folder)


def test_equal_heads_survive_too(model, tmp_path, spec, logits_of):
    """Where heads equal key-value heads Tunix fuses the three projections."""
    fused = dataclasses.replace(spec, kv_heads=spec.heads, layers=1, global_layers=(0,))
    model = tunix_adapter.build_model(fused, vocabulary=64, dtype="float32")
    tunix_adapter.draw_weights(model, key=jax.random.key(1))
    checkpoints.save(model, tmp_path, spec=fused, stop_ids=(1,))
    loaded, read = checkpoints.load(tmp_path)
    assert read == fused
    np.testing.assert_array_equal(
        *(np.concatenate([np.ravel(x) for x in jax.tree.leaves(nnx.state(m, nnx.Param))]) for m in (model, loaded))
    )


def test_bfloat16_survives(spec, tmp_path):
    model = tunix_adapter.build_model(spec, vocabulary=64, dtype="bfloat16")
    tunix_adapter.draw_weights(model, key=jax.random.key(1))
    checkpoints.save(model, tmp_path, spec=spec, stop_ids=(1,))
    loaded, _ = checkpoints.load(tmp_path)
    for ours, theirs in zip(*(jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, loaded)), strict=True):
        assert theirs.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))


# ------------------------------------------------------------------------------------------------ what it holds

LAYER = {
    "input_layernorm.weight": (32,),
    "post_attention_layernorm.weight": (32,),
    "pre_feedforward_layernorm.weight": (32,),
    "post_feedforward_layernorm.weight": (32,),
    "self_attn.q_proj.weight": (2 * 16, 32),
    "self_attn.k_proj.weight": (1 * 16, 32),
    "self_attn.v_proj.weight": (1 * 16, 32),
    "self_attn.o_proj.weight": (32, 2 * 16),
    "self_attn.q_norm.weight": (16,),
    "self_attn.k_norm.weight": (16,),
    "mlp.gate_proj.weight": (64, 32),
    "mlp.up_proj.weight": (64, 32),
    "mlp.down_proj.weight": (32, 64),
}


def test_names_and_shapes_are_the_published_ones(folder):
    wanted = {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in LAYER.items()}
    wanted |= {"model.embed_tokens.weight": (64, 32), "model.norm.weight": (32,)}
    assert {name: tensor.shape for name, tensor in load_file(folder / checkpoints.WEIGHTS).items()} == wanted


def test_one_metadata_key(folder):
    header = (folder / checkpoints.WEIGHTS).read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert json.loads(header[8 : 8 + size])["__metadata__"] == {"format": "pt"}


def test_projections_are_transposed_head_by_head(model, folder):
    tensors = load_file(folder / checkpoints.WEIGHTS)
    attention = model.layers[0].attn
    q = np.asarray(attention.q_einsum.w[...])  # [N, D, H]: head 1, coordinate 3 is row 1 * 16 + 3
    np.testing.assert_array_equal(tensors["model.layers.0.self_attn.q_proj.weight"][19], q[1, :, 3])
    v = np.asarray(attention.kv_einsum.w[...])[1]
    np.testing.assert_array_equal(tensors["model.layers.0.self_attn.v_proj.weight"][5], v[0, :, 5])
    o = np.asarray(attention.attn_vec_einsum.w[...])  # [N, H, D]
    np.testing.assert_array_equal(tensors["model.layers.0.self_attn.o_proj.weight"][:, 19], o[1, 3])


def test_configuration_fields(folder, spec):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert (config["vocab_size"], config["hidden_size"], config["head_dim"]) == (64, 32, 16)
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    assert (config["sliding_window"], config["query_pre_attn_scalar"]) == (8, 16)
    assert (config["rope_local_base_freq"], config["rope_theta"]) == (10_000.0, 1_000_000.0)
    assert config["torch_dtype"] == "float32"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0}
    assert checkpoints.stop_ids(folder) == (1, 5)


def test_one_published_stop_id_may_be_a_bare_number(broken):
    (broken / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert checkpoints.stop_ids(broken) == (7,)


def test_transformers_reads_it_to_the_same_logits(model, folder, logits_of):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        logits = theirs(torch.tensor([IDS])).logits[0].numpy()
    np.testing.assert_allclose(logits, logits_of(model, IDS), atol=1e-4)


# --------------------------------------------------------------------------------------------------------- LoRA


@pytest.fixture(scope="module")
def merged_folder(adapted, spec, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    checkpoints.save(adapted, folder, spec=spec, stop_ids=(1,), adapter=(RANK, ALPHA))
    return folder


def test_merged_logits_are_those_of_the_adapted_model(model, adapted, merged_folder, logits_of):
    merged, _ = checkpoints.load(merged_folder)
    assert np.abs(logits_of(adapted, IDS) - logits_of(model, IDS)).max() > 0.1
    np.testing.assert_allclose(logits_of(merged, IDS), logits_of(adapted, IDS), atol=1e-5)


def test_adapter_product_is_merged_minus_base(folder, merged_folder):
    base, merged = (load_file(path / checkpoints.WEIGHTS) for path in (folder, merged_folder))
    adapter = load_file(merged_folder / checkpoints.ADAPTER)
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                   "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
    wanted = {
        f"base_model.model.model.layers.{layer}.{name}.lora_{part}.weight"
        for layer in range(2) for name in projections for part in "AB"
    }  # fmt: skip
    assert set(adapter) == wanted
    for layer in range(2):
        for name in projections:
            a, b = (adapter[f"base_model.model.model.layers.{layer}.{name}.lora_{part}.weight"] for part in "AB")
            assert a.shape[0] == b.shape[1] == RANK
            difference = merged[f"model.layers.{layer}.{name}.weight"] - base[f"model.layers.{layer}.{name}.weight"]
            assert np.abs(difference).max() > 1e-3
            np.testing.assert_allclose(b @ a * (ALPHA / RANK), difference, atol=1e-6)
    others = set(base) - {f"model.layers.{i}.{name}.weight" for i in range(2) for name in projections}
    assert all((base[name] == merged[name]).all() for name in others)


def test_adapter_configuration(merged_folder):
    config = json.loads((merged_folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", RANK, ALPHA)
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_adapters_of_fused_projections(model, spec, tmp_path):
    fused = dataclasses.replace(spec, kv_heads=spec.heads, layers=1, global_layers=(0,))
    base = tunix_adapter.build_model(fused, vocabulary=64, dtype="float32")
    tunix_adapter.draw_weights(base, key=jax.random.key(1))
    checkpoints.save(base, tmp_path / "base", spec=fused, stop_ids=(1,))
    checkpoints.save(with_lora(base), tmp_path / "merged", spec=fused, stop_ids=(1,), adapter=(RANK, ALPHA))
    before, after = (load_file(tmp_path / name / checkpoints.WEIGHTS) for name in ("base", "merged"))
    adapter = load_file(tmp_path / "merged" / checkpoints.ADAPTER)
    for letter in "qkv":
        name = f"model.layers.0.self_attn.{letter}_proj"
        a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        difference = after[f"{name}.weight"] - before[f"{name}.weight"]
        np.testing.assert_allclose(b @ a * (ALPHA / RANK), difference, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- errors


def edit(folder: Path, **changes: Any) -> None:
    """Sets keys of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def retensor(folder: Path, name: str, tensor: np.ndarray | None) -> None:
    """Sets a tensor of the weights; None removes it."""
    tensors = load_file(folder / checkpoints.WEIGHTS) | {name: tensor}
    save_file({n: t for n, t in tensors.items() if t is not None}, folder / checkpoints.WEIGHTS)


DAMAGE = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors", "no such file"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json", "no such file"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors", "not a whole"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "model.safetensors", "not a whole",
    ),
    "config cut": (lambda f: (f / "config.json").write_text("{"), "config.json", "not JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "config.json", "model_type"),
    "another model": (lambda f: edit(f, model_type="llama"), "config.json", "llama"),
    "no width": (lambda f: edit(f, hidden_size=None), "config.json", "hidden_size"),
    "no vocabulary": (lambda f: edit(f, vocab_size=None), "config.json", "vocab_size"),
    "missing norm": (lambda f: retensor(f, "model.norm.weight", None), "model.safetensors", "model.norm.weight"),
    "missing k": (
        lambda f: retensor(f, "model.layers.1.self_attn.k_proj.weight", None),
        "model.safetensors", "model.layers.1.self_attn.k_proj.weight",
    ),
    "wrong norm": (
        lambda f: retensor(f, "model.norm.weight", np.zeros(31, np.float32)), "model.safetensors", "norm"
    ),
    "wrong q": (
        lambda f: retensor(f, "model.layers.0.self_attn.q_proj.weight", np.zeros((31, 32), np.float32)),
        "model.safetensors", "q_proj",
    ),
    "wrong o": (
        lambda f: retensor(f, "model.layers.0.self_attn.o_proj.weight", np.zeros((32, 31), np.float32)),
        "model.safetensors", "o_proj",
    ),
    "another vocabulary": (lambda f: edit(f, vocab_size=65), "model.safetensors", "embed"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_a_mistake_that_is_named(broken, damage):
    break_it, file, detail = DAMAGE[damage]
    break_it(broken)
    with pytest.raises(UserError) as caught:
        checkpoints.load(broken)
    assert str(broken / file) in str(caught.value)
    assert detail in str(caught.value)
