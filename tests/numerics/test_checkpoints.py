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

from showwork import devices
from showwork.config import Mesh
from showwork.errors import UserError
from showwork.models import adapters, checkpoints, hf_config, published, saving, tensors
from showwork.models.specs import MODELS, PUBLISHED, GemmaSpec
from showwork.models.weights import Source
from showwork.tunix_adapter import gemma, lora, parameters
from tests.numerics.conftest import ALPHA, RANK, with_lora

ADAPTER = Path("adapter/adapter_model.safetensors")
IDS = [2, 5, 9, 17, 33, 60, 4, 4, 8, 12, 20, 31, 7, 1]  # longer than the window of 8


@pytest.fixture(scope="module")
def folder(model, spec, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    saving.save(model, folder, spec=spec, stop_ids=(1, 5))
    return folder


@pytest.fixture
def sharded(model, spec, tmp_path, monkeypatch) -> Path:
    """The same in shards of at most 20 kB, which the larger tensors fill alone."""
    monkeypatch.setattr(tensors, "SHARD_BYTES", 20_000)
    saving.save(model, tmp_path / "sharded", spec=spec, stop_ids=(1, 5))
    return tmp_path / "sharded"


@pytest.fixture
def broken(folder, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "broken"))


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# -------------------------------------------------------------------------------------------------- round trip


def test_reading_back_gives_equal_logits(model, spec, folder, logits_of):
    loaded, read = checkpoints.load(folder, dtype="float32")
    assert read == spec
    np.testing.assert_array_equal(logits_of(loaded, IDS), logits_of(model, IDS))


def test_writing_again_gives_the_same_bytes(spec, folder, tmp_path):
    loaded, _ = checkpoints.load(folder, dtype="float32")
    saving.save(loaded, tmp_path, spec=spec, stop_ids=(1, 5))
    assert hashes(tmp_path) == hashes(folder)


def test_equal_heads_survive_too(model, tmp_path, spec, logits_of):
    """With as many key-value heads as heads, Tunix fuses the three projections."""
    fused = dataclasses.replace(spec, kv_heads=spec.heads, layers=1, global_layers=(0,))
    model = gemma.build_model(fused, vocabulary=64, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(1))
    saving.save(model, tmp_path, spec=fused, stop_ids=(1,))
    loaded, read = checkpoints.load(tmp_path, dtype="float32")
    assert read == fused
    np.testing.assert_array_equal(
        *(np.concatenate([np.ravel(x) for x in jax.tree.leaves(nnx.state(m, nnx.Param))]) for m in (model, loaded))
    )


def test_bfloat16_survives(spec, tmp_path):
    model = gemma.build_model(spec, vocabulary=64, dtype="bfloat16", weights_dtype="bfloat16")
    parameters.draw_weights(model, key=jax.random.key(1))
    saving.save(model, tmp_path, spec=spec, stop_ids=(1,))
    loaded, _ = checkpoints.load(tmp_path, dtype="bfloat16")
    for ours, theirs in zip(*(jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, loaded)), strict=True):
        assert theirs.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))
    # To be trained, they are float32, whatever is computed in.
    whole, _ = checkpoints.load_merged(tmp_path, dtype="bfloat16")
    assert whole.compute_dtype == loaded.compute_dtype == jnp.bfloat16
    for ours, theirs in zip(*(jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, whole)), strict=True):
        assert theirs.dtype == jnp.float32
        np.testing.assert_array_equal(np.asarray(ours, np.float32), theirs)


def test_shards_hold_what_one_file_holds(model, folder, sharded, logits_of):
    shards = sorted(path.name for path in sharded.glob("*.safetensors"))
    count = len(shards)
    assert shards == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    assert count > 2
    assert all(sum(t.nbytes for t in load_file(sharded / name).values()) <= 20_000 for name in shards)
    index = json.loads((sharded / tensors.INDEX).read_text())
    whole = load_file(folder / tensors.WEIGHTS)
    assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in whole.values())}
    assert {n: (load_file(sharded / f)[n] == whole[n]).all() for n, f in index["weight_map"].items()} == dict.fromkeys(
        whole, True
    )
    np.testing.assert_array_equal(logits_of(checkpoints.load(sharded, dtype="float32")[0], IDS), logits_of(model, IDS))


