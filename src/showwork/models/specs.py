"""The known Gemmas: their shapes, and where the published ones are. Importable without JAX."""

from dataclasses import dataclass
from typing import Literal

Family = Literal["gemma", "gemma2", "gemma3"]


@dataclass(frozen=True)
class GemmaSpec:
    """The shape of one Gemma; the size of its vocabulary comes from the tokenizer."""

    family: Family
    """The generation; gemma is the first."""
    layers: int
    width: int
    hidden: int
    """Units of the MLP."""
    heads: int
    kv_heads: int
    head_dim: int
    sliding_window: int | None
    """Tokens that a local layer attends to; None without local layers."""
    global_layers: tuple[int, ...]
    """Indices of the layers with global attention; the others are local."""
    local_rope_base: int = 10_000
    global_rope_base: int = 1_000_000
    global_rope_scale: float = 1.0
    """Divides the rotary positions of global layers."""
    attention_softcap: float | None = None
    """c of c * tanh(x / c) on attention logits; None for no cap."""
    final_softcap: float | None = None
    """The same on the model's logits."""


@dataclass(frozen=True)
class Published:
    """Where the instruction-tuned weights are, as values of base.weights, and the size of their vocabulary."""

    hub: str
    kaggle: str
    vocabulary: int


def _gemma(layers: int, width: int, hidden: int, heads: int, kv_heads: int, head_dim: int) -> GemmaSpec:
    return GemmaSpec(
        "gemma", layers, width, hidden, heads, kv_heads, head_dim, sliding_window=None,
        global_layers=tuple(range(layers)), global_rope_base=10_000,
    )  # fmt: skip


def _gemma2(
    layers: int, width: int, hidden: int, heads: int, kv_heads: int, head_dim: int, *, sliding_window: int
) -> GemmaSpec:
    """Local and global layers alternate."""
    return GemmaSpec(
        "gemma2", layers, width, hidden, heads, kv_heads, head_dim, sliding_window=sliding_window,
        global_layers=tuple(range(1, layers, 2)), global_rope_base=10_000, attention_softcap=50.0, final_softcap=30.0,
    )  # fmt: skip


def _gemma3(
    layers: int, width: int, hidden: int, heads: int, kv_heads: int, head_dim: int, *, sliding_window: int,
    global_rope_scale: float = 1.0,
) -> GemmaSpec:  # fmt: skip
    """Five local layers to each global one."""
    return GemmaSpec(
        "gemma3", layers, width, hidden, heads, kv_heads, head_dim, sliding_window=sliding_window,
        global_layers=tuple(range(5, layers, 6)), global_rope_scale=global_rope_scale,
    )  # fmt: skip


MODELS: dict[str, GemmaSpec] = {
    # For tests: 2 layers of width 32, one per family.
    "gemma_test": _gemma(2, 32, 64, 2, 2, 16),
    "gemma2_test": _gemma2(2, 32, 64, 4, 2, 16, sliding_window=64),
    # By Gemma 3's rule a model of fewer than six layers has no global layer: the tiny ones list theirs.
    "gemma3_test": GemmaSpec("gemma3", 2, 32, 64, 2, 1, 16, sliding_window=64, global_layers=(1,)),
    # The default: small enough to learn grade-school problems on two cores within minutes.
    "gemma3_tiny": GemmaSpec("gemma3", 4, 128, 384, 4, 1, 32, sliding_window=64, global_layers=(3,)),
    "gemma_2b": _gemma(18, 2048, 16_384, 8, 1, 256),
    "gemma_7b": _gemma(28, 3072, 24_576, 16, 16, 256),
    "gemma2_2b": _gemma2(26, 2304, 9216, 8, 4, 256, sliding_window=4096),
    "gemma3_270m": _gemma3(18, 640, 2048, 4, 1, 256, sliding_window=512),
    "gemma3_1b": _gemma3(26, 1152, 6912, 4, 1, 256, sliding_window=512),
    # The text decoder of a multimodal model.
    "gemma3_4b": _gemma3(34, 2560, 10_240, 8, 4, 256, sliding_window=1024, global_rope_scale=8.0),
}

# All share one chat format, with <start_of_turn> and <end_of_turn> around each turn, and each generation (nearly) one
# tokenizer.
# A completion stops at <end_of_turn> (107; in Gemma 3 106) or <eos> (1).
PUBLISHED: dict[str, Published] = {
    "gemma_2b": Published("hub:google/gemma-2b-it", "kaggle:google/gemma/transformers/2b-it", 256_000),
    "gemma_7b": Published("hub:google/gemma-7b-it", "kaggle:google/gemma/transformers/7b-it", 256_000),
    "gemma2_2b": Published("hub:google/gemma-2-2b-it", "kaggle:google/gemma-2/transformers/gemma-2-2b-it", 256_000),
    "gemma3_270m": Published(
        "hub:google/gemma-3-270m-it", "kaggle:google/gemma-3/transformers/gemma-3-270m-it", 262_144
    ),
    "gemma3_1b": Published("hub:google/gemma-3-1b-it", "kaggle:google/gemma-3/transformers/gemma-3-1b-it", 262_144),
    "gemma3_4b": Published("hub:google/gemma-3-4b-it", "kaggle:google/gemma-3/transformers/gemma-3-4b-it", 262_144),
}
