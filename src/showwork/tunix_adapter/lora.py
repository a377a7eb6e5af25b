"""LoRA by Qwix: adapters on a model's projections, and merged weights."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import qwix
from flax import nnx

from showwork.errors import UserError
from showwork.tunix_adapter import parameters
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
    _make_alike(adapted)
    # Trained, hence float32 (gemma.build_model).
    nnx.update(adapted, parameters.in_dtype(nnx.state(adapted, nnx.LoRAParam), jnp.dtype(jnp.float32)))
    reached, wanted = len(lora_modules(adapted)), len(chosen) * model.config.num_layers
    if reached != wanted:
        raise RuntimeError(f"LoRA reached {reached} modules, not {wanted}")
    return adapted


def _make_alike(model: Model) -> None:
    """Gives the modules of all layers the path of the first layer's.

    Qwix writes each module's own path into it, and reads it to find the module's rule, which is the same in each layer.
    With different paths no two layers are of one kind, and each would be traced and compiled for itself.
    """
    for layer in model.layers:
        for path, module in nnx.iter_modules(layer):
            if hasattr(module, "qwix_path"):
                setattr(module, "qwix_path", ("layers", 0, *path))  # noqa: B010 (a name of Qwix, unknown to Flax)


def is_adapted(model: Model) -> bool:
    """Whether the model has an adapter; then nothing else of it is trained."""
    return bool(jax.tree.leaves(nnx.state(model, nnx.LoRAParam)))


def lora_modules(model: Model) -> dict[str, tuple[Any, str]]:
    """Path of an adapted module, such as layers.0.attn.q_einsum, → (module, name of its weight)."""
    found = {}
    for path, module in nnx.iter_modules(model):
        for weight in ("w", "kernel"):
            if hasattr(module, f"{weight}_lora_a"):
                found[".".join(str(part) for part in path)] = (module, weight)
    return found
