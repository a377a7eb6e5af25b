"""Right with any split: what a device takes at a time, how rows are packed and where they are change no number."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.interpreters import pxla

from showwork import devices, rollout
from showwork.models.specs import MODELS, GemmaSpec
from showwork.training import credit, packing
from showwork.training.losses import Objective, Rows, policy_loss
from showwork.training.passes import Split, in_passes, take, used
from showwork.tunix_adapter import gemma, parameters
from tests.numerics.conftest import ONE_DEVICE, SUPERVISED, VOCABULARY, differentiate, flat, gradients, with_lora

# A window of 5 and caps that bite at the scale of random weights.
SPECS: dict[str, GemmaSpec] = {
    "gemma": dataclasses.replace(MODELS["gemma_test"], layers=1, global_layers=(0,)),
    "gemma2": dataclasses.replace(
        MODELS["gemma2_test"], sliding_window=5, attention_softcap=2.0, final_softcap=3.0
    ),
    "gemma3": dataclasses.replace(MODELS["gemma3_test"], sliding_window=5),
}  # fmt: skip
ON_POLICY = Objective(beta=0.0, epsilon_low=0.2, epsilon_high=0.3, temperature=1.0)
OFF_POLICY = Objective(beta=0.3, epsilon_low=0.2, epsilon_high=0.3, temperature=0.8)
PROMPTS, GENERATIONS, LENGTH = 3, 2, 16


@functools.cache
def build(name: str) -> nnx.Module:
    """A model by the name of its family; with " lora", its adapted copy."""
    if name.endswith(" lora"):
        return with_lora(build(name.removesuffix(" lora")))
    model = gemma.build_model(SPECS[name], vocabulary=VOCABULARY, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    return model


def wrt(name: str) -> Any:
    return nnx.LoRAParam if name.endswith(" lora") else nnx.Param


# -------------------------------------------------------------------------------------- the loss, without all of it


@functools.partial(jax.jit, static_argnames=("graphdef", "objective"))
def _naive(graphdef: Any, trained: Any, rest: Any, rows: Rows, objective: Objective | None) -> Any:
    """Loss, sums and gradients of rows that hold one sequence each: all logits at once, differentiated by JAX."""

    def value(trained: Any) -> Any:
        mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))[None].repeat(len(rows.tokens), axis=0)
        model = nnx.merge(graphdef, trained, rest)
        logits = model(rows.tokens, rows.positions, None, mask)[0][:, :-1]
        targets, weights = rows.tokens[:, 1:, None], rows.weights[:, 1:]
        every = jax.nn.log_softmax(logits / (objective.temperature if objective else 1.0), axis=-1)
        logp, counts = jnp.take_along_axis(every, targets, axis=-1)[..., 0], weights != 0
        if objective is None:
            return -jnp.sum(weights * logp), {"nll": -jnp.sum(logp * counts), "tokens": jnp.sum(counts)}
        aux = {"tokens": jnp.sum(counts), "entropy": -jnp.sum(jnp.sum(jnp.exp(every) * every, axis=-1) * counts)}
        advantages = rows.advantages[:, 1:]
        old = jax.lax.stop_gradient(logp) if rows.old_logps is None else rows.old_logps[:, 1:]
        ratio = jnp.exp(logp - old)
        clipped = jnp.clip(ratio, 1 - objective.epsilon_low, 1 + objective.epsilon_high)
        gain = jnp.minimum(advantages * ratio, advantages * clipped)
        aux["clipped"] = jnp.sum((advantages * clipped < advantages * ratio) & counts)
        if rows.reference_logps is not None:
            difference = rows.reference_logps[:, 1:] - logp
            kl = jnp.exp(difference) - 1 - difference
            aux["kl"] = jnp.sum(kl * counts)
            gain -= objective.beta * kl
        return -jnp.sum(gain * weights), aux

    return jax.value_and_grad(value, has_aux=True)(trained)


def random_step(seed: int, *, objective: Objective | None) -> dict[str, np.ndarray]:
    """A step's completions of random lengths after their prompts, one a row, with random values of every token."""
    rng = np.random.default_rng(seed)
    prompts, count = rng.integers(1, 7, PROMPTS), PROMPTS * GENERATIONS
    lengths = rng.integers(1, 8, count)
    tokens = rng.integers(2, VOCABULARY, (PROMPTS, 6))
    padded = [np.where(np.arange(6) < 6 - length, 0, row) for length, row in zip(prompts, tokens, strict=True)]
    generated = rollout.Generated(
        prompt_tokens=np.repeat(padded, GENERATIONS, axis=0),
        tokens=np.where(np.arange(8) < lengths[:, None], rng.integers(2, VOCABULARY, (count, 8)), 0),
        lengths=lengths, is_truncated=np.zeros(count, bool),
    )  # fmt: skip
    rows = packing.lay_out(generated, pad_id=0)
    rows = {name: value[:, :LENGTH] for name, value in rows.items()}
    mask = rows["mask"].astype(np.float32)
    rows["weights"] = credit.token_weights(mask, aggregation="sequence-mean-token-mean", max_tokens=8)
    if objective:
        near = lambda: (np.float32(-np.log(VOCABULARY)) + rng.normal(0, 0.5, mask.shape).astype(np.float32)) * mask  # noqa: E731
        rows["advantages"] = rng.normal(0, 1, (count, 1)).astype(np.float32) * mask
        if objective is OFF_POLICY:
            rows |= {"old_logps": near(), "reference_logps": near()}
    return rows


