"""Model folders: Hugging Face checkpoints in the published Gemma names, read and written."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from showwork import tunix_adapter
from showwork.errors import UserError
from showwork.files import read_json, write_bytes, write_json
from showwork.models.specs import GemmaSpec

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"

# Published name ↔ Tunix's name, one layer's; the vectors and matrices that need no more than a transpose.
_LAYER_NAMES = {
    "input_layernorm.weight": "pre_attention_norm.scale",
    "post_attention_layernorm.weight": "post_attention_norm.scale",
    "pre_feedforward_layernorm.weight": "pre_ffw_norm.scale",
    "post_feedforward_layernorm.weight": "post_ffw_norm.scale",
    "self_attn.q_norm.weight": "attn._query_norm.scale",
    "self_attn.k_norm.weight": "attn._key_norm.scale",
    "mlp.gate_proj.weight": "mlp.gate_proj.kernel",
    "mlp.up_proj.weight": "mlp.up_proj.kernel",
    "mlp.down_proj.weight": "mlp.down_proj.kernel",
}
_READ_KEYS = (
    "vocab_size", "torch_dtype", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "sliding_window", "layer_types", "rope_local_base_freq", "rope_theta",
)  # fmt: skip
# Tunix's attention modules → the published projections that they hold, in order.
_ADAPTED_LETTERS = {"attn.q_einsum": "q", "attn.kv_einsum": "kv", "attn.qkv_einsum": "qkv", "attn.attn_vec_einsum": "o"}
_TOP_NAMES = {"model.embed_tokens.weight": "embedder.input_embedding", "model.norm.weight": "final_norm.scale"}


def save(
    model: nnx.Module,
    folder: Path,
    *,
    spec: GemmaSpec,
    stop_ids: tuple[int, ...],
    adapter: tuple[int, float] | None = None,
) -> None:
    """Writes weights and configuration; the tokenizer's files are the caller's.

    adapter is (rank, alpha) of a LoRA model: its weights are written merged, the adapter beside them in PEFT's
    layout. The first of stop_ids ends a training target; generation stops at any of them.
    """
    weights = {name: value for name, value in _flat_params(model).items() if "_lora_" not in name}
    if adapter:
        weights |= tunix_adapter.merge_lora(model, rank=adapter[0], alpha=adapter[1])
    published = {name: np.ascontiguousarray(value) for name, value in _to_published(weights, spec).items()}
    folder.mkdir(parents=True, exist_ok=True)
    _save_tensors(published, folder / WEIGHTS)
    dtype = str(published["model.norm.weight"].dtype)
    vocabulary = published["model.embed_tokens.weight"].shape[0]
    write_json(folder / "config.json", _to_config(spec, vocabulary=vocabulary, dtype=dtype))
    write_json(
        folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": list(stop_ids), "pad_token_id": 0}
    )
    if adapter:
        _save_adapter(model, folder, rank=adapter[0], alpha=adapter[1])


def copy_tokenizer(source: Path, folder: Path) -> None:
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        write_bytes(folder / name, (source / name).read_bytes())


def load(folder: Path) -> tuple[nnx.Module, GemmaSpec]:
    """Reads a checkpoint folder. Raises UserError that names what is missing, broken or of another shape."""
    config = read_json(folder / "config.json")
    spec = _from_config(config, folder)
    try:
        published = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS}: no such file; `dvc repro` makes it") from None
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS}: not a whole safetensors file ({error})") from None
    model = tunix_adapter.build_model(spec, vocabulary=config["vocab_size"], dtype=config["torch_dtype"])
    for name, wanted in _to_published(_flat_params(model), spec).items():
        if name not in published:
            raise UserError(f"{folder / WEIGHTS}: lacks the tensor {name}")
        if published[name].shape != wanted.shape:
            raise UserError(f"{folder / WEIGHTS}: {name} is {published[name].shape}; config.json says {wanted.shape}")
    given = _from_published(published, spec)
    state = nnx.state(model, nnx.Param)

    def fill(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
        return jnp.asarray(given[_dotted(path)], dtype=value.dtype)

    nnx.update(model, jax.tree_util.tree_map_with_path(fill, state))
    return model, spec


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion; the first is the one that training targets end with."""
    ids = read_json(folder / "generation_config.json")["eos_token_id"]
    return tuple(ids) if isinstance(ids, list) else (ids,)


def _dotted(path: tuple[Any, ...]) -> str:
    """Tunix's name of a leaf: layers.0.attn.q_einsum.w."""
    parts = [str(getattr(part, "key", getattr(part, "name", part))) for part in path]
    return ".".join(part for part in parts if part != "value")


def _flat_params(model: nnx.Module) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    return {_dotted(path): value for path, value in leaves}


