"""Tunix's Gemma 1, 2 and 3 with our attention, and their weights."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from showwork import devices
from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter.attention import Gemma3Attention, GemmaAttention, LayerCache, Mask
from showwork.tunix_adapter.lazily import lazily

with lazily("tunix"):
    from tunix.models.gemma import model as tunix_gemma
    from tunix.models.gemma3 import model as tunix_gemma3


# "layer_0" → its cache.
Cache = dict[str, LayerCache]
# A path of jax.tree_util through a model's state.
KeyPath = tuple[Any, ...]


class _Hashable:
    """Tunix's configurations are dataclasses without a hash; jit's static arguments, such as a GraphDef, need one."""

    __slots__ = ()

    def __hash__(self) -> int:
        fields = dataclasses.fields(self)  # ty: ignore[invalid-argument-type]  # Tunix's subclasses are dataclasses
        return hash(tuple(getattr(self, field.name) for field in fields))


class _GemmaConfig(_Hashable, tunix_gemma.ModelConfig):
    __slots__ = ()


class _Gemma3Config(_Hashable, tunix_gemma3.ModelConfig):
    __slots__ = ()


def _run_layers(
    model: "Model", tokens: jax.Array, positions: jax.Array, cache: Cache | None, mask: Mask
) -> tuple[jax.Array, Cache | None]:
    """Final hidden states [B, L, D] of tokens and positions [B, L], and the updated cache."""
    caches = {}
    x = model.embedder.encode(tokens)
    for i, layer in enumerate(model.layers):
        name = f"layer_{i}"
        graphdef, state = nnx.split(layer)
        # Without a cache there may be a backward pass. Tunix's nnx.remat fails inside a loop, and where the layer was
        # merged under a gradient.
        is_rematerialised = cache is None and layer.config.remat_config.name != "NONE"
        run = jax.checkpoint(_layer, static_argnums=0) if is_rematerialised else _layer
        caches[name], x = run(graphdef, state, x, positions, cache and cache[name], mask)
    return model.final_norm(x), cache and caches


@functools.partial(jax.jit, static_argnums=0)
def _layer(
    graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array, positions: jax.Array, cache: LayerCache | None, mask: Mask
) -> tuple[LayerCache | None, jax.Array]:
    """One layer on x [B, L, D]; within another jit it is traced and lowered once for all layers of the same kind."""
    return nnx.merge(graphdef, state).block(x, positions, cache, mask)


class Gemma3(tunix_gemma3.Gemma3):
    """Tunix's Gemma 3, with an option to stop before the logits.

    With return_hidden, the call returns the final hidden states [B, L, D] instead of the logits: the loss can then
    decode them in chunks, and [B, L, V] is never materialised. It is an option of __call__ instead of a method because
    Qwix applies LoRA within __call__ alone.
    """

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        images=None, return_hidden=False,
    ):  # fmt: skip
        if return_hidden:
            return _run_layers(self, last_tokens, positions, cache, attention_mask)  # ty: ignore[invalid-argument-type]
        return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states, images=images)

    def decode(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V] of final hidden states [..., D]."""
        return self.embedder.decode(hidden)