def test_one_file_written_over_shards_replaces_them(model, spec, folder, sharded, monkeypatch):
    monkeypatch.undo()
    saving.save(model, sharded, spec=spec, stop_ids=(1, 5))
    assert hashes(sharded) == hashes(folder)


def test_reading_onto_a_mesh_places_every_weight(folder, model):
    mesh = devices.make_mesh(Mesh(fsdp=1, tp=1))
    loaded, _ = checkpoints.load(folder, dtype="float32", mesh=mesh)
    for name, weight in parameters.by_name(loaded).items():
        assert weight.sharding.mesh == mesh
        np.testing.assert_array_equal(weight, parameters.by_name(model)[name])


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
    assert {name: tensor.shape for name, tensor in load_file(folder / tensors.WEIGHTS).items()} == wanted


def test_one_metadata_key(folder):
    header = (folder / tensors.WEIGHTS).read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert json.loads(header[8 : 8 + size])["__metadata__"] == {"format": "pt"}


def test_projections_are_transposed_head_by_head(model, folder):
    published = load_file(folder / tensors.WEIGHTS)
    attention = model.layers[0].attn
    q = np.asarray(attention.q_einsum.w[...])  # [N, D, H]: head 1, coordinate 3 is row 1 * 16 + 3
    np.testing.assert_array_equal(published["model.layers.0.self_attn.q_proj.weight"][19], q[1, :, 3])
    v = np.asarray(attention.kv_einsum.w[...])[1]
    np.testing.assert_array_equal(published["model.layers.0.self_attn.v_proj.weight"][5], v[0, :, 5])
    o = np.asarray(attention.attn_vec_einsum.w[...])  # [N, H, D]
    np.testing.assert_array_equal(published["model.layers.0.self_attn.o_proj.weight"][:, 19], o[1, 3])


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


# --------------------------------------------------------------------------------------------------------- LoRA


PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
               "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