def packed(rows: dict[str, np.ndarray], split: Split, width: int) -> Rows:
    groups = np.repeat(np.arange(PROMPTS), GENERATIONS)
    count = split.capacity(len(groups), width)
    made = packing.pack(rows, groups, width=width, count=count, parts=split.devices)
    del made["mask"]
    return Rows(**made)


def check(
    name: str, objective: Objective | None, split: Split, width: int, mesh: jax.sharding.Mesh = ONE_DEVICE
) -> None:
    """That packed rows in passes have the loss, the sums and the gradient of the naive loss of one sequence a row."""
    model, loss = build(name), policy_loss(objective) if objective else SUPERVISED
    placed = nnx.clone(model)
    devices.place(placed, mesh)
    for seed in range(3):
        step = random_step(seed, objective=objective)
        alone = Rows(**{name: value for name, value in step.items() if name != "mask"})
        (wanted, sums), slope = _naive(*nnx.split(model, wrt(name), ...), alone, objective)
        (found, found_sums), found_slope = gradients(
            placed, packed(step, split, width), loss, split=split, wrt=wrt(name), mesh=mesh
        )
        assert float(found) == pytest.approx(float(wanted), rel=1e-5, abs=1e-6)
        assert jax.tree.map(float, found_sums) == pytest.approx(jax.tree.map(float, sums), rel=1e-5)
        assert np.abs(flat(slope)).max() > 1e-2
        np.testing.assert_allclose(flat(found_slope), flat(slope), rtol=1e-4, atol=2e-6)


# Devices, tokens of a pass, logits at a time, and the width that sequences of at most 13 tokens are packed to.
SPLITS = {
    "one pass": (Split(1, 1000, 1000), 16), "a row a pass, a logit at a time": (Split(1, 1, 1), 16),
    "two rows a pass": (Split(1, 48, 5), 24), "two devices": (Split(2, 16, 3), 16),
    "four devices": (Split(4, 32, 7), 24), "two devices, one pass": (Split(2, 1000, 64), 40),
}  # fmt: skip
CASES = [
    ("gemma3", OFF_POLICY, "a row a pass, a logit at a time"), ("gemma3", OFF_POLICY, "two rows a pass"),
    ("gemma3", OFF_POLICY, "four devices"), ("gemma2", OFF_POLICY, "two devices"),
    ("gemma", ON_POLICY, "two rows a pass"),
    ("gemma3 lora", OFF_POLICY, "two devices"), ("gemma lora", None, "four devices"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "objective", "split"), CASES)
