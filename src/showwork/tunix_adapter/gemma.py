"""Tunix's Gemma 1, 2 and 3 with our attention, and a dtype to compute in."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter import parameters
from showwork.tunix_adapter.attention import Gemma3Attention, GemmaAttention, LayerCache, Mask
from showwork.tunix_adapter.lazily import lazily

with lazily("tunix"):
    from tunix.models.gemma import model as tunix_gemma
    from tunix.models.gemma3 import model as tunix_gemma3
    from tunix.utils import sharding_utils


# "layer_0" → its cache.
Cache = dict[str, LayerCache]


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
    model: "Model", tokens: jax.Array, positions: jax.Array, cache: Cache | None, mask: Mask,
    embedded: jax.Array | None, *, is_each: bool,
) -> tuple[jax.Array | list[jax.Array], Cache | None]:  # fmt: skip
    """Final hidden states [B, L, D] of tokens and positions [B, L], and the updated cache.

    With is_each, a list: the embedding and each layer's output, after the final norm.
    """
    caches = {}
    x = _encode(model, tokens) if embedded is None else embedded
    outputs = [x]
    for i, layer in enumerate(model.layers):
        name = f"layer_{i}"
        graphdef, state = nnx.split(layer)
        # Without a cache there may be a backward pass. Tunix's nnx.remat fails inside a loop, and where the layer was
        # merged under a gradient.
        is_rematerialised = cache is None and layer.config.remat_config.name != "NONE"
        run = jax.checkpoint(_layer, static_argnums=0) if is_rematerialised else _layer
        caches[name], x = run(graphdef, state, x, positions, cache and cache[name], mask)
        outputs.append(x)
    hidden = [model.final_norm(x) for x in outputs] if is_each else model.final_norm(x)
    return hidden, cache and caches


def embed(table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Scaled embeddings [B, L, D] of tokens [B, L], in this dtype."""
    return table[tokens].astype(dtype) * embedding_scale(table.shape[1], dtype)


