"""A Gemma in a GGUF file, as llama.cpp writes it: its shape, and its tensors under the published names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from showwork.errors import UserError
from showwork.models import layout
from showwork.models.gguf_file import GgufFile
from showwork.models.specs import Family, GemmaSpec

# general.architecture → the published names of a layer's tensors → those of the file, both without `.weight`.
_SAME = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_FOUR_NORMS = _SAME | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_NAMES: dict[Family, dict[str, str]] = {
    "gemma": _SAME | {"post_attention_layernorm": "ffn_norm"},
    "gemma2": _FOUR_NORMS,
    "gemma3": _FOUR_NORMS | {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"},
}
# Every so many layers one attends to everything; the file names the number where it is another.
_PERIODS = {"gemma": 1, "gemma2": 2, "gemma3": 6}
_TOKENS = "tokenizer.ggml.tokens"


class GgufGemma:
    """Published names to tensors in float32, each read on access.

    Raises UserError, naming the file, where it is no whole Gemma of text, or asks for something that Tunix does not
    compute. No tensor is read before.
    """

    def __init__(self, file: GgufFile):
        self.file = file
        self.spec = _read_spec(file)
        embedding = file.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise UserError(f"{file.path}: lacks token_embd.weight, the embedding")
        self.vocabulary = embedding.shape[0]
        tokens = file.metadata.get(_TOKENS, ())
        if len(tokens) != self.vocabulary:
            raise UserError(
                f"{file.path}: its vocabulary has {len(tokens)} tokens, its embedding {self.vocabulary} rows: they are "
                "not of one model"
            )
        self._check_tensors()

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.file.read(self._stored_name(name))
        # The file has norms as 1 + weight, as they are multiplied; the published weight is the rest.
        return tensor - np.float32(1) if "norm" in name else tensor

    def _stored_name(self, name: str) -> str:
        """The file's name of a published tensor."""
        if name == "model.embed_tokens.weight":
            return "token_embd.weight"
        if name == "model.norm.weight":
            return "output_norm.weight"
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{_NAMES[self.spec.family][rest.removesuffix('.weight')]}.weight"

    def _check_tensors(self) -> None:
        placed = layout.places(self.spec, vocabulary=self.vocabulary)
        wanted = {self._stored_name(name): place.shape for name, place in placed.items()}
        lacking = [name for name in wanted if name not in self.file.tensors]
        extra = [name for name in self.file.tensors if name not in wanted]
        if lacking:
            raise UserError(f"{self.file.path}: lacks {_count(lacking)}, which its metadata say that it has")
        if extra:
            raise UserError(f"{self.file.path}: has {_count(extra)}, for which a {self.spec.family} has no place")
        for name, shape in wanted.items():
            if (found := self.file.tensors[name].shape) != shape:
                raise UserError(f"{self.file.path}: {name} is {found}; by its metadata it is {shape}")


def _count(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"


class _Keys:
    """Metadata of the file's architecture."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]):
        self._path = path
        self._metadata = metadata
        self.family: Family = self._family(metadata.get("general.architecture"))

    def _family(self, architecture: Any) -> Family:
        for family in _NAMES:
            if architecture == family:
                return family
        known = ", ".join(_NAMES)
        raise UserError(f"{self._path}: general.architecture is {architecture}; this reads {known}, in text alone")

    def get(self, key: str, default: Any = None) -> Any:
        """Raises UserError where the key is missing and there is no default."""
        found = self._metadata.get(f"{self.family}.{key}", default)
        if found is None:
            raise UserError(f"{self._path}: lacks {self.family}.{key}")
        return found

    def require(self, key: str, computed: Any, *, default: Any) -> None:
        """Raises UserError where the file asks for something else than Tunix computes, but for rounding to float32."""
        found = self.get(key, default)
        if found != computed and np.float32(found) != np.float32(computed):
            raise UserError(f"{self._path}: {self.family}.{key} is {found}; Tunix's {self.family} computes {computed}")


def _read_spec(file: GgufFile) -> GemmaSpec:
    keys = _Keys(file.path, file.metadata)
    family, layers, heads = keys.family, keys.get("block_count"), keys.get("attention.head_count")
    width = keys.get("embedding_length")
    head_dim = keys.get("attention.key_length", width // heads)
    keys.require("attention.value_length", head_dim, default=head_dim)
    keys.require("attention.layer_norm_rms_epsilon", 1e-6, default=1e-6)
    scaling = keys.get("rope.scaling.type", "none")
    if scaling != "none" and (scaling != "linear" or family != "gemma3"):
        raise UserError(f"{file.path}: rope.scaling.type is {scaling}; Tunix's {family} has no such rotary positions")
    if family != "gemma3":
        keys.require("rope.freq_base", 10_000, default=10_000)
    period = keys.get("attention.sliding_window_pattern", _PERIODS[family])
    is_local = period if isinstance(period, list) else [bool((i + 1) % period) for i in range(layers)]
    return GemmaSpec(
        family=family,
        layers=layers,
        width=width,
        hidden=keys.get("feed_forward_length"),
        heads=heads,
        kv_heads=keys.get("attention.head_count_kv", heads),
        head_dim=head_dim,
        sliding_window=None if family == "gemma" else keys.get("attention.sliding_window"),
        global_layers=tuple(i for i, local in enumerate(is_local) if not local),
        local_rope_base=int(keys.get("rope.freq_base_swa", 10_000)),
        global_rope_base=int(keys.get("rope.freq_base", 1_000_000 if family == "gemma3" else 10_000)),
        global_rope_scale=float(keys.get("rope.scaling.factor")) if scaling == "linear" else 1.0,
        attention_softcap=float(keys.get("attn_logit_softcapping", 50.0)) if family == "gemma2" else None,
        final_softcap=float(keys.get("final_logit_softcapping", 30.0)) if family == "gemma2" else None,
    )
