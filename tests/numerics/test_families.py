"""Every generation of Gemma: against transformers, which writes and reads its own layout, and against itself.

What needs PyTorch is skipped where that is not installed; CI installs it.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma import model as tunix_gemma

from showwork import rollout
from showwork.models import checkpoints, layout, published, saving
from showwork.models.specs import MODELS, PUBLISHED, GemmaSpec
from showwork.models.weights import Source
from showwork.training.logps import completion_logps
from showwork.training.losses import Rows
from showwork.tunix_adapter import gemma, lora, parameters
from tests.numerics.conftest import ALPHA, ONE_DEVICE, RANK, SUPERVISED, WHOLE, gradients, with_lora

WINDOW = 8
IDS = [2, 5, 9, 17, 33, 60, 4, 4, 8, 12, 20, 31, 7, 1, 44, 45, 46, 47, 3, 2, 30, 29]  # longer than twice the window

# Softcaps that bite at the scale of random weights.
SPECS: dict[str, GemmaSpec] = {
    "gemma": MODELS["gemma_test"],  # the 7B's way: as many key-value heads as heads
    "gemma, one kv head": dataclasses.replace(MODELS["gemma_test"], kv_heads=1),  # the 2B's
    "gemma2": dataclasses.replace(
        MODELS["gemma2_test"], sliding_window=WINDOW, attention_softcap=2.0, final_softcap=3.0
    ),
    "gemma3": dataclasses.replace(MODELS["gemma3_test"], sliding_window=WINDOW),
    "gemma3, scaled": dataclasses.replace(
        MODELS["gemma3_test"], heads=4, kv_heads=2, sliding_window=WINDOW, global_rope_scale=8.0
    ),
}  # fmt: skip
# Families that conftest's model, a Gemma 3 with one key-value head, does not cover.
OTHERS = ("gemma", "gemma2")


def build(name: str) -> nnx.Module:
    model = gemma.build_model(SPECS[name], vocabulary=64, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    return model


def rows_of(ids: list[int]) -> Rows:
    """One row with one sequence, whose loss is the mean over all of its tokens but the first."""
    tokens = np.array([ids], np.int32)
    positions, segments = np.arange(len(ids), dtype=np.int32)[None], np.ones_like(tokens)
    return Rows(tokens, positions, segments, np.full(tokens.shape, 1 / len(ids), np.float32))


@pytest.fixture(scope="module")
def models() -> dict[str, nnx.Module]:
    return {name: build(name) for name in OTHERS}


# --------------------------------------------------------------------------------------- against transformers


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers(torch: Any) -> Any:
    return pytest.importorskip("transformers")


def their_config(spec: GemmaSpec, transformers: Any) -> Any:
    """In transformers' own keys, independent of what the package writes."""
    shape = {
        "vocab_size": 64, "hidden_size": spec.width, "intermediate_size": spec.hidden,
        "num_hidden_layers": spec.layers, "num_attention_heads": spec.heads, "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
    }  # fmt: skip
    if spec.family == "gemma":
        return transformers.GemmaConfig(**shape)
    kinds = ["full_attention" if i in spec.global_layers else "sliding_attention" for i in range(spec.layers)]
    shape |= {"query_pre_attn_scalar": spec.head_dim, "sliding_window": spec.sliding_window, "layer_types": kinds}
    if spec.family == "gemma2":
        caps = {
            "attn_logit_softcapping": spec.attention_softcap, "final_logit_softcapping": spec.final_softcap,
        }  # fmt: skip
        return transformers.Gemma2Config(**shape, **caps)
    scaled = {"rope_type": "linear", "factor": spec.global_rope_scale} if spec.global_rope_scale != 1 else None
    return transformers.Gemma3TextConfig(**shape, rope_scaling=scaled)


