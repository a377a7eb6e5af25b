"""The faults of Tunix 0.1.7 that tunix_adapter/ fixes: each as it is in Tunix, and fixed here."""

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tunix.generate import sampler as tunix_sampler
from tunix.models.gemma import model as tunix_gemma
from tunix.models.gemma3 import model as tunix_gemma3
from tunix.rl import common as tunix_common

from showwork import config, rollout
from showwork.errors import UserError
from showwork.models.specs import MODELS, GemmaSpec
from showwork.reading.answers import render_completion
from showwork.rewards import RewardSpec
from showwork.training import credit, data, losses, packing, rl, sft
from showwork.training.arms import LoadedArm
from showwork.training.curves import Curve
from showwork.training.losses import Rows
from showwork.training.passes import Split
from showwork.training.run import Run
from showwork.training.samples import Sampler
from showwork.tunix_adapter import attention, gemma, lora, parameters, supervised
from tests.numerics.conftest import ONE_DEVICE, WHOLE, flat, gradients, with_lora
from tests.numerics.test_losses import EXAMPLES, rows

# -------------------------------------------------------------------------------------------- the model's start


def mlp_gradients(model: nnx.Module) -> np.ndarray:
    _, slope = gradients(model, rows([0], [1], width=16))
    return flat([layer["mlp"] for layer in slope["layers"].values()])


def test_a_stock_gemma_has_dead_mlps_and_ours_has_not(model, spec):
    stock = gemma.build_model(spec, vocabulary=64, dtype="float32")  # Tunix's own initial weights
    assert not mlp_gradients(stock).any()
    assert (mlp_gradients(model) != 0).mean() > 0.99


def test_weights_are_drawn_at_their_scales(model):
    # Variance 1 / fan_in: 32 into the MLP, 64 out of it, D = 32 for the embedding.
    layer = model.layers[0]
    for weight, fan_in in (
        (layer.mlp.gate_proj.kernel, 32),
        (layer.mlp.down_proj.kernel, 64),
        (layer.attn.q_einsum.w, 32),
        (layer.attn.attn_vec_einsum.w, 2 * 16),
        (model.embedder.input_embedding, 32),
    ):
        assert float(jnp.std(weight[...])) == pytest.approx(fan_in**-0.5, rel=0.1)
    assert not np.any(layer.pre_attention_norm.scale[...])


def test_a_weight_depends_on_key_and_path_alone(model, spec):
    again = gemma.build_model(spec, vocabulary=64, dtype="float32")
    parameters.draw_weights(again, key=jax.random.key(0))
    np.testing.assert_array_equal(flat(nnx.state(again, nnx.Param)), flat(nnx.state(model, nnx.Param)))
    parameters.draw_weights(again, key=jax.random.key(1))
    assert np.abs(flat(nnx.state(again, nnx.Param)) - flat(nnx.state(model, nnx.Param))).max() > 0.1


@pytest.mark.parametrize("name", ["gemma_test", "gemma2_test", "gemma3_test", "gemma3_tiny"])
def test_every_family_has_local_and_global_layers_where_it_says(name):
    spec = MODELS[name]
    for index, layer in enumerate(gemma.abstract_model(spec, vocabulary=64, dtype="float32").layers):
        is_global = index in spec.global_layers
        if spec.family == "gemma3":
            assert (layer.attn.attn_type == tunix_gemma3.AttentionType.GLOBAL) == is_global
            assert layer.attn.rope_base_frequency == (spec.global_rope_base if is_global else spec.local_rope_base)
        else:
            assert (layer.attn.attn_type == tunix_gemma.AttentionType.GLOBAL) == is_global
        assert layer.attn.sliding_window_size == spec.sliding_window
    # By Tunix's own pattern a Gemma 3 of fewer than six layers has no global one.
    assert tunix_gemma3.AttentionType.GLOBAL not in tunix_gemma3.GEMMA3_ATTENTION_PATTERN[:5]


