"""config.json of a checkpoint folder, in the format of transformers: a spec, a vocabulary and a dtype."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.models.specs import MODELS, Family, GemmaSpec

FILE = "config.json"
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Header:
    """What config.json says."""

    spec: GemmaSpec
    vocabulary: int
    dtype: str
    has_vision: bool
    """A multimodal checkpoint; only its text decoder is loaded."""


_FAMILIES: dict[str, Family] = {"gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3"}
_ARCHITECTURES = {
    "gemma": ("GemmaForCausalLM", "gemma"),
    "gemma2": ("Gemma2ForCausalLM", "gemma2"),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text"),
}
_READ_KEYS = (
    "vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim",
)  # fmt: skip
# Keys that the published configuration of a multimodal Gemma leaves out of its text_config.
_VISION_DEFAULTS = {"vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}


def read(folder: Path) -> Header:
    """Raises UserError where config.json is missing, lacks a key, or asks for something that Tunix does not compute."""
    path = folder / FILE
    config = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    has_vision = kind == "gemma3"
    if not has_vision and kind not in _FAMILIES:
        raise UserError(f"{path}: model_type is {kind!r}; this reads {', '.join(map(repr, (*_FAMILIES, 'gemma3')))}")
    text = _VISION_DEFAULTS | config["text_config"] if has_vision and "text_config" in config else config
    family: Family = "gemma3" if has_vision else _FAMILIES[kind]
    dtype = config.get("dtype", config.get("torch_dtype"))
    lacking = [key for key in _READ_KEYS if key not in text]
    lacking += ["sliding_window"] if family != "gemma" and "sliding_window" not in text else []
    lacking += ["torch_dtype"] if dtype is None else []
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}")
    if dtype not in DTYPES:
        raise UserError(f"{path}: the weights are {dtype}; this reads {' and '.join(DTYPES)}. Convert them first")
    _check_constants_of_tunix(text, family, path)
    layers = text["num_hidden_layers"]
    kinds = text.get("layer_types") or _layer_types(text, family, layers)
    local_base, global_base, scale = _rotary(text, family, path)
    spec = GemmaSpec(
        family=family,
        layers=layers,
        width=text["hidden_size"],
        hidden=text["intermediate_size"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        sliding_window=None if family == "gemma" else text["sliding_window"],
        global_layers=tuple(i for i, kind in enumerate(kinds) if kind == "full_attention"),
        local_rope_base=local_base,
        global_rope_base=global_base,
        global_rope_scale=scale,
        attention_softcap=text.get("attn_logit_softcapping", 50.0) if family == "gemma2" else None,
        final_softcap=text.get("final_logit_softcapping", 30.0) if family == "gemma2" else None,
    )
    return Header(spec, text["vocab_size"], dtype, has_vision)


def write(folder: Path, spec: GemmaSpec, *, vocabulary: int, dtype: str) -> None:
    architecture, model_type = _ARCHITECTURES[spec.family]
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": vocabulary,
        "hidden_size": spec.width,
        "intermediate_size": spec.hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
    }
    if spec.family != "gemma":
        kinds = ["full_attention" if i in spec.global_layers else "sliding_attention" for i in range(spec.layers)]
        config |= {
            "query_pre_attn_scalar": spec.head_dim,
            "sliding_window": spec.sliding_window,
            "layer_types": kinds,
        }
    config["rope_theta"] = float(spec.global_rope_base)
    if spec.family == "gemma3":
        config["rope_local_base_freq"] = float(spec.local_rope_base)
    if spec.global_rope_scale != 1:
        config["rope_scaling"] = {"rope_type": "linear", "factor": spec.global_rope_scale}
    if spec.family == "gemma2":
        config |= {
            "attn_logit_softcapping": spec.attention_softcap,
            "final_logit_softcapping": spec.final_softcap,
        }
    config |= {
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 32768 if spec.family == "gemma3" else 8192,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "torch_dtype": dtype,
        # Without a version, transformers warns that the tokenizer beside it splits wrongly, as some of Mistral's did.
        "transformers_version": "5.12.1",
    }
    write_json(folder / FILE, config)


def describe(spec: GemmaSpec) -> str:
    """The spec's name in MODELS, or else its family and size."""
    named = next((name for name, known in MODELS.items() if known == spec), None)
    return named or f"a {spec.family} of {spec.layers} layers of {spec.width}, with {spec.heads} heads"


def _check_constants_of_tunix(text: Mapping[str, Any], family: str, path: Path) -> None:
    computed = {
        "query_pre_attn_scalar": text["head_dim"],
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "tie_word_embeddings": True,
    }
    if family == "gemma3":
        computed |= {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    for key, value in computed.items():
        if key in text and text[key] != value:
            raise UserError(f"{path}: {key} is {text[key]}; Tunix's {family} computes with {value}")


def _layer_types(text: Mapping[str, Any], family: str, layers: int) -> list[str]:
    if family == "gemma":
        return ["full_attention"] * layers
    period = text.get("sliding_window_pattern", 6) if family == "gemma3" else 2
    return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(layers)]


def _rotary(text: Mapping[str, Any], family: str, path: Path) -> tuple[int, int, float]:
    """Rotary bases of local and global layers, and the global scale, from the keys of transformers 4 or 5."""
    if family == "gemma3":
        bases = (text.get("rope_local_base_freq", 10_000), text.get("rope_theta", 1_000_000))
        scalings = {"full_attention": text.get("rope_scaling") or {}} | (text.get("rope_parameters") or {})
        local, far = scalings.get("sliding_attention") or {}, scalings["full_attention"] or {}
    else:
        bases = (text.get("rope_theta", 10_000),) * 2
        local = far = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = far.get("rope_type", "default")
    is_linear = kind == "linear" and family == "gemma3"
    if (kind != "default" and not is_linear) or local.get("rope_type", "default") != "default":
        raise UserError(f"{path}: rope_type is {kind}; Tunix's {family} has no such rotary positions")
    found = int(local.get("rope_theta", bases[0])), int(far.get("rope_theta", bases[1]))
    if family != "gemma3" and found != (10_000, 10_000):
        raise UserError(f"{path}: rope_theta is {found[1]}; Tunix's {family} computes with 10000")
    return *found, float(far["factor"]) if is_linear else 1.0
