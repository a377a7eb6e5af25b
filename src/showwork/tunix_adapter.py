"""The only module that imports Tunix and Qwix: their classes, with the faults that we work around mended.

Written against google-tunix 0.1.7 and qwix 0.1.8; each workaround names what it mends and has a test in
tests/numerics/test_tunix.py.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import qwix
from flax import nnx

from showwork.config import Mesh
from showwork.errors import UserError
from showwork.models.specs import GemmaSpec


@contextlib.contextmanager
def _lazily(package: str) -> Iterator[None]:
    """Within it, modules of the package are imported and its own __init__ is not run before somebody asks for what it
    defines: Tunix's loads agents, distillation and pandas, a quarter of a stage's imports."""
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        module = importlib.util.module_from_spec(spec)

        def load(name: str) -> Any:
            del module.__getattr__
            spec.loader.exec_module(module)
            return getattr(module, name)

        module.__getattr__ = load
        sys.modules[package] = module
    yield


with _lazily("tunix"):
    from tunix.models.gemma import model as gemma
    from tunix.models.gemma3 import model as gemma3
    from tunix.rl import rl_cluster
    from tunix.rl.grpo import grpo_learner
    from tunix.rl.rollout import base_rollout
    from tunix.sft import peft_trainer
    from tunix.utils import sharding_utils

# Tunix and Orbax tell of every checkpoint and device on standard error, between the lines of the progress bar.
absl.logging.set_verbosity(absl.logging.ERROR)

# Queries that are looked at together, where there is no cache; and how many such blocks a row is cut into at most.
ATTENTION_BLOCK = 64
MOST_BLOCKS = 8

# ---------------------------------------------------------------------------------------------- models


class _Hashable:
    """Tunix's configurations are dataclasses without a hash: no model that holds one could be a static argument."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))


class _GemmaConfig(_Hashable, gemma.ModelConfig):
    __slots__ = ()


class _Gemma3Config(_Hashable, gemma3.ModelConfig):
    __slots__ = ()


def _attention(
    self: Any, x: jax.Array, segment_pos: jax.Array, cache: Any, attn_mask: jax.Array
) -> tuple[dict[str, jax.Array] | None, jax.Array]:
    """Attention.block of all three generations, in place of Tunix's.

    Tunix multiplies every query with every key and masks afterwards, copies the key heads for each of their query
    heads, and lets a local layer of Gemma 2 compare positions with places in the row, which differ with padding on
    the left or packed examples. Here a query meets the keys that it may see and few more, by their places.
    """
    if self.use_qkv_einsum:
        queries, keys, values = self.qkv_einsum(x)
    else:
        queries, (keys, values) = self.q_einsum(x), self.kv_einsum(x)
    queries, keys, values = (sharding_utils.shard(part, self.shd_config.act_btnh) for part in (queries, keys, values))
    queries, keys = self._place(queries, keys, segment_pos)
    first = None
    if cache is not None:
        first = cache["end_index"][0]
        keys, values = (
            jax.lax.dynamic_update_slice(cache[name], new, (0, first, 0, 0))
            for name, new in (("k", keys), ("v", values))
        )
        cache = {"k": keys, "v": values, "end_index": cache["end_index"] + x.shape[1]}
    is_local = self.attn_type.name == "LOCAL_SLIDING"
    window = self.sliding_window_size if is_local else None
    if isinstance(attn_mask, tuple):  # of rows where places tell no distances: for global layers, for local ones
        attn_mask, window = attn_mask[is_local], None
    encoded = attend(
        queries, keys, values, attn_mask, window=window, softcap=getattr(self, "attn_logits_soft_cap", None),
        first=first,
    )  # fmt: skip
    return cache, sharding_utils.shard(self.attn_vec_einsum(encoded), self.shd_config.act_btd)