@pytest.mark.parametrize("is_adapted", [False, True], ids=["plain", "lora"])
def test_layers_that_are_alike_are_traced_once(monkeypatch, is_adapted):
    spec = dataclasses.replace(MODELS["gemma3_test"], layers=6, global_layers=(5,))
    model = gemma.build_model(spec, vocabulary=64, dtype="float32")
    if is_adapted:  # Qwix writes into each module where it is, and no two layers would be alike
        model = lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(0))
    traced: list[str] = []
    attend = attention.attend

    def counted(*args: Any, **options: Any) -> jax.Array:
        traced.append("global" if options["window"] is None else "local")
        return attend(*args, **options)

    monkeypatch.setattr(attention, "attend", counted)
    tokens = jnp.ones((2, 24), jnp.int32)
    mask = jnp.tril(jnp.ones((24, 24), bool))[None]
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state: nnx.merge(graphdef, state)(tokens, tokens, None, mask, return_hidden=True)[0])
    lowered = run.lower(state).as_text()
    assert sorted(traced) == ["global", "local"]
    assert lowered.count("func.func private @_layer") == 2
    kinds = [nnx.split(layer)[0] for layer in model.layers]
    assert [kind == kinds[0] for kind in kinds] == [True] * 5 + [False]


def test_tunix_is_imported_in_parts_and_there_when_asked_for():
    program = """
import sys
from showwork.tunix_adapter import groups, supervised
assert "pandas" not in sys.modules and "tunix.rl.agentic" not in sys.modules
import tunix
assert tunix.GRPOLearner and "tunix.rl.agentic" in sys.modules
from tunix.rl import rl_cluster
assert rl_cluster.rl_trainer.Trainer is groups.trainer.Trainer
assert tunix.sft.peft_trainer is supervised.peft_trainer
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_hidden_states_decode_to_the_logits(model):
    ids, positions = jnp.arange(16)[None] + 2, jnp.arange(16)[None]
    mask = jnp.tril(jnp.ones((1, 16, 16), bool))

    @nnx.jit
    def both(model):
        return model(ids, positions, None, mask)[0], model(ids, positions, None, mask, return_hidden=True)[0]

    logits, hidden = both(model)
    assert hidden.shape == (1, 16, 32)
    np.testing.assert_allclose(hidden @ model.embedder.input_embedding[...].T, logits, atol=1e-5)


@pytest.mark.parametrize(("family", "kv_heads"), [("gemma3", 1), ("gemma3", 2), ("gemma3", 4), ("gemma2", 1)])
@pytest.mark.parametrize("is_global", [True, False])
def test_attention_is_that_of_tunix(family, kv_heads, is_global, monkeypatch):
    # Rows of 48 places are three blocks of 20, with a window of 8; one token at a time reads a cache of 48.
    monkeypatch.setattr(attention, "ATTENTION_BLOCK", 20)
    spec = GemmaSpec(
        family, 1, 32, 64, 4, kv_heads, 16, sliding_window=8, global_layers=(0,) if is_global else (),
        attention_softcap=2.0 if family == "gemma2" else None,
    )  # fmt: skip
    model = gemma.build_model(spec, vocabulary=64, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    ours, (theirs,) = model.layers[0].attn, type(model.layers[0].attn).__bases__
    x = jax.random.normal(jax.random.key(1), (2, 48, 32))
    positions = jnp.tile(jnp.arange(48), (2, 1))
    mask = jnp.tril(jnp.ones((48, 48), bool))[None].repeat(2, axis=0).at[1, :, 3].set(False)
    found, expected = (block(ours, x, positions, None, mask)[1] for block in (ours.block.__func__, theirs.block))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    seen = jax.jit(jax.grad(lambda x: ours.block(x, positions, None, mask)[1][0, 40].sum()))(x)[0]
    assert np.flatnonzero(jnp.abs(seen).max(axis=-1)).tolist() == list(range(0 if is_global else 33, 41))

    shape = (2, 48, spec.kv_heads * 16)
    cache = {"k": jnp.zeros(shape), "v": jnp.zeros(shape), "end_index": jnp.zeros(2, jnp.int32)}
    cache, first = ours.block(x[:, :5], positions[:, :5], cache, mask[:, :5])
    np.testing.assert_allclose(first, expected[:, :5], atol=2e-6)
    decode = jax.jit(lambda *inputs: ours.block(*inputs))
    for step in range(5, 48):
        at = slice(step, step + 1)
        cache, found = decode(x[:, at], positions[:, at], cache, mask[:, at])
        np.testing.assert_allclose(found, expected[:, at], atol=2e-6)


# --------------------------------------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize(("kv_heads", "modules"), [(1, 6), (2, 5)])
def test_lora_reaches_every_projection(kv_heads, modules):
    spec = GemmaSpec("gemma3", 1, 32, 64, 2, kv_heads, 16, sliding_window=8, global_layers=(0,))
    model = gemma.build_model(spec, vocabulary=64, dtype="float32")
    adapted = lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(0))
    assert len(lora.lora_modules(adapted)) == len(lora.projections(model)) == modules
    assert len(lora.lora_modules(model)) == 0


def test_lora_on_some_projections_and_on_none_that_is_there(model):
    chosen = ("attn.q_einsum", "mlp.up_proj")
    adapted = lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(0), modules=chosen)
    assert set(lora.lora_modules(adapted)) == {f"layers.{i}.{name}" for i in range(2) for name in chosen}
    # q_einsum names one here, but none where Tunix fuses query, key and value: .*q_einsum would adapt nothing there.
    for name in ("attn.qkv_einsum", "q_einsum", "attn", ""):
        with pytest.raises(UserError, match=rf"{name} matches nothing in this model; it has attn\.q_einsum"):
            lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(0), modules=("mlp.up_proj", name))


def test_a_projection_that_qwix_passes_over_is_an_error(model, monkeypatch):
    monkeypatch.setattr(lora, "projections", lambda model: ("attn.q_einsum", "attn.absent"))
    with pytest.raises(RuntimeError, match="LoRA reached 2 modules, not 4"):
        lora.add_lora(model, rank=2, alpha=2.0, key=jax.random.key(0))


@pytest.mark.slow
def test_lora_trains_on_a_mesh_of_eight_devices():
    # Where qwix and flax don't fit together, this is where `TypeError: set_metadata takes ...` comes from.
    child = subprocess.run(
        [sys.executable, "-m", "tests.numerics.lora_on_a_mesh", "gemma2_test", "gemma3_test"],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    # Two layers of six projections each. lora_b starts at zero, so that lora_a has no gradient at the first step.
    wanted = {
        "modules": 12, "changed_adapters": 12, "changed_weights": 0, "devices": 8, "devices_of_an_adapter": 8,
        "shards": 8,
    }  # fmt: skip
    assert json.loads(child.stdout.splitlines()[-1]) == {"gemma2_test": wanted, "gemma3_test": wanted}


# ------------------------------------------------------------------------------------------------------ rollout


def test_sampling_gives_each_step_and_row_its_own_noise(words, problems, monkeypatch):
    # Tunix's own sampler begins with the same key at every call.
    assert "seed = jax.random.PRNGKey(0)" in inspect.getsource(tunix_sampler)
    calls = []

    def generate(model, prompts, *, key, generations, first_row, **_):
        calls.append((key, first_row))
        count = len(prompts) * generations
        return rollout.Generated(np.zeros((count, 1)), np.full((count, 2), 1), np.full(count, 2), np.zeros(count, bool))

    monkeypatch.setattr(rollout, "generate", generate)
    settings = config.Rl.model_validate(ARM | {"rollout": ARM["rollout"] | {"rows_per_call": 2}})
    sample = Sampler(LoadedArm(settings, None, None, words, "", (1,), ONE_DEVICE), problems, [], name="grpo")
    for step in (3, 4):
        samples = sample(problems[:2], key=step)
    assert calls == [(3, 0), (3, 2), (4, 0), (4, 2)]
    assert [p.id for p in samples.problems] == ["1", "1", "2", "2"]


def test_the_stop_token_is_trained(words, problems):
    # In RL: Tunix cuts EOS from completions, so that stopping would have no gradient.
    found = rollout.Generated(
        np.array([[2, 10]] * 2), np.array([[30, 1, 0], [31, 32, 33]]), np.array([2, 3]), np.array([False, True])
    )
    laid_out = packing.lay_out(found, pad_id=0)
    weights = credit.token_weights(laid_out["mask"], aggregation="token-mean", max_tokens=3)
    assert weights[0, :5].tolist() == pytest.approx([0, 0, 0.2, 0.2, 0])
    assert laid_out["tokens"][0, 3] == 1
    # In SFT: it is the last trained token of every example.
    completion = render_completion(problems[0].reasoning, problems[0].answer)
    example = data.encode_example(problems[0].question, completion, words, system="", stop_id=words.eos_id())
    assert (example.tokens[-1], example.trained[-1]) == (words.eos_id(), 1)
    text = words.decode(example.tokens[example.trained > 0])
    assert text == "<reasoning>\n1 + 1 = 2\n</reasoning>\n<answer>2</answer>"


def test_tunix_default_kl_has_no_gradient_on_policy():
    logits, reference = jnp.array([1.0, 0.0, -1.0]), jnp.log(jnp.array([0.2, 0.3, 0.5]))

    def expected_gradient(estimator):
        def value(logits):
            logps = jax.nn.log_softmax(logits)
            return jnp.sum(jax.lax.stop_gradient(jnp.exp(logps)) * estimator(logps, reference))

        return np.asarray(jax.grad(value)(logits))

    tunix = tunix_common.compute_kl_divergence
    np.testing.assert_allclose(expected_gradient(lambda p, q: tunix(p, q, "kl")), 0, atol=1e-6)
    ours = expected_gradient(losses.k3)
    np.testing.assert_allclose(ours, jax.nn.softmax(logits) - jnp.exp(reference), atol=1e-6)


# ----------------------------------------------------------------------------------------------------- trainers


def trainer_of(
    model: nnx.Module, *, split: Split = WHOLE, on_step: Any = lambda *_: None
) -> supervised.SupervisedTrainer:
    """Plain gradient descent."""
    settings = config.Supervised.model_construct(validate_every_steps=100, checkpoint_every_steps=100)
    return supervised.SupervisedTrainer(
        model, optax.sgd(0.1), settings, loss=sft.loss_of(model, split), on_step=on_step, on_validation=lambda *_: None
    )


def steps_of_examples(split: Split, *, steps: int = 1) -> list[Rows]:
    """Steps on two rows of 3 and 5 trained tokens."""
    one = rows([0], [1], width=16)
    cut = [
        {"tokens": one.tokens[i], "positions": one.positions[i], "segments": one.segments[i],
         "trained": (one.weights[i] > 0).astype(np.int32)}
        for i in range(len(EXAMPLES))
    ]  # fmt: skip
    return list(data.step_rows(iter(cut * steps), rows_per_step=2, split=split))


def train_supervised(model: nnx.Module, *, split: Split) -> tuple[np.ndarray, list[Any]]:
    """Weights after one step, and what was told of it."""
    trained, seen = nnx.clone(model, arrays=True), []
    trainer = trainer_of(trained, split=split, on_step=lambda *told: seen.append(told))
    trainer.train(steps_of_examples(split))
    return flat(nnx.state(trained, nnx.Param)), seen


def test_passes_of_unequal_tokens_equal_one_pass(model):
    whole, ((step, sums),) = train_supervised(model, split=WHOLE)
    parts, ((_, same_sums),) = train_supervised(model, split=Split(1, 16, 4))
    start = flat(nnx.state(model, nnx.Param))
    assert np.abs(whole - start).max() > 1e-4
    # Tunix's mean of micro-batch means would weigh the 3 tokens as much as the 5: a difference of some 1e-3.
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert (step, int(sums["tokens"]), int(same_sums["tokens"])) == (1, 8, 8)
    assert float(same_sums["nll"]) == pytest.approx(float(sums["nll"]), rel=1e-5)


def test_no_sum_of_gradients_is_kept_between_steps(model):
    # optax.MultiSteps, which adds micro-batches up in Tunix, would keep one more float a parameter.
    trainer = trainer_of(nnx.clone(model, arrays=True), split=Split(1, 16, 4))
    kept = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(trainer.optimizer, nnx.optimizer.OptState)))
    assert kept < 10


@pytest.mark.parametrize("is_adapted", [False, True], ids=["full", "lora"])
def test_weights_are_updated_where_they_are(model, is_adapted):
    # Tunix gives up the optimizer's buffers alone: for a moment, all trained weights would be there twice.
    trained = with_lora(model) if is_adapted else nnx.clone(model, arrays=True)
    kind = nnx.LoRAParam if is_adapted else nnx.Param
    reference = nnx.clone(trained)
    before, frozen = (jax.tree.leaves(state) for state in nnx.split(trained, kind, ...)[1:])
    copies = [np.array(leaf) for leaf in before]
    step, *more = steps_of_examples(WHOLE, steps=2)
    trainer = trainer_of(trained)
    trainer.train([step, *more])
    after = jax.tree.leaves(nnx.state(trained, kind))
    assert all((np.asarray(new) != old).any() for new, old in zip(after, copies, strict=True))
    assert all(leaf.is_deleted() for leaf in before) == (not is_adapted)
    if is_adapted:
        # The frozen weights are not copied, and a model that shares all of them is what it was: the KL's reference.
        assert all(a is b for a, b in zip(frozen, jax.tree.leaves(nnx.split(trained, kind, ...)[2]), strict=True))
        for leaf, copy in zip(jax.tree.leaves(nnx.state(reference, kind)), copies, strict=True):
            np.testing.assert_array_equal(leaf, copy)


ARM = {
    "start": "base",
    "prompt": "plain",
    "adapter": None,
    "optimizer": {
        "learning_rate": 0.01, "warmup_ratio": 0.0, "final_ratio": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    },
    "steps": 2, "prompts_per_step": 2, "generations": 2, "iterations": 2, "beta": 0.1,
    "epsilon_low": 0.2, "epsilon_high": 0.2, "advantage": "grpo", "loss_aggregation": "token-mean",
    "rewards": {"format": 1.0},
    "rollout": {
        "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_prompt_tokens": 64, "max_completion_tokens": 6,
        "rows_per_call": 4,
    },
    "validation_problems": 0, "validate_every_steps": 2, "watched_problems": 0, "checkpoint_every_steps": 1,
}  # fmt: skip


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def policy(spec, words) -> nnx.Module:
    shallow = dataclasses.replace(spec, layers=1, global_layers=(0,))
    model = gemma.build_model(shallow, vocabulary=len(words), dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    return model


def train_group_arm(
    policy: nnx.Module, words: Any, problems: Any, folder: Path, *, start: nnx.Module | None = None, **changes: Any
) -> tuple[np.ndarray, list[Any]]:
    """Weights and rows of the curve after a run that starts from a copy of the policy, or from `start` in place."""
    model, settings = start or nnx.clone(policy, arrays=True), config.Rl.model_validate(ARM | changes)
    curve = Curve(folder / "plot.csv", folder / "kept.csv", rl.columns(settings))
    arm = LoadedArm(settings, model, None, words, "", (words.eos_id(),), ONE_DEVICE, reference=policy)
    rl.train(arm, problems, [], Run("grpo", 0, ONE_DEVICE, Split(1, 64, 16), folder, curve))
    return flat(nnx.state(model, nnx.Param)), [(int(r["step"]), int(r["sampled_tokens"])) for r in curve.rows]


@pytest.mark.slow
def test_a_killed_group_arm_resumes_and_a_finished_one_rests(policy, words, problems, tmp_path, monkeypatch):
    # Rewards that differ within a group, so that there is something to learn.
    lengths = RewardSpec("format", lambda completions, _: [i % 2 for i, _ in enumerate(completions)], 0.0, 1.0)
    monkeypatch.setattr(credit, "load", lambda name: lengths)
    whole, rows = train_group_arm(policy, words, problems, tmp_path / "whole")
    assert np.abs(whole - flat(nnx.state(policy, nnx.Param))).max() > 1e-3
    assert [step for step, _ in rows] == [1, 2]

    generate, calls = rollout.generate, []

    def counting(*args: Any, **options: Any) -> rollout.Generated:
        calls.append(None)
        if len(calls) == 2:
            raise Killed
        return generate(*args, **options)

    monkeypatch.setattr(rollout, "generate", counting)
    with pytest.raises(Killed):
        train_group_arm(policy, words, problems, tmp_path / "killed")
    resumed, resumed_rows = train_group_arm(policy, words, problems, tmp_path / "killed")
    np.testing.assert_array_equal(resumed, whole)
    assert resumed_rows == rows

    # Tunix alone would sample and train once more before it looks at its step.
    sampled = len(calls)
    again, again_rows = train_group_arm(policy, words, problems, tmp_path / "killed")
    assert len(calls) == sampled
    np.testing.assert_array_equal(again, whole)
    assert again_rows == rows


@pytest.mark.slow
def test_a_group_arm_with_lora_trains_its_adapter_alone(policy, words, problems, tmp_path, monkeypatch):
    lengths = RewardSpec("format", lambda completions, _: [i % 2 for i, _ in enumerate(completions)], 0.0, 1.0)
    monkeypatch.setattr(credit, "load", lambda name: lengths)
    adapted = lora.add_lora(nnx.clone(policy, arrays=True), rank=2, alpha=2.0, key=jax.random.key(0))
    before = {name: np.asarray(value) for name, value in parameters.by_name(adapted).items()}
    train_group_arm(
        policy, words, problems, tmp_path, start=adapted, steps=1, iterations=1,
        adapter={"rank": 2, "alpha": 2.0, "modules": []},
    )  # fmt: skip
    after = parameters.by_name(adapted)
    changed = {name for name in before if (before[name] != np.asarray(after[name])).any()}
    # lora_b starts at zero, so that at the first step lora_a has no gradient yet.
    assert changed == {name for name in before if name.endswith("_lora_b")}


def test_prompts_that_are_all_too_long_are_a_mistake(policy, words, problems, tmp_path):
    with pytest.raises(UserError, match=r"grpo\.rollout\.max_prompt_tokens"):
        train_group_arm(policy, words, problems, tmp_path, rollout=ARM["rollout"] | {"max_prompt_tokens": 2})


def test_examples_that_are_all_too_long_are_a_mistake(policy, tmp_path):
    # Without an error, Tunix would run no step and the stage would report a loss of 0.
    arm = config.Sft.model_construct(**ARM, rows_per_step=2, max_tokens=16)
    arm = arm.model_copy(update={"optimizer": config.Optimizer.model_validate(ARM["optimizer"])})
    curve = Curve(tmp_path / "plot.csv", tmp_path / "kept.csv", sft.COLUMNS)
    with pytest.raises(UserError, match=r"sft\.max_tokens"):
        sft.train(nnx.clone(policy, arrays=True), [], [], arm, Run("sft", 0, ONE_DEVICE, WHOLE, tmp_path, curve))