def test_no_split_changes_loss_sums_or_gradient(name, objective, split):
    check(name, objective, *SPLITS[split])


# A third of all: each model with each objective in two splits, and each split with each model in one objective.
MORE = [
    (name, objective, split)
    for i, name in enumerate([*SPECS, *(f"{name} lora" for name in SPECS)])
    for j, objective in enumerate([None, ON_POLICY, OFF_POLICY])
    for k, split in enumerate(SPLITS)
    if (i + j + k) % 3 == 0 and (name, objective, split) not in CASES
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "objective", "split"), MORE)
def test_no_split_changes_loss_sums_or_gradient_of_any_model(name, objective, split):
    check(name, objective, *SPLITS[split])


# ------------------------------------------------------------------------------------------------ several devices


@pytest.fixture
def in_parts(monkeypatch):
    """Weights and activations in parts on devices of a CPU, as on accelerators."""

    def shard(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        mesh = pxla.thread_resources.env.physical_mesh
        if mesh.empty:
            return x
        return jax.lax.with_sharding_constraint(x, jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)))

    monkeypatch.setattr(devices, "_is_cpu", lambda mesh: False)
    monkeypatch.setattr(gemma.sharding_utils, "shard", shard)


def mesh_of(fsdp: int, tp: int) -> jax.sharding.Mesh:
    """Of the last devices, so that it is none that a test has compiled for without parts."""
    return jax.sharding.Mesh(np.array(jax.devices()[-fsdp * tp :]).reshape(fsdp, tp), devices.AXES)


MESHES = [("gemma", (2, 2)), ("gemma lora", (2, 1))]


@pytest.mark.parametrize(("name", "shape"), MESHES)
def test_no_mesh_changes_loss_sums_or_gradient(name, shape, in_parts):
    placed = nnx.clone(build(name))
    devices.place(placed, mesh_of(*shape))
    kernel = placed.layers[0].mlp.gate_proj.kernel[...]
    assert kernel.addressable_shards[0].data.size == kernel.size // (shape[0] * shape[1])
    check(name, OFF_POLICY, Split(shape[0], 24, 5), 24, mesh_of(*shape))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 1), (4, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3", "gemma lora", "gemma3 lora"])
def test_no_mesh_changes_loss_sums_or_gradient_of_any_model(name, shape, in_parts):
    if (name, shape) not in MESHES:
        check(name, OFF_POLICY, Split(shape[0], 24, 5), 24, mesh_of(*shape))


# ------------------------------------------------------------------------------------------------------- passes


def test_rows_of_a_pass_by_hand():
    # 100 tokens are three rows of 32. Seven rows are one pass of three and two more on one device; on two devices
    # with four rows each, a pass of three and one more.
    split = Split(1, 100, 8)
    assert (split.rows(7, 32), split.capacity(7, 32)) == (3, 9)
    split = Split(2, 100, 8)
    assert (split.rows(4, 32), split.capacity(7, 32)) == (3, 12)
    # A row at least, and no more rows than there are.
    assert (Split(1, 31, 8).rows(7, 32), Split(1, 31, 8).capacity(7, 32)) == (1, 7)
    assert (Split(4, 10**6, 8).rows(2, 32), Split(4, 10**6, 8).capacity(7, 32)) == (2, 8)


def test_a_pass_takes_the_next_rows_of_each_device():
    rows = jnp.arange(12)[:, None] * jnp.ones((1, 3), jnp.int32)
    found = [take(rows, number, rows_per_pass=2, devices=2)[:, 0].tolist() for number in range(3)]
    assert found == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    # The second device has five rows with a segment, so three passes of two rows; without rows there is none.
    segments = jnp.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0])[:, None]
    assert int(used(segments, rows_per_pass=2, devices=2)) == 3
    assert int(used(jnp.zeros_like(segments), rows_per_pass=2, devices=2)) == 0