class _Gemma3Attention(gemma3.Attention):
    block = _attention

    def _place(self, queries: jax.Array, keys: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        rope = functools.partial(
            gemma3.apply_rope, positions=positions, head_dim=self.head_dim,
            base_frequency=self.rope_base_frequency, scale_factor=self.rope_scale_factor,
        )  # fmt: skip
        return rope(self._query_norm(queries)) * self.query_pre_attn_scalar, rope(self._key_norm(keys))


class _GemmaAttention(gemma.Attention):
    block = _attention

    def _place(self, queries: jax.Array, keys: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        rope = functools.partial(gemma.apply_rope, positions=positions, head_dim=self.head_dim)
        return rope(queries) * self.head_dim**-0.5, rope(keys)


def attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, *, window: int | None,
    softcap: float | None = None, first: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """What scaled queries [B, T, N, H] read of keys and values [B, S, K, H], [B, T, N, H].

    mask [B, T, S] must be causal; with a window a query sees that many places, its own the last. The queries stand
    at the places from `first` on, of a cache; None means that there is none, and S = T.
    """
    length, size = mask.shape[1:]
    if first is None:
        block = max(ATTENTION_BLOCK, -(-length // MOST_BLOCKS))
        parts = []
        for start in range(0, length, block):
            end = min(start + block, length)
            seen = slice(max(0, start - window + 1) if window else 0, end)
            part = mask[:, start:end, seen]
            if window:
                part &= np.arange(start, end)[:, None] - np.arange(seen.start, end) < window
            parts.append(_read(queries[:, start:end], keys[:, seen], values[:, seen], part, softcap))
        return jnp.concatenate(parts, axis=1)
    if window and length == 1 and window < size:
        start = jnp.clip(first - window + 1, 0, size - window)
        keys, values = (jax.lax.dynamic_slice_in_dim(part, start, window, axis=1) for part in (keys, values))
        mask = jax.lax.dynamic_slice_in_dim(mask, start, window, axis=2)
    elif window:
        mask &= first + jnp.arange(length)[:, None] - jnp.arange(size) < window
    return _read(queries, keys, values, mask, softcap)


def _read(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, softcap: float | None) -> jax.Array:
    batch, length, heads, size = queries.shape
    # The query heads of a key head are rows of one product: with a single key head nothing is copied or turned.
    queries = queries.reshape(batch, length, keys.shape[2], -1, size)
    logits = jnp.einsum("BTKGH,BSKH->BKTGS", queries, keys, preferred_element_type=jnp.float32)
    if softcap is not None:
        logits = jnp.tanh(logits / softcap) * softcap
    shares = jax.nn.softmax(jnp.where(mask[:, None, :, None, :], logits, gemma3.K_MASK), axis=-1).astype(values.dtype)
    return jnp.einsum("BKTGS,BSKH->BTKGH", shares, values).reshape(batch, length, heads, size)


def _run_layers(
    model: nnx.Module, tokens: jax.Array, positions: jax.Array, cache: Any, mask: jax.Array
) -> tuple[jax.Array, Any]:
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
    graphdef: Any, state: Any, x: jax.Array, positions: jax.Array, cache: Any, mask: jax.Array
) -> tuple[Any, jax.Array]:
    """One layer; within another jit it is traced and lowered once for all layers that are alike."""
    return nnx.merge(graphdef, state).block(x, positions, cache, mask)


class Gemma3(gemma3.Gemma3):
    """Tunix's Gemma 3, which can also stop before the logits.

    With return_hidden, the call gives the final hidden states [B, L, D] in place of the logits: the loss can
    then decode them in chunks, and no [B, L, V] array need exist. It is an option of __call__ and no method
    of its own because Qwix adds LoRA to __call__ alone.
    """

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        images=None, return_hidden=False,
    ):  # fmt: skip
        if return_hidden:
            return _run_layers(self, last_tokens, positions, cache, attention_mask)
        return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states, images=images)

    def decode(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V] of final hidden states [..., D]."""
        return self.embedder.decode(hidden)


class Gemma(gemma.Gemma):
    """Tunix's Gemma 1 and 2, with the same option as Gemma3, and local layers that are right for any row."""

    def __init__(self, config: gemma.ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        for layer in self.layers:
            layer.attn.__class__ = _GemmaAttention  # it was built whole; what it does is another thing

    def __call__(
        self, last_tokens, positions=None, cache=None, attention_mask=None, output_hidden_states=False, *,
        return_hidden=False,
    ):  # fmt: skip
        if return_hidden:
            return _run_layers(self, last_tokens, positions, cache, attention_mask)
        return super().__call__(last_tokens, positions, cache, attention_mask, output_hidden_states)

    def decode(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V] of final hidden states [..., D]; Gemma 2 caps them softly."""
        logits, cap = self.embedder.decode(hidden), self.final_logits_softcap
        return logits if cap is None else jnp.tanh(logits / cap) * cap


def sliding_window(model: nnx.Module) -> int | None:
    """How many positions a query of a local layer sees, its own included; None without local layers."""
    attentions = [layer.attn for layer in model.layers]
    return next((a.sliding_window_size for a in attentions if a.attn_type.name == "LOCAL_SLIDING"), None)


def layer_outputs(model: nnx.Module, tokens: jax.Array, positions: jax.Array, mask: jax.Array) -> Iterator[jax.Array]:
    """The embedding and each layer's output after the final norm, [B, L, D] one at a time: what the lens decodes.

    The last is what return_hidden gives. Adapters must have been merged: Qwix reaches them through __call__ alone.
    """
    x = model.embedder.encode(tokens)
    yield model.final_norm(x)
    for layer in model.layers:
        _, x = layer(x, positions, None, mask)
        yield model.final_norm(x)


def build_model(spec: GemmaSpec, *, vocabulary: int, dtype: str, remat: bool = False) -> nnx.Module:
    """A Gemma of this shape whose weights mean nothing yet: draw_weights or a checkpoint fills them.

    With remat, a backward pass makes the insides of each layer anew, and need not keep them.
    """
    build = _build_gemma3 if spec.family == "gemma3" else _build_gemma
    return build(spec, vocabulary, jnp.dtype(dtype), remat)


def abstract_model(spec: GemmaSpec, *, vocabulary: int, dtype: str, remat: bool = False) -> nnx.Module:
    """The same without weights: shapes, dtypes and shardings alone, whatever the size."""
    return nnx.eval_shape(lambda: build_model(spec, vocabulary=vocabulary, dtype=dtype, remat=remat))


def _build_gemma(spec: GemmaSpec, vocabulary: int, dtype: jnp.dtype, remat: bool) -> Gemma:
    kinds = gemma.AttentionType
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
        remat_config=gemma.RematConfig.DECODER if remat else gemma.RematConfig.NONE,
    )
    model = Gemma(config, rngs=nnx.Rngs(0))
    # Tunix's has no option for the dtype.
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
        remat_config=gemma3.RematConfig.DECODER if remat else gemma3.RematConfig.NONE,
    )
    model = Gemma3(config, rngs=nnx.Rngs(0))
    for index, layer in enumerate(model.layers):
        # Tunix decides by the layer's number (every sixth is global); the spec decides here.
        layer.attn.__class__ = _Gemma3Attention  # it was built whole; what it does is another thing
        is_global = index in spec.global_layers
        layer.attn.attn_type = gemma3.AttentionType.GLOBAL if is_global else gemma3.AttentionType.LOCAL_SLIDING
        layer.attn.rope_base_frequency = spec.global_rope_base if is_global else spec.local_rope_base
        layer.attn.rope_scale_factor = spec.global_rope_scale if is_global else 1.0
    return model


def parameters(model: nnx.Module) -> dict[str, jax.Array]:
    """Tunix's name of each weight, such as layers.0.attn.q_einsum.w, → the weight."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    return {_dotted(path): value for path, value in leaves}


def fill(model: nnx.Module, read: Callable[[str], np.ndarray], *, mesh: jax.sharding.Mesh | None = None) -> None:
    """Gives each weight of a model, which may be abstract, the value that read(its name) returns, in place.

    One at a time, so that no second copy of a large model ever is; and spread over the mesh at once, so that it
    need not fit on one device.
    """
    state = nnx.state(model, nnx.Param)

    def put(path: tuple[Any, ...], wanted: Any, *sharding: Any) -> jax.Array:
        return jax.device_put(np.asarray(read(_dotted(path)), wanted.dtype), *sharding)

    shardings = [_shardings(state, mesh)] if mesh else []
    nnx.update(model, jax.tree_util.tree_map_with_path(put, state, *shardings))


def _dotted(path: tuple[Any, ...]) -> str:
    parts = [str(getattr(part, "key", getattr(part, "name", part))) for part in path]
    return ".".join(part for part in parts if part != "value")


def draw_weights(model: nnx.Module, *, key: jax.Array) -> None:
    """Fills a model with random weights to train from scratch, in place.

    Tunix starts the MLP's three kernels at zero, where their gradients stay zero for ever; and its embeddings
    (std 0.01) start far below the unit scale of the normalised branches. Here: normal with variance 1/fan_in,
    embeddings with variance 1/D, so that encoded tokens and logits both start at unit scale; norms at identity.
    The draw of a weight depends on the key and its own path alone.
    """

    def draw(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
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


def projections(model: nnx.Module) -> tuple[str, ...]:
    """What takes LoRA in each layer; with as many key-value heads as heads, query, key and value are one."""
    attention = ("attn.qkv_einsum",) if model.layers[0].attn.use_qkv_einsum else ("attn.q_einsum", "attn.kv_einsum")
    return (*attention, "attn.attn_vec_einsum", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def add_lora(model: nnx.Module, *, rank: int, alpha: float, key: jax.Array, modules: Sequence[str] = ()) -> nnx.Module:
    """A copy of the model with LoRA on these projections of every layer; where none is named, on all.

    Raises UserError where a name is none of the model's projections, and RuntimeError where Qwix misses any.
    """
    known = projections(model)
    for name in modules:
        if name not in known:
            raise UserError(f"an adapter on {name} matches nothing in this model; it has {', '.join(known)}")
    chosen = modules or known
    # Whole names: a pattern such as .*/q_einsum would pass over a fused qkv_einsum in silence.
    pattern = "|".join(name.replace(".", "/") for name in chosen)
    provider = qwix.LoraProvider(module_path=rf"layers/\d+/({pattern})", rank=rank, alpha=alpha)
    adapted = qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(params=key), **model.get_model_input())
    reached, wanted = len(lora_modules(adapted)), len(chosen) * model.config.num_layers
    if reached != wanted:
        raise RuntimeError(f"LoRA reached {reached} modules, not {wanted}")
    return adapted


def lora_modules(model: nnx.Module) -> dict[str, tuple[nnx.Module, str]]:
    """Path of an adapted module, such as layers.0.attn.q_einsum, → (module, name of its weight)."""
    found = {}
    for path, module in nnx.iter_modules(model):
        for weight in ("w", "kernel"):
            if hasattr(module, f"{weight}_lora_a"):
                found[".".join(str(part) for part in path)] = (module, weight)
    return found


def merged_weight(module: nnx.Module, name: str, *, rank: int, alpha: float) -> jax.Array:
    """The weight of an adapted module with its adapter's product added; added in float32, whatever its dtype."""
    weight = getattr(module, name).get_value()
    a, b = (getattr(module, f"{name}_lora_{part}").get_value().astype(jnp.float32) for part in "ab")
    if name == "kernel":
        product = a @ b
    else:
        _, a_axes, b_axes = module.w_lora_einsum_str.split("->")[0].split(",")
        w_axes = module.einsum_str.split("->")[0].split(",")[1]
        product = jnp.einsum(f"{a_axes},{b_axes}->{w_axes}", a, b)
    return (weight.astype(jnp.float32) + product * (alpha / rank)).astype(weight.dtype)


def make_mesh(config: Mesh) -> jax.sharding.Mesh:
    """The first fsdp * tp devices as Tunix's mesh.

    A CPU is made as many devices as asked for; so call this before anything else of JAX. Two devices on two cores
    train faster than one on both: XLA leaves most of a backward pass to one core (bench/NOTES.md).
    """
    wanted = config.fsdp * config.tp
    if wanted > 1:
        # Too late where JAX has begun: then there must be enough already. It counts for CPUs alone.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", wanted)
    if wanted > len(jax.devices()):
        raise UserError(f"params.yaml: hardware.mesh asks for {wanted} devices; there are {len(jax.devices())}")
    return jax.sharding.Mesh(np.array(jax.devices()[:wanted]).reshape(config.fsdp, config.tp), ("fsdp", "tp"))


def place(model: nnx.Module, mesh: jax.sharding.Mesh) -> None:
    """Spreads the weights over the mesh as the model's own annotations say, in place.

    RLCluster would do it too, but on a copy: the caller would go on with a model that is never trained.
    """
    state = nnx.state(model)
    nnx.update(model, jax.tree.map(jax.device_put, state, _shardings(state, mesh)))


def spread(rows: Any, mesh: jax.sharding.Mesh) -> Any:
    """Arrays whose first axis is shared out over the mesh."""
    return jax.device_put(rows, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp")))


def _shardings(state: Any, mesh: jax.sharding.Mesh) -> Any:
    """Where each weight goes. The devices of a CPU share one memory, where a weight in parts would only have to be put
    together in every layer: each gets the whole."""
    specs = nnx.get_partition_spec(state)
    if _is_cpu(mesh):
        specs = jax.tree.map(lambda _: jax.sharding.PartitionSpec(), specs)
    return jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), specs)


def _is_cpu(mesh: jax.sharding.Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


# ---------------------------------------------------------------------------------------------- trainers


def _checkpointing(every_steps: int) -> ocp.CheckpointManagerOptions:
    """By step count alone: Tunix's default saves by the clock, which no resumed run repeats, and Orbax's own
    also saves the first step, which can lie within the iterations on one rollout."""
    policy = ocp.checkpoint_managers.FixedIntervalPolicy(every_steps)
    return ocp.CheckpointManagerOptions(save_decision_policy=policy, max_to_keep=1)


def _place_optimizer(trainer: peft_trainer.PeftTrainer, mesh: jax.sharding.Mesh) -> None:
    """Spreads the optimiser's state as `place` does the weights: Tunix's own leaves it on one device of a CPU, and
    the second step is then compiled anew."""
    if not mesh.empty:
        place(trainer.optimizer, mesh)


def _accumulated(micro_batches: int) -> int | None:
    """What Tunix is told: for a step in one piece nothing, or the sum of one gradient would take a model's memory."""
    return micro_batches if micro_batches > 1 else None


class SupervisedTrainer(peft_trainer.PeftTrainer):
    """PeftTrainer that tells its caller of every step, with exact sums.

    loss_fn(model, **batch) returns (loss, aux). The loss of each micro-batch must already be divided by the
    count of the WHOLE step and multiplied by the number of micro-batches, because optax.MultiSteps averages
    micro-batches equally (see training.losses). on_step(step, auxes, grad_norms) and on_validation(step,
    auxes) get the micro-batches' sums.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        loss_fn: Callable[..., tuple[jax.Array, Any]],
        micro_batches: int,
        validate_every_steps: int,
        checkpoints: Path,
        checkpoint_every_steps: int,
        on_step: Callable[[int, list[Any]], None],
        on_validation: Callable[[int, list[Any]], None],
    ):
        config = peft_trainer.TrainingConfig(
            eval_every_n_steps=validate_every_steps,
            gradient_accumulation_steps=_accumulated(micro_batches),
            checkpoint_root_directory=str(checkpoints.absolute()),
            checkpointing_options=_checkpointing(checkpoint_every_steps),
        )
        super().__init__(model, optimizer, config)
        self.with_loss_fn(loss_fn, has_aux=True)
        self.with_gen_model_input_fn(lambda batch: batch)
        self._on_step, self._on_validation = on_step, on_validation
        self._micro_batches = micro_batches
        self._train_aux: list[Any] = []
        self._eval_aux: list[Any] = []
        self._untold: tuple[int, list[Any]] | None = None
        self._checkpoint_every_steps = checkpoint_every_steps

    def _shard_optimizer(self, mesh: jax.sharding.Mesh) -> None:
        _place_optimizer(self, mesh)

    def _post_process_train_step(self, aux: Any) -> None:
        self._train_aux.append(aux)
        if len(self._train_aux) == self._micro_batches:
            # Of the step before: to ask for this one's numbers now is to wait for them, and the devices then wait too.
            self.tell()
            self._untold = (self.train_steps + 1, self._train_aux)
            self._train_aux = []
            if (self.train_steps + 1) % self._checkpoint_every_steps == 0:
                self.tell()  # before Tunix saves its checkpoint, so that the record is never behind the weights

    def tell(self) -> None:
        """Of the last step, if on_step was not told of it yet; waits for its numbers."""
        if self._untold is not None:
            step, auxes = self._untold
            self._untold = None
            self._on_step(step, jax.device_get(auxes))

    def close(self) -> None:
        self.tell()
        super().close()  # saves the last checkpoint

    def _post_process_eval_step(self, aux: Any) -> None:
        self._eval_aux.append(aux)

    def _run_eval(self, eval_ds: Iterable[Any], eval_step_fn: Callable[..., Any]) -> None:
        self.tell()
        super()._run_eval(eval_ds, eval_step_fn)
        self._on_validation(self.train_steps, jax.device_get(self._eval_aux))
        self._eval_aux = []


class _Engine(base_rollout.BaseRollout):
    """Our rollout behind Tunix's interface: sample(model, prompts, step, first_row) does the work.

    Tunix's vanilla rollout reuses one random key for ever, and cuts EOS from completions, so that stopping is
    never trained. Here the step is part of the key and `generated` keeps what was sampled as it was sampled.
    """

    def __init__(self, *, sample: Any, rollout_actor: nnx.Module, tokenizer: Any, mesh: Any, rollout_config: Any):
        self._sample, self._model, self._tokenizer = sample, rollout_actor, tokenizer
        self.step = 0
        self.generated: list[Any] = []

    def generate(self, prompts: list[str], rollout_config: Any, **_: Any) -> base_rollout.RolloutOutput:
        first_row = sum(len(part.lengths) for part in self.generated)
        part = self._sample(self._model, prompts, self.step, first_row)
        self.generated.append(part)
        tokens = [row[:length] for row, length in zip(part.tokens, part.lengths, strict=True)]
        return base_rollout.RolloutOutput(
            text=[""] * len(tokens), logits=[], tokens=tokens,
            left_padded_prompt_tokens=part.prompt_tokens, logprobs=None,
        )  # fmt: skip

    def get_per_token_logps(self, prompt_tokens: jax.Array, completion_tokens: jax.Array) -> jax.Array:
        raise NotImplementedError("training.rl computes log-probabilities itself")

    def update_params(self, params: Any, filter_types: Any = None) -> None:
        nnx.update(self._model, params)

    def pad_id(self) -> int:
        return self._tokenizer.pad_id()

    def eos_id(self) -> int:
        return self._tokenizer.eos_id()

    def model(self) -> nnx.Module:
        return self._model


class _GroupLearner(grpo_learner.GRPOLearner):
    """GRPOLearner whose experience a function of ours makes, from what the engine sampled."""

    def __init__(self, cluster: rl_cluster.RLCluster, config: Any, *, experience: Any):
        super().__init__(cluster, config, reward_fns=lambda **_: None)
        self._experience = experience

    def _process_accumulated_batches(self, micro_batches: Any, micro_batch_sizes: list[int], mode: Any) -> list[Any]:
        # Tunix cuts the experience at the prompts' boundaries; packed rows have none. It also calls once more at the
        # end of a step, when nothing is left.
        if not micro_batches:
            return []
        merged = {name: np.concatenate([part[name] for part in micro_batches]) for name in ("prompts", "index")}
        rows = self._generate_and_compute_advantage(merged, mode)
        parts = len(micro_batch_sizes)
        cut = {name: np.split(value, parts) for name, value in rows.items() if value is not None}
        return [{name: cut[name][i] if name in cut else None for name in rows} for i in range(parts)]

    def _generate_and_compute_advantage(self, training_input: Any, mode: Any = rl_cluster.Mode.TRAIN) -> Any:
        engine, step = self.rl_cluster.rollout, self.rl_cluster.global_steps
        engine.step = step
        engine.generated.clear()
        rows = self._rollout_micro_batch_size * self.algo_config.num_generations
        self.rl_cluster.generate(prompts=list(training_input["prompts"]), mode=mode, micro_batch_size=rows)
        return self._experience(step, training_input["index"], list(engine.generated))

    def _compute_trajectory_ids(self, example: Any, steps: int) -> list[str]:
        return [""] * len(example["prompts"])  # Tunix keeps one string a row and step; nobody reads them.


def train_groups(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    *,
    tokenizer: Any,
    mesh: jax.sharding.Mesh,
    steps: int,
    prompts_per_step: int,
    generations: int,
    iterations: int,
    micro_batches: int,
    prompts_per_call: int,
    data: Callable[[int], Iterator[dict[str, np.ndarray]]],
    sample: Callable[[nnx.Module, Sequence[str], int, int], Any],
    experience: Callable[[int, np.ndarray, list[Any]], dict[str, np.ndarray]],
    loss_fn: Callable[..., tuple[jax.Array, Any]],
    checkpoints: Path,
    checkpoint_every_steps: int,
    on_start: Callable[[int], None],
    on_step: Callable[[int, list[Any]], None],
) -> None:
    """Trains a model in place by Tunix's RLCluster and GRPOLearner, from the newest checkpoint if there is one.

    data(step) yields batches {"prompts", "index"} of prompts_per_step from that step on; sample(model, prompts,
    step, first_row) completes prompts, each standing `generations` times in a row; experience(step, index, parts)
    turns what was sampled into the loss's arguments, arrays of any number of rows that micro_batches
    divides; on_start(step) and on_step(step, auxes)
    tell of the start, and of each step with the auxes of its micro-batches and iterations. step counts the
    rollouts that lie behind.
    """
    updates = steps * iterations
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optimizer,
        eval_every_n_steps=updates + 1,
        max_steps=updates,
        mini_batch_size=prompts_per_step,
        train_micro_batch_size=prompts_per_step // micro_batches,
        rollout_micro_batch_size=prompts_per_call,
        # With the rollout's size this decides after how many prompts Tunix asks for experience: all.
        compute_logps_micro_batch_size=prompts_per_step,
        checkpoint_root_directory=str(checkpoints.absolute()),
        # Only whole steps are saved: a resumed run could not repeat the rest of the iterations.
        checkpointing_options=_checkpointing(checkpoint_every_steps * iterations),
    )
    training.gradient_accumulation_steps = _accumulated(micro_batches)  # it takes none when it is made
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    cluster = rl_cluster.RLCluster(
        actor=model,
        tokenizer=tokenizer,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            rollout_engine=functools.partial(_Engine, sample=sample),
            training_config=training,
            rollout_config=base_rollout.RolloutConfig(temperature=1.0),
        ),
    )
    config = grpo_learner.GRPOConfig(num_generations=generations, num_iterations=iterations, beta=0.0)
    learner = _GroupLearner(cluster, config, experience=experience)
    actor = cluster.actor_trainer
    actor.with_loss_fn(loss_fn, has_aux=True).with_gen_model_input_fn(lambda batch: batch)
    actor._shard_optimizer = functools.partial(_place_optimizer, actor)
    actor.config.max_steps = None  # Tunix's own bar averages all losses so far at every step.

    done = actor.train_steps // iterations
    # The forced last checkpoint carries no step, and skipping batches counts iterations: data starts itself.
    cluster.global_steps = done
    learner._iter_steps = learner._last_iter_step
    auxes: list[Any] = []

    def after_micro_batch(aux: Any) -> None:
        auxes.append(aux)
        if len(auxes) == micro_batches * iterations:
            # Before Tunix saves this step's checkpoint, so that the record is never behind the weights.
            on_step(cluster.global_steps + 1, jax.device_get(auxes))
            auxes.clear()

    actor._post_process_train_step = after_micro_batch
    on_start(done)
    # Tunix's loop makes one more update before it looks whether any is left.
    if done < steps:
        learner.train(data(done))
