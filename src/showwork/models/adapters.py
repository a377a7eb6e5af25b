"""A LoRA adapter in PEFT's layout, in a folder of its own inside that of the merged weights."""

from pathlib import Path

import numpy as np

from showwork.files import write_json
from showwork.models import tensors
from showwork.tunix_adapter import lora
from showwork.tunix_adapter.gemma import Model

# Not beside the merged weights: where PEFT is installed, transformers would apply the adapter a second time.
FOLDER = "adapter"
# Tunix's attention modules → the published projections that they contain, in order.
_LETTERS = {"attn.q_einsum": "q", "attn.kv_einsum": "kv", "attn.qkv_einsum": "qkv", "attn.attn_vec_einsum": "o"}


def save(model: Model, folder: Path, *, rank: int, alpha: float) -> None:
    """Writes lora_A [r, in] and lora_B [out, r] of each published projection; those that Tunix fuses share lora_A."""
    values: dict[str, np.ndarray] = {}
    targets: set[str] = set()
    for path, (module, name) in lora.lora_modules(model).items():
        a, b = (np.asarray(getattr(module, f"{name}_lora_{part}").get_value()) for part in "ab")
        _, layer, kind = path.split(".", 2)
        letters = _LETTERS.get(kind)
        if letters is None:
            parts = {kind: b}
        elif len(letters) == 1:
            parts = {f"self_attn.{letters}_proj": b}
        else:  # [r, projections, N, H]
            parts = {f"self_attn.{letter}_proj": b[:, i] for i, letter in enumerate(letters)}
        for target, up in parts.items():
            targets.add(target.split(".")[-1])
            prefix = f"base_model.model.model.layers.{layer}.{target}"
            values[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, rank).T)
            values[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(up.reshape(rank, -1).T)
    write_json(
        folder / "adapter_config.json",
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
         "bias": "none", "target_modules": sorted(targets)},
    )  # fmt: skip
    tensors.save(values, folder / "adapter_model.safetensors")