def _to_published(weights: dict[str, Any], spec: GemmaSpec) -> dict[str, np.ndarray]:
    weights = {name: np.asarray(value) for name, value in weights.items()}
    published = {theirs: weights[ours] for theirs, ours in _TOP_NAMES.items()}
    for i in range(spec.layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        for name, tunix_name in _LAYER_NAMES.items():
            published[f"{theirs}.{name}"] = weights[f"{ours}.{tunix_name}"].T
        if spec.heads == spec.kv_heads:
            q, k, v = weights[f"{ours}.attn.qkv_einsum.w"]
        else:
            q = weights[f"{ours}.attn.q_einsum.w"]
            k, v = weights[f"{ours}.attn.kv_einsum.w"]
        for letter, projection in (("q", q), ("k", k), ("v", v)):  # [N, D, H] → [N * H, D]
            heads, width, head_dim = projection.shape
            published[f"{theirs}.self_attn.{letter}_proj.weight"] = projection.transpose(0, 2, 1).reshape(
                heads * head_dim, width
            )
        output = weights[f"{ours}.attn.attn_vec_einsum.w"]  # [N, H, D] → [D, N * H]
        published[f"{theirs}.self_attn.o_proj.weight"] = output.reshape(-1, output.shape[-1]).T
    return published


def _from_published(published: dict[str, np.ndarray], spec: GemmaSpec) -> dict[str, np.ndarray]:
    weights = {ours: published[theirs] for theirs, ours in _TOP_NAMES.items()}
    for i in range(spec.layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        for name, tunix_name in _LAYER_NAMES.items():
            weights[f"{ours}.{tunix_name}"] = published[f"{theirs}.{name}"].T
        q, k, v = (
            published[f"{theirs}.self_attn.{letter}_proj.weight"]
            .reshape(heads, spec.head_dim, spec.width)
            .transpose(0, 2, 1)
            for letter, heads in (("q", spec.heads), ("k", spec.kv_heads), ("v", spec.kv_heads))
        )
        if spec.heads == spec.kv_heads:
            weights[f"{ours}.attn.qkv_einsum.w"] = np.stack([q, k, v])
        else:
            weights[f"{ours}.attn.q_einsum.w"] = q
            weights[f"{ours}.attn.kv_einsum.w"] = np.stack([k, v])
        output = published[f"{theirs}.self_attn.o_proj.weight"].T
        weights[f"{ours}.attn.attn_vec_einsum.w"] = output.reshape(spec.heads, spec.head_dim, spec.width)
    return weights


def _to_config(spec: GemmaSpec, *, vocabulary: int, dtype: str) -> dict[str, Any]:
    kinds = ["full_attention" if i in spec.global_layers else "sliding_attention" for i in range(spec.layers)]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": spec.width,
        "intermediate_size": spec.hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "query_pre_attn_scalar": spec.head_dim,
        "sliding_window": spec.sliding_window,
        "layer_types": kinds,
        "rope_theta": float(spec.global_rope_base),
        "rope_local_base_freq": float(spec.local_rope_base),
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 32768,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "torch_dtype": dtype,
    }


def _from_config(config: dict[str, Any], folder: Path) -> GemmaSpec:
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "gemma3_text":
        raise UserError(f"{folder / 'config.json'}: model_type is {kind!r}; this reads 'gemma3_text'")
    lacking = [key for key in _READ_KEYS if key not in config]
    if lacking:
        raise UserError(f"{folder / 'config.json'}: lacks {', '.join(lacking)}")
    return GemmaSpec(
        family="gemma3",
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        hidden=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        sliding_window=config["sliding_window"],
        global_layers=tuple(i for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"),
        local_rope_base=int(config["rope_local_base_freq"]),
        global_rope_base=int(config["rope_theta"]),
    )


def _save_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    # One metadata key: with several, safetensors writes its header in another order each time.
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(path)


def _save_adapter(model: nnx.Module, folder: Path, *, rank: int, alpha: float) -> None:
    """The adapter in PEFT's layout: lora_A [r, in], lora_B [out, r]; key and value share one lora_A."""
    tensors, targets = {}, set()
    for path, (module, name) in tunix_adapter.lora_modules(model).items():
        a, b = (np.asarray(getattr(module, f"{name}_lora_{part}").get_value()) for part in "ab")
        layer, kind = re.fullmatch(r"layers\.(\d+)\.(.+)", path).groups()
        letters = _ADAPTED_LETTERS.get(kind)
        if letters is None:
            parts = {kind: b}
        elif len(letters) == 1:
            parts = {f"self_attn.{letters}_proj": b}
        else:  # [r, projections, N, H]
            parts = {f"self_attn.{letter}_proj": b[:, i] for i, letter in enumerate(letters)}
        for target, up in parts.items():
            targets.add(target.split(".")[-1])
            prefix = f"base_model.model.model.layers.{layer}.{target}"
            tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, rank).T)
            tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(up.reshape(rank, -1).T)
    _save_tensors(tensors, folder / ADAPTER)
    write_json(
        folder / "adapter_config.json",
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
         "bias": "none", "target_modules": sorted(targets)},
    )  # fmt: skip
