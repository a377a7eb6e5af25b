"""A model and a tokenizer that are small enough to check by hand, shared by all tests to save compilation."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from showwork import devices
from showwork import tokenizer as tokenizers
from showwork.config import Mesh
from showwork.models.specs import MODELS, GemmaSpec
from showwork.records import Problem
from showwork.training.losses import Loss, Rows, supervised_loss
from showwork.training.passes import Split, in_passes
from showwork.tunix_adapter import gemma, lora, parameters

VOCABULARY = 64


# Compiling costs seconds per program and running it nothing: without these it takes half the time.
COMPILER = (
    "--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_llvm_disable_expensive_passes=true",
)  # fmt: skip


def first_device() -> jax.sharding.Mesh:
    """Begins JAX, with the CPU as four devices, of which most tests use one.

    The compiler's flags are read once, and are not for the programs that tests start.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", " ".join([os.environ.get("XLA_FLAGS", ""), *COMPILER]))
        jax.config.update("jax_num_cpu_devices", 4)
        return devices.make_mesh(Mesh(fsdp=1, tp=1))


ONE_DEVICE = first_device()
# All rows in one pass, all logits at a time.
WHOLE = Split(devices=1, tokens=10**6, logit_positions=10**6)
# One object, so that what is compiled for it is found again.
SUPERVISED = supervised_loss()
SENTENCES = (
    "Tom has 5 apples and buys 3 more. How many apples does he have?",
    "Tom has 5 + 3 = 8 apples.",
    "Ann reads 12 pages a day for 4 days. How many pages is that?",
    "She reads 12 * 4 = 48 pages.",
    "A box of 24 pens costs $6. What does one pen cost?",
    "One pen costs 6 / 24 = $0.25.",
    "Mia had 1,080 stamps and gave away 80. How many are left?",
    "There are 1,080 - 80 = 1,000 stamps left.",
    "Seven buses carry 30 people each.\nHow many people is that?",
    "That is 7 * 30 = 210 people.",
    "Half of 50 eggs are brown.",
    "So 50 / 2 = 25 eggs are brown.",
)


@pytest.fixture(scope="package", autouse=True)
def _quick_compilation():
    """Compiling costs seconds per program and running it nothing: XLA's optimisations would double the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="package", autouse=True)
def _strict():
    """An array that is broadcast to a higher rank by accident is an error."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    yield
    jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture(scope="session")
def spec() -> GemmaSpec:
    """A window of 8, so that rows of 16 already exceed it."""
    return dataclasses.replace(MODELS["gemma3_test"], sliding_window=8)


@pytest.fixture(scope="package")
def model(spec: GemmaSpec) -> nnx.Module:
    """Shared: tests that train copy its arrays, since training writes over them."""
    model = gemma.build_model(spec, vocabulary=VOCABULARY, dtype="float32")
    parameters.draw_weights(model, key=jax.random.key(0))
    return model


RANK, ALPHA = 3, 6.0


def with_lora(model: nnx.Module) -> nnx.Module:
    """An adapted copy whose lora_b, zero at the start, is random."""
    adapted = lora.add_lora(nnx.clone(model), rank=RANK, alpha=ALPHA, key=jax.random.key(2))
    for number, (_, (module, name)) in enumerate(sorted(lora.lora_modules(adapted).items())):
        b = getattr(module, f"{name}_lora_b")
        b[...] = jax.random.normal(jax.random.fold_in(jax.random.key(3), number), b.shape) * 0.1
    return adapted


@pytest.fixture(scope="package")
def adapted(model: nnx.Module) -> nnx.Module:
    return with_lora(model)


@pytest.fixture(scope="session")
def words() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(tokenizers.train(SENTENCES, vocabulary=320))


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return [Problem(str(i), f"What is {i} + {i}?", f"{i} + {i} = {2 * i}", str(2 * i), ()) for i in range(1, 7)]


@functools.partial(jax.jit, static_argnames="graphdef")
def _logits(graphdef: Any, state: Any, tokens: jax.Array) -> jax.Array:
    length = tokens.shape[1]
    positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (len(tokens), length, length))
    return nnx.merge(graphdef, state)(tokens, positions, None, mask)[0]


@pytest.fixture(scope="session")
def logits_of() -> Callable[[nnx.Module, Any], np.ndarray]:
    """Logits [L, V] of one row of ids by one full forward pass: no cache, no packing, no left padding, no chunks.

    Rows are padded to 48 on the right, where a causal model can't see it, so that one program serves all.
    """

    def logits(model: nnx.Module, ids: Any) -> np.ndarray:
        row = np.zeros((1, 48), np.int32)
        row[0, : len(ids)] = ids
        return np.array(_logits(*nnx.split(model), jnp.asarray(row)))[0, : len(ids)]

    return logits


def gradients(
    model: nnx.Module, rows: Rows, loss: Loss = SUPERVISED, *, split: Split = WHOLE, wrt: Any = nnx.Param,
    mesh: jax.sharding.Mesh = ONE_DEVICE,
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], nnx.State]:  # fmt: skip
    """((loss, sums by name), gradients) of what `wrt` selects, as training takes them."""
    with mesh:
        return differentiate(*nnx.split(model, wrt, ...), devices.spread(rows, mesh), loss, split, wrt)


@functools.partial(jax.jit, static_argnames=("graphdef", "loss", "split", "wrt"))
def differentiate(graphdef: Any, trained: Any, rest: Any, rows: Rows, loss: Loss, split: Split, wrt: Any) -> Any:
    def value(trained: Any) -> Any:
        return in_passes(loss, split=split, wrt=wrt)(nnx.merge(graphdef, trained, rest), rows)

    return jax.value_and_grad(value, has_aux=True)(trained)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In float64, by numpy alone."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree of weights or gradients, as one vector."""
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])
