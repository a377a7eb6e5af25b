"""An arm from its start to its folder: its precision, its reference, and what is read of it afterwards."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from showwork import config, presets, tokenizer
from showwork.errors import UserError
from showwork.models import checkpoints, saving
from showwork.models.specs import MODELS
from showwork.training import arms, optimizer, rl, sft
from showwork.training.arms import LoadedArm
from showwork.training.curves import Curve
from showwork.training.data import Example
from showwork.training.logps import completion_logps
from showwork.training.losses import Rows
from showwork.training.passes import Split
from showwork.training.run import Run
from showwork.tunix_adapter import gemma, parameters
from tests.numerics.conftest import ONE_DEVICE, SENTENCES, SUPERVISED, WHOLE, flat, gradients
from tests.numerics.test_losses import rows

FULL, LORA = None, {"rank": 4, "alpha": 8.0, "modules": []}
DTYPES = ("float32", "bfloat16")
VOCABULARY = 320
SPEC = dataclasses.replace(MODELS["gemma3_test"], layers=1, sliding_window=8, global_layers=())
Load = Callable[..., LoadedArm]

both = pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
# What goes wrong at float32 goes wrong at bfloat16 too.
either = pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])


@pytest.fixture(scope="module")
def tokens() -> bytes:
    return tokenizer.train(SENTENCES, vocabulary=VOCABULARY)


@pytest.fixture
def load(tmp_path, monkeypatch, tokens) -> Load:
    """Loads an arm by its name, with these settings, in a project whose base has bfloat16 weights."""
    monkeypatch.chdir(tmp_path)
    tokenizer.save(tokens, Path("models/base"))
    model = gemma.build_model(SPEC, vocabulary=VOCABULARY, dtype="bfloat16", weights_dtype="bfloat16")
    parameters.draw_weights(model, key=jax.random.key(0))
    saving.save(model, Path("models/base"), spec=SPEC, stop_ids=(1,))

    def load_arm(name: str, *, dtype: str, kind: str = "rl", **settings: Any) -> LoadedArm:
        sections = presets.load("tiny").model_dump()[kind]["arms"]
        like = {**next(iter(sections.values())), "start": "base"}
        changes = {
            "model": {"dtype": dtype}, "hardware": {"mesh": {"fsdp": 1, "tp": 1}},
            kind: {"arms": {"first": like, name: {**like, **settings}}},
        }  # fmt: skip
        return arms.load(presets.load("tiny", changes), name, mesh=ONE_DEVICE)

    return load_arm


def trained(model: nnx.Module) -> nnx.State:
    adapter = nnx.state(model, nnx.LoRAParam)
    return adapter if jax.tree.leaves(adapter) else nnx.state(model, nnx.Param)


def run_of(folder: Path, *, split: Split = WHOLE, columns: tuple[str, ...] = sft.COLUMNS) -> Run:
    curve = Curve(folder / "plot.csv", folder / "kept.csv", columns)
    return Run("arm", 0, ONE_DEVICE, split, folder, curve)


# ------------------------------------------------------------------------------------------------- the reference


def policy_rows(count: int) -> Rows:
    """Two completions, then empty rows."""
    made = rows([0], [1], *[[]] * (count - 2), width=16)
    return made._replace(advantages=np.where(made.weights > 0, [[1.0], [-1.0], *[[0.0]] * (count - 2)], 0).astype("f"))


# Where policy and reference are the same, their log-probabilities are those of two compiled programs: k3 is half the
# square of the difference, which is some 1e-6 in float32. In bfloat16, of eight bits, it is some 1e-2.
NOTHING = {"float32": 1e-9, "bfloat16": 1e-3}


@both
@either
def test_the_policy_begins_at_the_reference_which_then_stays_where_it_is(load, tmp_path, dtype, adapter):
    rates = adamw(0.01).model_dump()
    arm = load("grpo", dtype=dtype, adapter=adapter, beta=0.1, iterations=2, optimizer=rates)
    split = Split(2, 16, 3)
    run = run_of(tmp_path, split=split, columns=rl.columns(arm.settings))
    trainer, kl = rl.build_trainer(arm, run), []
    asked = rl.earlier_logps(arm, policy_rows(split.capacity(2, 16)), run)
    for _ in range(2):
        auxes = trainer.update(asked)
        kl += [float(aux["kl"] / aux["tokens"]) for aux in auxes]
        assert {float(aux["tokens"]) for aux in auxes} == {8}
    # Where the reference was the policy once more, it would be 0 for ever; where the gradient's passes were summed up
    # before the reference was asked, it would begin with what an update has changed.
    assert kl[0] == pytest.approx(0, abs=NOTHING[dtype])
    assert min(kl[1:]) > 10 * NOTHING[dtype]
    again = rl.earlier_logps(arm, asked, run)
    np.testing.assert_array_equal(again.reference_logps, asked.reference_logps)
    assert np.abs(again.old_logps - asked.old_logps).max() > 0.01
    trainer.close()


@pytest.mark.slow
@both
@either
@pytest.mark.parametrize("split", [WHOLE, Split(1, 1, 1), Split(1, 16, 5), Split(2, 16, 3), Split(4, 10**6, 64)])
def test_at_the_reference_there_is_no_kl_and_no_clip_in_any_split(load, tmp_path, dtype, adapter, split):
    arm = load("grpo", dtype=dtype, adapter=adapter, beta=0.1, iterations=2)
    run = run_of(tmp_path, split=split)
    asked = rl.earlier_logps(arm, policy_rows(split.capacity(6, 16)), run)
    wrt = nnx.LoRAParam if adapter else nnx.Param
    (_, aux), _ = gradients(arm.model, asked, rl.loss_of(arm.settings), split=split, wrt=wrt)
    assert float(aux["kl"] / aux["tokens"]) == pytest.approx(0, abs=NOTHING[dtype])
    assert float(aux["clipped"]) == 0
    np.testing.assert_allclose(asked.reference_logps, asked.old_logps, atol=1e-6)


# ------------------------------------------------------------------------------------------------- precision


def dtypes(state: Any) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@both
@either
def test_what_is_trained_is_float32_and_what_is_frozen_is_what_is_computed_in(load, tmp_path, dtype, adapter):
    arm = load("grpo", dtype=dtype, adapter=adapter, beta=0.1)
    assert arm.model.compute_dtype == dtype
    assert dtypes(trained(arm.model)) == {"float32"}
    trainer = rl.build_trainer(arm, run_of(tmp_path))
    assert dtypes(nnx.state(trainer.optimizer, nnx.optimizer.OptState)) == {"float32"}
    frozen = nnx.state(arm.model, nnx.All(nnx.Param, nnx.Not(nnx.LoRAParam))) if adapter else nnx.state(arm.reference)
    assert dtypes(frozen) == {dtype}
    trainer.close()


def adamw(rate: float) -> config.Optimizer:
    return config.Optimizer(
        learning_rate=rate, warmup_ratio=0.0, final_ratio=1.0, b1=0.9, b2=0.99, weight_decay=0.0, max_grad_norm=1.0
    )


STEPS = 100


def moved(weights: nnx.State, *, rate: float) -> np.ndarray:
    """How far each weight is moved by AdamW, on a gradient that is steady but for noise of the same size."""
    before = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(weights)])
    rule = optimizer.build(adamw(rate), steps=STEPS)

    def step(carry: Any, key: jax.Array) -> Any:
        weights, state = carry
        slope = 1e-3 * (1 + jax.random.normal(key, weights.shape, weights.dtype))
        updates, state = rule.update(slope, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    keys = jax.random.split(jax.random.key(1), STEPS)
    (after, _), _ = jax.jit(lambda weights: jax.lax.scan(step, (weights, rule.init(weights)), keys))(before)
    return np.asarray(after, np.float64) - np.asarray(before, np.float64)


@pytest.mark.parametrize(("adapter", "rate"), [(FULL, 3e-6), (FULL, 2e-5), (LORA, 3e-6)], ids=str)
def test_small_updates_arrive_at_bfloat16_as_at_float32(load, adapter, rate):
    whole, half = (trained(load("sft", kind="sft", dtype=dtype, adapter=adapter).model) for dtype in DTYPES)
    # Of LoRA the matrices A: B begins at 0, where no update is small.
    is_drawn = flat(whole) != 0
    wanted = moved(whole, rate=rate)[is_drawn]
    # Adam's step is mean / root mean square of the gradient: 1 / sqrt(1 + 1) of the rate.
    assert np.abs(wanted).mean() == pytest.approx(STEPS * rate / 2**0.5, rel=0.05)
    found = moved(half, rate=rate)[is_drawn]
    assert np.abs(found).mean() > 0.95 * np.abs(wanted).mean()
    assert (found != 0).mean() > 0.95
    # The known bug: of bfloat16 weights, an update of less than a 512th of a weight is rounded away.
    bug = moved(parameters.in_dtype(half, jnp.dtype("bfloat16")), rate=rate)[is_drawn]
    assert (bug != 0).mean() < 0.1


EXAMPLES = [
    Example(np.random.default_rng(seed).integers(2, VOCABULARY, 16).astype(np.int32), np.ones(16, np.int32))
    for seed in range(4)
]


def train(model: nnx.Module, folder: Path, *, rate: float, steps: int) -> np.ndarray:
    """How far each weight is moved by a whole training."""
    settings = config.Supervised(
        optimizer=adamw(rate), steps=steps, rows_per_step=2, max_tokens=16, validate_every_steps=10**6,
        checkpoint_every_steps=10**6,
    )  # fmt: skip
    before = flat(trained(model))
    sft.train(model, EXAMPLES, [], settings, run_of(folder))
    return flat(trained(model)) - before


@pytest.mark.slow  # three trainers each
@both
def test_a_whole_training_at_bfloat16_moves_as_far_as_at_float32(load, tmp_path, adapter):
    models = {dtype: load("sft", kind="sft", dtype=dtype, adapter=adapter).model for dtype in DTYPES}
    rounded = load("sft", kind="sft", dtype="bfloat16", adapter=adapter).model  # the known bug
    nnx.update(rounded, parameters.in_dtype(nnx.state(rounded), jnp.dtype("bfloat16")))
    is_drawn = flat(trained(rounded)) != 0
    wanted, found, bug = (
        train(model, tmp_path / name, rate=3e-6, steps=60)[is_drawn]
        for name, model in {**models, "rounded": rounded}.items()
    )
    assert np.abs(found).mean() > 0.95 * np.abs(wanted).mean()
    assert (found != 0).mean() > 0.95
    assert np.abs(bug).mean() < 0.1 * np.abs(wanted).mean()


# ------------------------------------------------------------------------------------------ what is read afterwards


def changed(arm: LoadedArm) -> LoadedArm:
    """The arm as after a training that has moved its weights by more than bfloat16 rounds away, and by less."""
    state = trained(arm.model)
    keys = iter(jax.random.split(jax.random.key(5), len(jax.tree.leaves(state))))
    sizes = jnp.array([1e-5, 1e-3, 0.1])
    noise = lambda leaf, key: jax.random.normal(key, leaf.shape) * jax.random.choice(key, sizes, leaf.shape)  # noqa: E731
    nnx.update(arm.model, jax.tree.map(lambda leaf: leaf + noise(leaf, next(keys)), state))
    return arm


def logps_of(model: nnx.Module) -> np.ndarray:
    """Of all tokens of a row, as the policy that is trained has them."""
    row = EXAMPLES[0].tokens[None]
    everything = Rows(row, np.arange(16, dtype=np.int32)[None], np.ones_like(row), np.ones((1, 16), np.float32))
    return completion_logps(model, everything, loss=SUPERVISED, split=WHOLE, mesh=ONE_DEVICE)


def read(name: str, dtype: str) -> nnx.Module:
    return checkpoints.load(Path("models") / name, dtype=dtype, mesh=ONE_DEVICE).model


@both
@either
def test_what_is_read_back_is_what_training_ended_with(load, dtype, adapter):
    arm = changed(load("first", dtype=dtype, adapter=adapter))
    wanted = logps_of(arm.model)
    assert np.abs(wanted - logps_of(read("base", dtype))).max() > 0.1
    arm.save("first")
    np.testing.assert_allclose(logps_of(read("first", dtype)), wanted, atol=1e-5)
    # And it is where the next arm begins, as its policy and as its reference.
    following = load("second", dtype=dtype, adapter=adapter, start="first", beta=0.1)
    np.testing.assert_allclose(logps_of(following.model), wanted, atol=1e-5)
    np.testing.assert_allclose(logps_of(following.reference), wanted, atol=1e-5)


@either
def test_an_adapter_goes_on_in_one_of_greater_rank_or_in_all_weights(load, dtype):
    arm = changed(load("first", dtype=dtype, adapter=LORA))
    wanted = logps_of(arm.model)
    arm.save("first")
    # Alpha / rank was 8 / 4: twice the product.
    greater = load("second", dtype=dtype, adapter={**LORA, "rank": 8, "alpha": 8.0}, start="first")
    np.testing.assert_allclose(logps_of(greater.model), wanted, atol=1e-5)
    every = load("second", dtype=dtype, adapter=FULL, start="first")
    assert dtypes(trained(every.model)) == {"float32"}
    # In bfloat16 the sum of weight and product is rounded, where it was computed apart before.
    rounding = {"float32": 1e-5, "bfloat16": 0.1}[dtype]
    np.testing.assert_allclose(logps_of(every.model), wanted, atol=rounding)
    with pytest.raises(UserError, match=r"first has an adapter of rank 4, into which one of rank 2 does not go"):
        load("second", dtype=dtype, adapter={**LORA, "rank": 2}, start="first")