@pytest.fixture(scope="module")
def adapted_folder(adapted, folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("adapted")
    saving.save_adapted(adapted, out, start=folder, rank=RANK, alpha=ALPHA)
    return out


@pytest.fixture
def other(adapted_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(adapted_folder, tmp_path / "other"))


def test_the_adapter_stays_beside_the_weights_of_the_start(folder, adapted_folder):
    before, after = hashes(folder), hashes(adapted_folder)
    assert after == before
    assert sorted(path.name for path in (adapted_folder / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    assert {tensor.dtype for tensor in load_file(adapted_folder / ADAPTER).values()} == {np.dtype("float32")}


def test_an_adapted_model_is_read_back_as_it_was(model, adapted, adapted_folder, logits_of, tmp_path):
    found, _ = checkpoints.load(adapted_folder, dtype="float32")
    assert np.abs(logits_of(adapted, IDS) - logits_of(model, IDS)).max() > 0.1
    np.testing.assert_array_equal(logits_of(found, IDS), logits_of(adapted, IDS))
    saving.save_adapted(found, tmp_path, start=adapted_folder, rank=RANK, alpha=ALPHA)
    assert (tmp_path / ADAPTER).read_bytes() == (adapted_folder / ADAPTER).read_bytes()


def test_merged_logits_are_those_of_the_adapted_model(adapted, adapted_folder, logits_of):
    merged, _ = checkpoints.load_merged(adapted_folder, dtype="float32")
    assert not lora.is_adapted(merged)
    np.testing.assert_allclose(logits_of(merged, IDS), logits_of(adapted, IDS), atol=1e-5)


def test_adapter_product_is_merged_minus_base(folder, adapted_folder, spec, tmp_path):
    saving.save(
        checkpoints.load_merged(adapted_folder, dtype="float32").model, tmp_path, spec=spec, stop_ids=(1,)
    )  # fmt: skip
    base, merged = (load_file(path / tensors.WEIGHTS) for path in (folder, tmp_path))
    adapter = load_file(adapted_folder / ADAPTER)
    wanted = {
        f"base_model.model.model.layers.{layer}.{name}.lora_{part}.weight"
        for layer in range(2) for name in PROJECTIONS for part in "AB"
    }  # fmt: skip
    assert set(adapter) == wanted
    for layer in range(2):
        for name in PROJECTIONS:
            a, b = (adapter[f"base_model.model.model.layers.{layer}.{name}.lora_{part}.weight"] for part in "AB")
            assert a.shape[0] == b.shape[1] == RANK
            difference = merged[f"model.layers.{layer}.{name}.weight"] - base[f"model.layers.{layer}.{name}.weight"]
            assert np.abs(difference).max() > 1e-3
            np.testing.assert_allclose(b @ a * (ALPHA / RANK), difference, atol=1e-6)
    others = set(base) - {f"model.layers.{i}.{name}.weight" for i in range(2) for name in PROJECTIONS}
    assert all((base[name] == merged[name]).all() for name in others)


def test_adapter_configuration(adapted_folder):
    config = json.loads((adapted_folder / ADAPTER).with_name("adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", RANK, ALPHA)
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_adapters_of_fused_projections(spec, tmp_path, logits_of):
    fused = dataclasses.replace(spec, kv_heads=spec.heads, layers=1, global_layers=(0,))
    base = gemma.build_model(fused, vocabulary=64, dtype="float32")
    parameters.draw_weights(base, key=jax.random.key(1))
    saving.save(base, tmp_path / "base", spec=fused, stop_ids=(1,))
    adapted = with_lora(base)
    saving.save_adapted(adapted, tmp_path / "adapted", start=tmp_path / "base", rank=RANK, alpha=ALPHA)
    found, _ = checkpoints.load(tmp_path / "adapted", dtype="float32")
    np.testing.assert_array_equal(logits_of(found, IDS), logits_of(adapted, IDS))
    merged, _ = checkpoints.load_merged(tmp_path / "adapted", dtype="float32")
    saving.save(merged, tmp_path / "merged", spec=fused, stop_ids=(1,))
    before, after = (load_file(tmp_path / name / tensors.WEIGHTS) for name in ("base", "merged"))
    adapter = load_file(tmp_path / "adapted" / ADAPTER)
    for letter in "qkv":
        name = f"model.layers.0.self_attn.{letter}_proj"
        a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        difference = after[f"{name}.weight"] - before[f"{name}.weight"]
        np.testing.assert_allclose(b @ a * (ALPHA / RANK), difference, atol=1e-6)


def test_one_folder_written_over_another_leaves_nothing_of_it(
    adapted, model, spec, folder, other, sharded, monkeypatch
):
    # An adapter that was left there would be added to weights that never saw it; an old index would name old shards.
    monkeypatch.undo()
    saving.save(model, other, spec=spec, stop_ids=(1, 5))
    assert hashes(other) == hashes(folder)
    assert not (other / "adapter").exists()
    saving.save_adapted(adapted, sharded, start=folder, rank=RANK, alpha=ALPHA)
    assert hashes(sharded) == hashes(folder)


# ------------------------------------------------------------------------------------- an adapter that goes on


def adapt(folder: Path, rank: int = RANK, alpha: float = ALPHA, modules: tuple[str, ...] = ()) -> nnx.Module:
    """The model of an arm with this adapter, whose start is the folder."""
    weights, _ = checkpoints.load_weights(folder, dtype="float32", weights_dtype="float32")
    return checkpoints.adapt(weights, folder, adapters.Shape(rank, alpha, modules), key=jax.random.key(9))


def test_without_an_adapter_in_the_start_nothing_is_added_yet(model, folder, logits_of):
    np.testing.assert_array_equal(logits_of(adapt(folder), IDS), logits_of(model, IDS))


@pytest.mark.parametrize(("rank", "alpha"), [(RANK, ALPHA), (RANK + 2, ALPHA), (4 * RANK, 1.0)])
def test_training_goes_on_from_the_adapter_of_the_start(adapted, adapted_folder, logits_of, rank, alpha):
    # Alpha over rank, which was 6 / 3, is now 6 / 5 or 1 / 12: left alone, the product would be scaled by those.
    found = adapt(adapted_folder, rank, alpha)
    assert {getattr(m, f"{w}_lora_a")[...].shape[-1] for m, w in lora.lora_modules(found).values()} == {rank}
    np.testing.assert_allclose(logits_of(found, IDS), logits_of(adapted, IDS), atol=1e-5)


def test_more_modules_than_the_start_has_add_nothing_yet(model, folder, tmp_path, logits_of):
    some = lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(2), modules=("attn.q_einsum", "mlp.up_proj"))
    for module, weight in lora.lora_modules(some).values():
        b = getattr(module, f"{weight}_lora_b")
        b[...] = jnp.ones_like(b[...])
    saving.save_adapted(some, tmp_path, start=folder, rank=2, alpha=2.0)
    wanted = logits_of(some, IDS)
    assert np.abs(wanted - logits_of(model, IDS)).max() > 0.1
    found, _ = checkpoints.load(tmp_path, dtype="float32")
    assert set(lora.lora_modules(found)) == set(lora.lora_modules(some))
    np.testing.assert_array_equal(logits_of(found, IDS), wanted)
    np.testing.assert_allclose(logits_of(adapt(tmp_path), IDS), wanted, atol=1e-5)


def test_a_smaller_rank_is_a_mistake(adapted_folder):
    with pytest.raises(UserError, match=r"has an adapter of rank 3, into which one of rank 2 does not go"):
        adapt(adapted_folder, RANK - 1)


def test_fewer_modules_are_a_mistake(adapted_folder):
    with pytest.raises(UserError, match=r"has base_model\..*; give the arm's `adapter` all the modules that are in it"):
        adapt(adapted_folder, modules=("attn.q_einsum",))


FIRST = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
# Of another model: wider; with fewer layers; with more of them. And one that was cut.
OTHERS = {
    "another width": (lambda held: held | {FIRST: np.zeros((RANK, 31), np.float32)}, rf"{FIRST} is \(3, 31\), where"),
    "another rank": (lambda held: held | {FIRST: np.zeros((2, 32), np.float32)}, rf"{FIRST} is \(2, 32\), where"),
    "fewer layers": (
        lambda held: {name: tensor for name, tensor in held.items() if ".layers.1." not in name}, "is missing"
    ),
    "more layers": (lambda held: held | {FIRST.replace("0", "2"): held[FIRST]}, "has no place for"),
    "keys apart from values": (
        lambda held: {
            name: tensor + 1 if name.endswith("layers.1.self_attn.v_proj.lora_A.weight") else tensor
            for name, tensor in held.items()
        }, "have not one lora_A together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_an_adapter_of_another_model_is_a_mistake(other, what):
    change, message = OTHERS[what]
    save_file(change(load_file(other / ADAPTER)), other / ADAPTER)
    reads = [adapt, lambda folder: checkpoints.load(folder, dtype="float32")]
    if what != "keys apart from values":  # which can be added to weights
        reads.append(lambda folder: checkpoints.load_merged(folder, dtype="float32"))
    for read in reads:
        with pytest.raises(UserError, match=message) as caught:
            read(other)
        assert str(other / ADAPTER) in str(caught.value)


def test_an_adapter_that_is_cut_is_a_mistake(other):
    (other / ADAPTER).write_bytes((other / ADAPTER).read_bytes()[:-10])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: not a whole safetensors file"):
        checkpoints.load(other, dtype="float32")


# ------------------------------------------------------------------------------------------------------- errors


def edit(folder: Path, **changes: Any) -> None:
    """Sets keys of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def retensor(folder: Path, name: str, tensor: np.ndarray | None) -> None:
    """Sets a tensor of the weights; None removes it."""
    changed = load_file(folder / tensors.WEIGHTS) | {name: tensor}
    save_file({n: t for n, t in changed.items() if t is not None}, folder / tensors.WEIGHTS)


def rename(folder: Path, *names: tuple[str, str]) -> None:
    held = load_file(folder / tensors.WEIGHTS)
    for old, new in names:
        held = {name.replace(old, new): tensor for name, tensor in held.items()}
    save_file(held, folder / tensors.WEIGHTS)


def cast(folder: Path, dtype: Any) -> None:
    held = load_file(folder / tensors.WEIGHTS)
    save_file({name: tensor.astype(dtype) for name, tensor in held.items()}, folder / tensors.WEIGHTS)


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
    "stored as float16": (lambda f: cast(f, np.float16), "model.safetensors", "stored as F16; config.json says"),
    "stored as integers": (lambda f: cast(f, np.int8), "model.safetensors", "stored as I8"),
    "stored as bfloat16": (lambda f: cast(f, jnp.bfloat16), "model.safetensors", "stored as BF16"),
    "float16 throughout": (lambda f: edit(f, torch_dtype="float16"), "config.json", "float32 and bfloat16"),
    "no dtype": (lambda f: edit(f, torch_dtype=None), "config.json", "torch_dtype"),
    "GPT's names": (
        lambda f: rename(f, ("model.layers", "transformer.h"), ("self_attn", "attn")),
        "model.safetensors", "lacks model.layers.0.input_layernorm.weight and 25 more tensors; it has transformer.h",
    ),
    "Gemma 2's names": (
        lambda f: edit(f, model_type="gemma2", rope_theta=1e4), "model.safetensors",
        "has model.layers.0.self_attn.k_norm.weight and 3",
    ),
    "Gemma 1's names": (
        lambda f: edit(f, model_type="gemma", rope_theta=1e4), "model.safetensors",
        "has model.layers.0.post_feedforward_layernorm.weight and 7",
    ),
    "Gemma 2's rotary base": (lambda f: edit(f, model_type="gemma"), "config.json", "rope_theta is 1000000"),
    "another query scale": (lambda f: edit(f, query_pre_attn_scalar=168), "config.json", "query_pre_attn_scalar"),
    "other rotary positions": (
        lambda f: edit(f, rope_scaling={"rope_type": "yarn", "factor": 2.0}), "config.json", "rope_type is yarn"
    ),
    "an output of its own": (
        lambda f: retensor(f, "lm_head.weight", np.zeros((64, 32), np.float32)), "model.safetensors", "lm_head"
    ),
    "only PyTorch's format": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "model.safetensors", "from safetensors"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_a_mistake_that_is_named(broken, damage):
    break_it, file, detail = DAMAGE[damage]
    break_it(broken)
    with pytest.raises(UserError) as caught:
        checkpoints.load(broken, dtype="float32")
    assert str(broken / file) in str(caught.value)
    assert detail in str(caught.value)


def test_a_tied_output_and_old_buffers_are_passed_over(broken, model, logits_of):
    retensor(broken, "lm_head.weight", load_file(broken / tensors.WEIGHTS)["model.embed_tokens.weight"])
    retensor(broken, "model.layers.0.self_attn.rotary_emb.inv_freq", np.zeros(8, np.float32))
    np.testing.assert_array_equal(logits_of(checkpoints.load(broken, dtype="float32")[0], IDS), logits_of(model, IDS))


def shard(folder: Path, number: int) -> Path:
    return sorted(folder.glob("*.safetensors"))[number]


SHARD_DAMAGE = {
    "a missing shard": (lambda f: shard(f, 1).unlink(), "model-00002-of-", "1 of"),
    "a truncated shard": (
        lambda f: shard(f, 1).write_bytes(shard(f, 1).read_bytes()[:-10]), "model-00002-of-", "not a whole"
    ),
    "no shards": (lambda f: (f / tensors.INDEX).write_text('{"weight_map": {}}'), tensors.INDEX, "names no shard"),
    "an index cut": (lambda f: (f / tensors.INDEX).write_text("{"), tensors.INDEX, "not JSON"),
    "no index": (lambda f: (f / tensors.INDEX).unlink(), "model.safetensors", "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_a_damaged_shard_is_a_mistake_that_is_named(sharded, damage):
    break_it, file, detail = SHARD_DAMAGE[damage]
    break_it(sharded)
    with pytest.raises(UserError) as caught:
        checkpoints.load(sharded, dtype="float32")
    assert str(sharded) in str(caught.value)
    assert file in str(caught.value)
    assert detail in str(caught.value)


def test_an_arm_that_was_not_trained_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"sft_dual: no such model: it was not trained yet; `dvc repro` makes"):
        checkpoints.load(tmp_path / "sft_dual", dtype="float32")


# ---------------------------------------------------------------------------------------------- published folders


def convert(source: Path, folder: Path, *, spec: GemmaSpec, vocabulary: int = 64) -> None:
    with published.opened(Source(source, None)) as found:
        saving.convert(found, folder, spec=spec, vocabulary=vocabulary, stop_ids=(5, 1))


def test_converting_keeps_every_number(folder, spec, tmp_path):
    convert(folder, tmp_path, spec=spec)
    assert (tmp_path / tensors.WEIGHTS).read_bytes() == (folder / tensors.WEIGHTS).read_bytes()
    assert checkpoints.stop_ids(tmp_path) == (5, 1)


def test_rows_that_no_token_has_are_left_out(folder, spec, tmp_path):
    convert(folder, tmp_path, spec=spec, vocabulary=60)
    before, after = (load_file(path / tensors.WEIGHTS)["model.embed_tokens.weight"] for path in (folder, tmp_path))
    np.testing.assert_array_equal(after, before[:60])
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 60


@pytest.mark.parametrize("tokens", [65, 300])
def test_a_tokenizer_of_another_size_is_a_mistake(folder, spec, tmp_path, tokens):
    with pytest.raises(UserError, match=rf"the tokenizer has {tokens} tokens, the embedding 64 rows"):
        convert(folder, tmp_path / "out", spec=spec, vocabulary=tokens)
    assert not (tmp_path / "out").exists()


def test_an_embedding_far_larger_than_the_tokenizer_is_a_mistake(folder, spec, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_MAX_UNUSED_ROWS", 3)
    with pytest.raises(UserError, match="they are not of one model"):
        convert(folder, tmp_path / "out", spec=spec, vocabulary=60)


def test_a_folder_of_another_model_is_a_mistake_that_names_both(folder, tmp_path):
    with pytest.raises(UserError, match=r"model\.name is gemma2_2b, but .* holds a gemma3 of 2 layers of 32"):
        convert(folder, tmp_path / "out", spec=MODELS["gemma2_2b"])


# ------------------------------------------------------------------------------- configurations, as they are published

GEMMA_3_1B = {
    "architectures": ["Gemma3ForCausalLM"], "final_logit_softcapping": None, "attn_logit_softcapping": None,
    "attention_bias": False, "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
    "vocab_size": 262144,
}  # fmt: skip
PUBLISHED_CONFIGS = {
    "gemma3_1b": GEMMA_3_1B,
    # Its text half leaves out whatever is transformers' default.
    "gemma3_4b": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
        "vision_config": {"hidden_size": 1152},
    },
    "gemma2_2b": {
        "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_size": 2304, "intermediate_size": 9216, "model_type": "gemma2",
        "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "bfloat16",
        "vocab_size": 256000,
    },
    "gemma_7b": {
        "architectures": ["GemmaForCausalLM"], "head_dim": 256, "hidden_size": 3072, "intermediate_size": 24576,
        "model_type": "gemma", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 16,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
        "vocab_size": 256000,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_CONFIGS)
def test_published_configurations_are_those_of_the_table(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_CONFIGS[name]))
    header = hf_config.read(tmp_path)
    assert header.spec == MODELS[name]
    assert hf_config.describe(header.spec) == name
    assert header.dtype == "bfloat16"
    assert 0 <= header.vocabulary - PUBLISHED[name].vocabulary <= 64


@pytest.mark.parametrize("name", MODELS)
def test_configurations_survive(name, tmp_path):
    hf_config.write(tmp_path, MODELS[name], vocabulary=70, dtype="float32")
    assert hf_config.read(tmp_path) == hf_config.Header(MODELS[name], 70, "float32", has_vision=False)
