"""The mapping between the published tensors of a Gemma and Tunix's weights: names, shapes and axes, in NumPy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from showwork.models.specs import GemmaSpec

Read = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Place:
    """One published tensor and its place in Tunix's model.

    theirs.reshape(split).transpose(order) is the leaf, or leaf[part] where part is a number.
    """

    shape: tuple[int, ...]
    """Of the published tensor."""
    leaf: str
    """Tunix's name of the weight."""
    split: tuple[int, ...]
    order: tuple[int, ...]
    part: int | None = None

    def to_tunix(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(self.split).transpose(self.order)

    def to_published(self, leaf: np.ndarray) -> np.ndarray:
        ours = leaf if self.part is None else leaf[self.part]
        return np.ascontiguousarray(ours.transpose(np.argsort(self.order)).reshape(self.shape))


# In the first generation, post_attention_layernorm is the published name of the norm before the MLP.
_NORMS = {
    "gemma": {"input_layernorm": "pre_attention_norm", "post_attention_layernorm": "pre_ffw_norm"},
    "gemma2": {
        "input_layernorm": "pre_attention_norm",
        "post_attention_layernorm": "post_attn_norm",
        "pre_feedforward_layernorm": "pre_ffw_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
    "gemma3": {
        "input_layernorm": "pre_attention_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "pre_ffw_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}


def places(spec: GemmaSpec, *, vocabulary: int) -> dict[str, Place]:
    """Published name → place, for every tensor of a Gemma of this shape."""
    found = {
        "model.embed_tokens.weight": _as_is("embedder.input_embedding", vocabulary, spec.width),
        "model.norm.weight": _as_is("final_norm.scale", spec.width),
    }
    for i in range(spec.layers):
        found |= {f"model.layers.{i}.{name}.weight": place for name, place in _layer(spec, f"layers.{i}")}
    return found


def gather(placed: dict[str, Place], read: Read) -> Read:
    """A function that assembles a leaf, by its name, from the published tensors that `read` returns."""
    parts: dict[str, list[str]] = {}
    for name, place in placed.items():
        parts.setdefault(place.leaf, []).append(name)

    def leaf(name: str) -> np.ndarray:
        values = [placed[part].to_tunix(read(part)) for part in parts[name]]
        return values[0] if placed[parts[name][0]].part is None else np.stack(values)

    return leaf


def _as_is(leaf: str, *shape: int) -> Place:
    return Place(shape, leaf, shape, tuple(range(len(shape))))


def _layer(spec: GemmaSpec, layer: str) -> Iterator[tuple[str, Place]]:
    for theirs, ours in _NORMS[spec.family].items():
        yield theirs, _as_is(f"{layer}.{ours}.scale", spec.width)
    if spec.family == "gemma3":
        for letter, ours in (("q", "_query_norm"), ("k", "_key_norm")):
            yield f"self_attn.{letter}_norm", _as_is(f"{layer}.attn.{ours}.scale", spec.head_dim)
    for name, shape in (
        ("gate_proj", (spec.hidden, spec.width)),
        ("up_proj", (spec.hidden, spec.width)),
        ("down_proj", (spec.width, spec.hidden)),
    ):
        yield f"mlp.{name}", Place(shape, f"{layer}.mlp.{name}.kernel", shape, (1, 0))
    if spec.heads == spec.kv_heads:
        sources = {letter: ("qkv_einsum", part) for part, letter in enumerate("qkv")}
    else:
        sources = {"q": ("q_einsum", None), "k": ("kv_einsum", 0), "v": ("kv_einsum", 1)}
    for letter, (module, part) in sources.items():  # [N * H, D] → [N, D, H]
        heads = spec.heads if letter == "q" else spec.kv_heads
        shape, split = (heads * spec.head_dim, spec.width), (heads, spec.head_dim, spec.width)
        yield f"self_attn.{letter}_proj", Place(shape, f"{layer}.attn.{module}.w", split, (0, 2, 1), part)
    # [D, N * H] → [N, H, D]
    shape, split = (spec.width, spec.heads * spec.head_dim), (spec.width, spec.heads, spec.head_dim)
    yield "self_attn.o_proj", Place(shape, f"{layer}.attn.attn_vec_einsum.w", split, (1, 2, 0))