def embedding_scale(width: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.sqrt(width).astype(dtype)


def _encode(model: "Model", tokens: jax.Array) -> jax.Array:
    x = embed(output_table(model), tokens, model.compute_dtype)
    return shard(x, model.embedder.shd_config.act_btd)


@functools.partial(jax.jit, static_argnums=0)
def _layer(
    graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array, positions: jax.Array, cache: LayerCache | None, mask: Mask
) -> tuple[LayerCache | None, jax.Array]:
    """One layer on x [B, L, D]; within another jit it is traced and lowered once for all layers of the same kind."""
    return nnx.merge(graphdef, _whole(state)).block(x, positions, cache, mask)


def _whole(state: nnx.State) -> nnx.State:
    """A layer's weights, whole along the axis fsdp.

    They are gathered before the layer, as FSDP does. Left alone, XLA for TPUs passes parts of them from core to core
    through each product: by compilation for a v5e-8, half of the time of an update of Gemma 3 1B.
    """
    specs = nnx.get_partition_spec(state)
    return jax.tree.map(
        lambda leaf, spec: shard(leaf, tuple(axis if axis == "tp" else None for axis in spec)), state, specs
    )


class Gemma3(tunix_gemma3.Gemma3):
    """Tunix's Gemma 3, with a dtype to compute in and an option to stop before the logits.

    With return_hidden, the call returns the final hidden states [B, L, D] instead of the logits: the loss can then
    decode them in blocks, and [B, L, V] is never materialised; "each" returns those after every layer (_run_layers).
    embedded are the scaled embeddings of the tokens, where the caller has them. These are options of __call__, no
    methods, because Qwix applies LoRA within __call__ alone.
    """

    compute_dtype: jnp.dtype
    """Of activations, and of the weights that they are multiplied with; build_model sets it."""

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        images=None, return_hidden=False, embedded=None,
    ):  # fmt: skip
        if return_hidden:
            is_each = return_hidden == "each"
            return _run_layers(self, last_tokens, positions, cache, attention_mask, embedded, is_each=is_each)  # ty: ignore[invalid-argument-type]
        return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states, images=images)

    def decode(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V], float32, of final hidden states [..., D]."""
        return unembed(hidden, output_table(self))


class Gemma(tunix_gemma.Gemma):
    """Tunix's Gemma 1 and 2, with return_hidden as in Gemma3, and with local layers correct for any row layout."""

    compute_dtype: jnp.dtype

    def __init__(self, config: tunix_gemma.ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        for layer in self.layers:
            layer.attn.__class__ = GemmaAttention  # keep Tunix's weights, replace its attention

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        return_hidden=False, embedded=None,
    ):  # fmt: skip
        if return_hidden:
            is_each = return_hidden == "each"
            return _run_layers(self, last_tokens, positions, cache, attention_mask, embedded, is_each=is_each)  # ty: ignore[invalid-argument-type]
        return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states)  # ty: ignore[invalid-argument-type]

    def decode(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V], float32, of final hidden states [..., D], soft-capped in Gemma 2."""
        logits, cap = unembed(hidden, output_table(self)), self.final_logits_softcap
        return logits if cap is None else jnp.tanh(logits / cap) * cap


Model = Gemma | Gemma3


def output_table(model: Model) -> jax.Array:
    """The embedding [V, D], which is also the output layer's weight, in the weights' dtype."""
    return model.embedder.input_embedding.get_value()


def unembed(hidden: jax.Array, table: jax.Array) -> jax.Array:
    """Logits [..., V] of hidden states [..., D], in float32: bfloat16 has eight bits, and a logit of 20 needs more."""
    return jnp.einsum("...d,vd->...v", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)


def final_softcap(model: Model) -> float | None:
    """c of c * tanh(logits / c), which decode applies; None for no cap."""
    return model.final_logits_softcap if isinstance(model, Gemma) else None


def shard(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """x with each of its axes spread over this axis of the mesh in context; on a CPU, or without a mesh, x itself."""
    return sharding_utils.shard(x, axes)  # ty: ignore[invalid-argument-type]  # Tunix leaves out that an axis may be None


def computing(model: Model) -> tuple[nnx.GraphDef, nnx.State]:
    """The model's structure and its weights in the dtype that it computes in; those that have it already are shared.

    It is what training computes with, so sampling from it is sampling from the policy that is trained.
    """
    graphdef, state = nnx.split(model)
    return graphdef, parameters.in_dtype(state, model.compute_dtype)


def sliding_window(model: Model) -> int | None:
    """How many tokens a query of a local layer sees, its own included; None without local layers."""
    attentions = [layer.attn for layer in model.layers]
    return next((a.sliding_window_size for a in attentions if a.attn_type.name == "LOCAL_SLIDING"), None)


def layer_outputs(model: Model, tokens: jax.Array, positions: jax.Array, mask: jax.Array) -> list[jax.Array]:
    """The embedding and each layer's output [B, L, D], after the final norm: inputs of the logit lens.

    tokens and positions [B, L], mask [B, L, L]. The last output equals that of return_hidden.
    """
    return model(tokens, positions, None, mask, return_hidden="each")[0]


def build_model(
    spec: GemmaSpec, *, vocabulary: int, dtype: str, weights_dtype: str = "float32", remat: bool = False
) -> Model:
    """An uninitialised Gemma that computes in dtype; fill it with draw_weights or a checkpoint.

    Weights that are trained are float32 whatever the dtype: in bfloat16, an update of less than a 256th of a weight
    would be rounded away. With remat, the backward pass recomputes the activations within each layer instead of storing
    them.
    """
    build = _build_gemma3 if spec.family == "gemma3" else _build_gemma
    model = build(spec, vocabulary, jnp.dtype(weights_dtype), remat)
    model.compute_dtype = jnp.dtype(dtype)
    return model


def abstract_model(
    spec: GemmaSpec, *, vocabulary: int, dtype: str, weights_dtype: str = "float32", remat: bool = False
) -> Model:
    """The same without allocating weights: shapes, dtypes and sharding annotations only."""
    return nnx.eval_shape(
        lambda: build_model(spec, vocabulary=vocabulary, dtype=dtype, weights_dtype=weights_dtype, remat=remat)
    )


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