class Gemma(tunix_gemma.Gemma):
    """Tunix's Gemma 1 and 2, with return_hidden as in Gemma3, and with local layers correct for any row layout."""

    def __init__(self, config: tunix_gemma.ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        for layer in self.layers:
            layer.attn.__class__ = GemmaAttention  # keep Tunix's weights, replace its attention

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        return_hidden=False,
    ):  # fmt: skip
        if return_hidden:
            return _run_layers(self, last_tokens, positions, cache, attention_mask)  # ty: ignore[invalid-argument-type]
        return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states)  # ty: ignore[invalid-argument-type]

    def decode(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V] of final hidden states [..., D], soft-capped in Gemma 2."""
        logits, cap = self.embedder.decode(hidden), self.final_logits_softcap
        return logits if cap is None else jnp.tanh(logits / cap) * cap


Model = Gemma | Gemma3


def sliding_window(model: Model) -> int | None:
    """How many tokens a query of a local layer sees, its own included; None without local layers."""
    attentions = [layer.attn for layer in model.layers]
    return next((a.sliding_window_size for a in attentions if a.attn_type.name == "LOCAL_SLIDING"), None)


def layer_outputs(model: Model, tokens: jax.Array, positions: jax.Array, mask: jax.Array) -> Iterator[jax.Array]:
    """The embedding and each layer's output, [B, L, D] one at a time, after the final norm: inputs of the logit lens.

    tokens and positions [B, L], mask [B, L, L]. The last output equals that of return_hidden. Adapters must be merged:
    Qwix applies them within __call__ alone.
    """
    x = model.embedder.encode(tokens)
    yield model.final_norm(x)
    for layer in model.layers:
        _, x = layer(x, positions, None, mask)
        yield model.final_norm(x)


def build_model(spec: GemmaSpec, *, vocabulary: int, dtype: str, remat: bool = False) -> Model:
    """An uninitialised Gemma; fill it with draw_weights or a checkpoint.

    With remat, the backward pass recomputes the activations within each layer instead of storing them.
    """
    build = _build_gemma3 if spec.family == "gemma3" else _build_gemma
    return build(spec, vocabulary, jnp.dtype(dtype), remat)


def abstract_model(spec: GemmaSpec, *, vocabulary: int, dtype: str, remat: bool = False) -> Model:
    """The same without allocating weights: shapes, dtypes and sharding annotations only."""
    return nnx.eval_shape(lambda: build_model(spec, vocabulary=vocabulary, dtype=dtype, remat=remat))


def _build_gemma(spec: GemmaSpec, vocabulary: int, dtype: jnp.dtype, remat: bool) -> Gemma:
    kinds = tunix_gemma.AttentionType
    config = _GemmaConfig(
        num_layers=spec.layers,
        num_embed=vocabulary,
        embed_dim=spec.width,
        hidden_dim=spec.hidden,
        num_heads=spec.heads,
        head_dim=spec.head_dim,
        num_kv_heads=spec.kv_heads,
        final_logit_softcap=spec.final_softcap,
        use_post_attn_norm=spec.family == "gemma2",
        use_post_ffw_norm=spec.family == "gemma2",
        attention_types=tuple(
            kinds.GLOBAL if i in spec.global_layers else kinds.LOCAL_SLIDING for i in range(spec.layers)
        ),
        attn_logits_soft_cap=spec.attention_softcap,
        sliding_window_size=spec.sliding_window,
        remat_config=tunix_gemma.RematConfig.DECODER if remat else tunix_gemma.RematConfig.NONE,
    )
    model = Gemma(config, rngs=nnx.Rngs(0))
    # Tunix's Gemma 1 and 2 have no option for the dtype.
    nnx.update(model, jax.tree.map(lambda value: value.astype(dtype), nnx.state(model, nnx.Param)))
    return model


def _build_gemma3(spec: GemmaSpec, vocabulary: int, dtype: jnp.dtype, remat: bool) -> Gemma3:
    config = _Gemma3Config(
        num_layers=spec.layers,
        num_embed=vocabulary,
        embed_dim=spec.width,
        hidden_dim=spec.hidden,
        num_heads=spec.heads,
        head_dim=spec.head_dim,
        num_kv_heads=spec.kv_heads,
        sliding_window_size=spec.sliding_window,
        local_base_frequency=spec.local_rope_base,
        global_base_frequency=spec.global_rope_base,
        global_scale_factor=spec.global_rope_scale,
        param_dtype=dtype,
        remat_config=tunix_gemma3.RematConfig.DECODER if remat else tunix_gemma3.RematConfig.NONE,
    )
    model = Gemma3(config, rngs=nnx.Rngs(0))
    for index, layer in enumerate(model.layers):
        # Tunix makes every sixth layer global; here the spec decides.
        layer.attn.__class__ = Gemma3Attention  # keep Tunix's weights, replace its attention
        is_global = index in spec.global_layers
        kinds = tunix_gemma3.AttentionType
        layer.attn.attn_type = kinds.GLOBAL if is_global else kinds.LOCAL_SLIDING
        layer.attn.rope_base_frequency = spec.global_rope_base if is_global else spec.local_rope_base
        layer.attn.rope_scale_factor = spec.global_rope_scale if is_global else 1.0
    return model


def parameters(model: nnx.Module) -> dict[str, jax.Array]:
    """Tunix's name of each weight, such as layers.0.attn.q_einsum.w, → the weight."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    return {_dotted(path): value for path, value in leaves}


def fill(model: nnx.Module, read: Callable[[str], np.ndarray], *, mesh: jax.sharding.Mesh | None = None) -> None:
    """Sets each weight of a model, which may be abstract, to read(name), in place.

    Weights are read one at a time, so that there is never a second copy of a large model, and sharded over the mesh at
    once, so that the model need not fit on one device.
    """
    state = nnx.state(model, nnx.Param)

    def put(path: KeyPath, wanted: jax.ShapeDtypeStruct | jax.Array, *sharding: jax.NamedSharding) -> jax.Array:
        return jax.device_put(np.asarray(read(_dotted(path)), wanted.dtype), *sharding)

    shardings = [devices.shardings(state, mesh)] if mesh else []
    nnx.update(model, jax.tree_util.tree_map_with_path(put, state, *shardings))


def _dotted(path: KeyPath) -> str:
    parts = [str(getattr(part, "key", getattr(part, "name", part))) for part in path]
    return ".".join(part for part in parts if part != "value")


def draw_weights(model: nnx.Module, *, key: jax.Array) -> None:
    """Initialises the weights for training from scratch, in place.

    Tunix initialises the MLP's three kernels to zero, where their gradients stay zero for ever, and its embeddings
    (std 0.01) far below the unit scale of the normalised branches. Here weights are normal with variance 1/fan_in, and
    embeddings with variance 1/D, so that encoded tokens and logits both start at unit scale; norms start at identity.
    A weight depends on the key and its own path alone.
    """

    def draw(path: KeyPath, value: jax.Array) -> jax.Array:
        name = "/".join(str(getattr(part, "key", part)) for part in path)
        if "scale" in name:
            return jnp.zeros_like(value)
        if "input_embedding" in name:
            fan_in = value.shape[1]
        elif "attn_vec_einsum" in name:  # [N, H, D]
            fan_in = value.shape[0] * value.shape[1]
        else:  # kernels [in, out], projections [..., D, H]
            fan_in = value.shape[-2]
        weight_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return (jax.random.normal(weight_key, value.shape, jnp.float32) * fan_in**-0.5).astype(value.dtype)

    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree_util.tree_map_with_path(draw, state))