def test_rows_without_a_segment_are_not_read_and_compile_nothing():
    # Six sequences of at most 13 tokens, a row of 16 a pass.
    split, model, loss, programs, fills = Split(1, 16, 3), build("gemma"), policy_loss(ON_POLICY), set(), set()
    for seed in range(4):
        rows = packed(random_step(seed, objective=ON_POLICY), split, 16)
        (value, _), slope = gradients(model, rows, loss, split=split)
        is_used = rows.segments.any(axis=1, keepdims=True)
        spoilt = rows._replace(
            weights=np.where(is_used, rows.weights, np.float32(np.nan)), tokens=np.where(is_used, rows.tokens, 10**6)
        )
        (again, _), other = gradients(model, spoilt, loss, split=split)
        assert float(again) == float(value)
        np.testing.assert_array_equal(flat(other), flat(slope))
        programs.add(differentiate._cache_size())
        fills.add(int(is_used.sum()))
    assert len(fills) > 1
    assert len(programs) == 1


def test_layers_of_an_adapted_model_are_recomputed_within_a_pass():
    # As Tunix differentiates. nnx.remat fails there: a pass's model is made inside, and its frozen weights outside.
    model, split = build("gemma lora"), Split(1, 32, 8)
    rows = packed(random_step(0, objective=ON_POLICY), split, 16)
    remade = with_lora(gemma.build_model(SPECS["gemma"], vocabulary=VOCABULARY, dtype="float32", remat=True))
    nnx.update(remade, nnx.state(model))

    @nnx.jit
    def run(model: nnx.Module) -> Any:
        loss = in_passes(policy_loss(ON_POLICY), split=split, wrt=nnx.LoRAParam)
        return nnx.value_and_grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam), has_aux=True)(model, rows)

    (found, _), found_slope = run(remade)
    (loss, _), slope = gradients(model, rows, policy_loss(ON_POLICY), split=split, wrt=nnx.LoRAParam)
    assert float(found) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(flat(found_slope), flat(slope), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------- half precision


@functools.cache
def build_half() -> nnx.Module:
    """Computes in bfloat16, with float32 weights."""
    model = gemma.build_model(SPECS["gemma"], vocabulary=VOCABULARY, dtype="bfloat16")
    nnx.update(model, nnx.state(build("gemma")))
    return model


def test_gradients_are_summed_in_float32_whatever_is_computed_in():
    # 64 equal rows, each a pass, have 64 times the gradient of one, bit by bit but for the last ones: in bfloat16 a sum
    # of equal terms stalls by the 256th part at the latest, and is rounded to eight bits on the way.
    row = Rows(
        tokens=np.array([[2, 7, 7, 7, 9, 7, 7, 1]], np.int32), positions=np.arange(8, dtype=np.int32)[None],
        segments=np.ones((1, 8), np.int32), weights=np.full((1, 8), 1 / 7, np.float32),
    )  # fmt: skip
    _, one = gradients(build_half(), row, split=Split(1, 8, 4))
    rows = jax.tree.map(lambda value: np.repeat(value, 64, axis=0), row)
    _, many = gradients(build_half(), rows, split=Split(1, 8, 4))
    assert {leaf.dtype for leaf in jax.tree.leaves(many)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(flat(many), 64 * flat(one), rtol=1e-5, atol=1e-7)
    # All in one pass, where the embedding's gradient at token 7 is the sum of 320 parts.
    _, together = gradients(build_half(), rows)
    table = lambda slope: np.asarray(slope["embedder"]["input_embedding"][...])  # noqa: E731
    np.testing.assert_allclose(table(together), 64 * table(one), rtol=1e-2, atol=1e-2 * np.abs(table(many)).max())
    stalled = jnp.zeros(1, jnp.bfloat16).at[jnp.zeros(320, jnp.int32)].add(jnp.ones(320, jnp.bfloat16))
    assert float(stalled[0]) == 256
