"""LoRA by Qwix: adapters on a model's projections, and merged weights."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import qwix
from flax import nnx

from showwork.errors import UserError
from showwork.tunix_adapter.gemma import Model


def projections(model: Model) -> tuple[str, ...]:
    """Names of the projections of each layer. Tunix fuses query, key and value where all heads are key-value heads."""
    attention = ("attn.qkv_einsum",) if model.layers[0].attn.use_qkv_einsum else ("attn.q_einsum", "attn.kv_einsum")
    return (*attention, "attn.attn_vec_einsum", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def add_lora(model: Model, *, rank: int, alpha: float, key: jax.Array, modules: Sequence[str] = ()) -> Model:
    """A copy of the model with LoRA on these projections of every layer; without names, on all projections.

    Raises UserError where a name is none of the model's projections, and RuntimeError where Qwix misses any.
    """
    known = projections(model)
    for name in modules:
        if name not in known:
            raise UserError(f"an adapter on {name} matches nothing in this model; it has {', '.join(known)}")
    chosen = modules or known
    # Whole names: a pattern such as .*/q_einsum would silently skip a fused qkv_einsum.
    pattern = "|".join(name.replace(".", "/") for name in chosen)
    provider = qwix.LoraProvider(module_path=rf"layers/\d+/({pattern})", rank=rank, alpha=alpha)
    rngs, inputs = nnx.Rngs(params=key), model.get_model_input()
    adapted = cast(Model, qwix.apply_lora_to_model(model, provider, rngs=rngs, **inputs))
    reached, wanted = len(lora_modules(adapted)), len(chosen) * model.config.num_layers
    if reached != wanted:
        raise RuntimeError(f"LoRA reached {reached} modules, not {wanted}")
    return adapted


def lora_modules(model: Model) -> dict[str, tuple[Any, str]]:
    """Path of an adapted module, such as layers.0.attn.q_einsum, → (module, name of its weight)."""
    found = {}
    for path, module in nnx.iter_modules(model):
        for weight in ("w", "kernel"):
            if hasattr(module, f"{weight}_lora_a"):
                found[".".join(str(part) for part in path)] = (module, weight)
    return found


def merged_weight(module: Any, name: str, *, rank: int, alpha: float) -> jax.Array:
    """The weight of an adapted module plus (alpha / rank) * A @ B, added in float32 whatever its dtype."""
    weight = getattr(module, name).get_value()
    a, b = (getattr(module, f"{name}_lora_{part}").get_value().astype(jnp.float32) for part in "ab")
    if name == "kernel":
        product = a @ b
    else:
        _, a_axes, b_axes = module.w_lora_einsum_str.split("->")[0].split(",")
        w_axes = module.einsum_str.split("->")[0].split(",")[1]
        product = jnp.einsum(f"{a_axes},{b_axes}->{w_axes}", a, b)
    return (weight.astype(jnp.float32) + product * (alpha / rank)).astype(weight.dtype)