def randomise(theirs: Any, torch: Any) -> None:
    """Norms included, which start at zero; large enough that windows and caps show in the logits."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)


def logits_by_transformers(theirs: Any, torch: Any) -> np.ndarray:
    with torch.no_grad():
        return theirs.eval()(torch.tensor([IDS])).logits[0].float().numpy()


def open_with_transformers(folder: Path, transformers: Any, torch: Any) -> Any:
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return theirs


@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
@pytest.mark.parametrize("name", SPECS)
def test_what_transformers_writes_gives_its_logits(name, shard_size, torch, transformers, tmp_path, logits_of):
    spec = SPECS[name]
    config = their_config(spec, transformers)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(theirs, torch)
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "20KB")
    ours, read = checkpoints.load(tmp_path, dtype="float32")
    assert read == spec
    wanted = logits_by_transformers(theirs, torch)
    np.testing.assert_allclose(logits_of(ours, IDS), wanted, atol=1e-4)
    if spec.sliding_window:  # the window decides, so that a wrong one would show
        config.sliding_window = 2 * len(IDS)
        without = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        without.load_state_dict(theirs.state_dict())
        assert np.abs(logits_by_transformers(without, torch) - wanted)[WINDOW:].max() > 0.1


def test_the_text_half_of_a_model_that_sees(torch, transformers, tmp_path, logits_of):
    spec = SPECS["gemma3, scaled"]
    text = their_config(spec, transformers)
    text.vocab_size = 66  # two rows that no token has
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    theirs = transformers.Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    randomise(theirs, torch)
    theirs.save_pretrained(tmp_path / "theirs")
    with published.opened(Source(tmp_path / "theirs", None)) as found:
        saving.convert(found, tmp_path / "ours", spec=spec, vocabulary=64, stop_ids=(1,))
    ours, read = checkpoints.load(tmp_path / "ours", dtype="float32")
    assert read == spec
    np.testing.assert_allclose(logits_of(ours, IDS), logits_by_transformers(theirs, torch)[:, :64], atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_transformers_opens_what_is_written_after_full_training(name, torch, transformers, tmp_path, logits_of):
    model, before = build(name), logits_of(build(name), IDS)
    _, slope = gradients(model, rows_of(IDS))
    nnx.update(model, jax.tree.map(lambda w, g: w - 0.5 * g, nnx.state(model, nnx.Param), slope))
    wanted = logits_of(model, IDS)
    assert np.abs(wanted - before).max() > 0.01
    saving.save(model, tmp_path, spec=SPECS[name], stop_ids=(1,))
    theirs = open_with_transformers(tmp_path, transformers, torch)
    np.testing.assert_allclose(logits_by_transformers(theirs, torch), wanted, atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_transformers_and_peft_open_what_is_written_after_lora(name, torch, transformers, tmp_path, logits_of):
    model = build(name)
    adapted = with_lora(model)
    wanted = logits_of(adapted, IDS)
    assert np.abs(wanted - logits_of(model, IDS)).max() > 0.01
    saving.save(model, tmp_path / "base", spec=SPECS[name], stop_ids=(1,))
    saving.save_adapted(adapted, tmp_path / "adapted", start=tmp_path / "base", rank=RANK, alpha=ALPHA)
    merged, spec = checkpoints.load_merged(tmp_path / "adapted", dtype="float32")
    saving.save(merged, tmp_path / "merged", spec=spec, stop_ids=(1,))
    theirs = open_with_transformers(tmp_path / "merged", transformers, torch)
    np.testing.assert_allclose(logits_by_transformers(theirs, torch), wanted, atol=1e-4)

    peft = pytest.importorskip("peft")
    # What lies beside the adapter are the weights that it was trained on.
    base = open_with_transformers(tmp_path / "adapted", transformers, torch)
    both = peft.PeftModel.from_pretrained(base, tmp_path / "adapted" / "adapter")
    np.testing.assert_allclose(logits_by_transformers(both, torch), wanted, atol=1e-4)


# ------------------------------------------------------------------------------------------- against themselves


@pytest.mark.parametrize("name", OTHERS)
def test_reading_back_gives_equal_logits(name, models, tmp_path, logits_of):
    saving.save(models[name], tmp_path, spec=SPECS[name], stop_ids=(1,))
    loaded, read = checkpoints.load(tmp_path, dtype="float32")
    assert read == SPECS[name]
    np.testing.assert_array_equal(logits_of(loaded, IDS), logits_of(models[name], IDS))


def test_tunix_masks_a_token_of_gemma_2_from_itself():
    # Position 0 at place 12, after twelve of padding: its window ends at place 7.
    mask = tunix_gemma._create_sliding_mask(jnp.array([[0]]), cache_len=16, sliding_window_size=WINDOW)
    assert not mask[0, 0, 12]


@pytest.mark.parametrize("name", OTHERS)
def test_greedy_is_argmax_by_whole_passes(name, models, logits_of):
    # Left padding, a cache, and prompts and completions that are longer than the window.
    model, prompts = models[name], [[2, *range(10, 23)], [2, 30, 31], [2]]
    found = rollout.generate(
        model, rollout.left_pad(prompts, pad_id=0), key=jax.random.key(0), generations=1,
        decoding=rollout.Decoding(rollout.Sampling(greedy=True), max_tokens=12, stop_ids=(), pad_id=0),
    )  # fmt: skip
    for prompt, tokens in zip(prompts, found.tokens, strict=True):
        ids = list(prompt)
        for token in tokens:
            assert int(logits_of(model, ids)[-1][1:].argmax()) + 1 == token
            ids.append(int(token))


@pytest.mark.parametrize("name", OTHERS)
def test_packed_rows_are_read_as_they_are_alone(name, models, logits_of):
    # Softcap of the logits, positions that restart, and a window that ends within a segment: 5 tokens, then 11.
    tokens, cut = IDS[:16], 5
    rows = rows_of(tokens)._replace(
        positions=np.array([[*range(cut), *range(16 - cut)]]), segments=np.array([[1] * cut + [2] * (16 - cut)])
    )
    found = completion_logps(models[name], rows, loss=SUPERVISED, split=WHOLE, mesh=ONE_DEVICE)[0]
    for part, start in ((tokens[:cut], 0), (tokens[cut:], cut)):
        logps = jax.nn.log_softmax(logits_of(models[name], part))
        wanted = [float(logps[i, token]) for i, token in enumerate(part[1:])]
        np.testing.assert_allclose(found[start + 1 : start + len(part)], wanted, atol=1e-4)


def test_gemma_2_caps_its_logits(models):
    hidden = jnp.zeros((1, 32)).at[0, 3].set(100)  # a single term, in whatever order terms are added
    raw = np.asarray(models["gemma2"].embedder.decode(hidden))
    assert np.abs(raw).max() > 3
    np.testing.assert_allclose(models["gemma2"].decode(hidden), 3 * np.tanh(raw / 3), rtol=1e-6)
    np.testing.assert_array_equal(models["gemma"].decode(hidden), models["gemma"].embedder.decode(hidden))


@pytest.mark.parametrize(("name", "modules"), [("gemma", 2 * 5), ("gemma2", 2 * 6)])
def test_lora_reaches_every_projection(name, modules, models):
    adapted = lora.add_lora(models[name], rank=2, alpha=2.0, key=jax.random.key(0))
    assert len(lora.lora_modules(adapted)) == modules


# Parameters, embedding included, of the published weights; Gemma 3 4B has 0.4 billion more for vision.
PARAMETERS = {
    "gemma_2b": 2_506_172_416, "gemma_7b": 8_537_680_896, "gemma2_2b": 2_614_341_888, "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952, "gemma3_4b": 3_880_099_328,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_model_has_its_size(name):
    placed = layout.places(MODELS[name], vocabulary=PUBLISHED[name].vocabulary)
    assert sum(math.prod(place.shape) for place in placed.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["gemma_2b", "gemma2_2b", "gemma3_270m"])
def test_a_published_model_is_built_without_weights(name):
    vocabulary = PUBLISHED[name].vocabulary
    model = gemma.abstract_model(MODELS[name], vocabulary=vocabulary, dtype="bfloat16", weights_dtype="bfloat16")
    weights = parameters.by_name(model)
    assert all(isinstance(weight, jax.ShapeDtypeStruct) for weight in weights.values())
    assert {weight.dtype for weight in weights.values()} == {jnp.dtype("bfloat16")}
    assert sum(weight.size for weight in weights.values()) == PARAMETERS[name]
    placed = layout.places(MODELS[name], vocabulary=PUBLISHED[name].vocabulary)
    assert {place.leaf for place in placed.values()} == set(weights)
