"""The Gemmas that the project knows: shapes only, importable without JAX."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GemmaSpec:
    """The shape of one Gemma; the size of its vocabulary comes from the tokenizer.

    global_layers are the indices with global attention; the others see a window of sliding_window tokens.
    """

    family: Literal["gemma3"]
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    sliding_window: int
    global_layers: tuple[int, ...]
    local_rope_base: int = 10_000
    global_rope_base: int = 1_000_000


# Published Gemma 3 has five local layers to one global. A model of fewer than six layers would have no global
# layer at all by that rule, so the tiny ones name theirs.
MODELS: dict[str, GemmaSpec] = {
    # 2 layers of 32: for tests, where only the mechanics count.
    "gemma3_test": GemmaSpec("gemma3", 2, 32, 64, 2, 1, 16, sliding_window=64, global_layers=(1,)),
    # The default: small enough to learn grade-school problems on two cores within minutes.
    "gemma3_tiny": GemmaSpec("gemma3", 4, 128, 384, 4, 1, 32, sliding_window=64, global_layers=(3,)),
}
