"""The machine's measured rates, and the least work of a step. `python -m bench.limit` is the side that measures."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gate import Gate

MATMUL = 2048  # rows and columns: 17 GFLOP a product
STREAM_BYTES = 2**29  # far beyond any cache


def parameters(config: dict[str, int]) -> int:
    """Weights of a Gemma 3 by its config.json, the tied embedding once."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    attention = config["head_dim"] * width * 2 * (heads + config["num_key_value_heads"])
    norms = 4 * width + 2 * config["head_dim"]
    layer = attention + 3 * width * config["intermediate_size"] + norms
    return config["num_hidden_layers"] * layer + config["vocab_size"] * width + width


def training_flops(config: dict[str, int], lengths: Sequence[int]) -> float:
    """6 N per token, and 12 layers heads head_dim L for its attention to a sequence of L, without padding."""
    attention = 12 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"]
    return 6.0 * parameters(config) * sum(lengths) + float(attention) * sum(length**2 for length in lengths)


def decoding_bytes(config: dict[str, int], *, rows: int, positions: float, item_bytes: int) -> float:
    """Least bytes that one decode step reads: the weights once, and each row's keys and values."""
    cache = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * positions
    return item_bytes * (parameters(config) + rows * cache)


def decoding_flops(config: dict[str, int], prompts: Sequence[int], tokens: int) -> float:
    """2 N per token of prompts and completions, and its attention to earlier tokens; completions of one length."""
    attention = 4 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"]
    lengths = [prompt + tokens / len(prompts) for prompt in prompts]
    return 2.0 * parameters(config) * sum(lengths) + attention * sum(length**2 / 2 for length in lengths)


def measure(gate: Gate, folder: Path) -> None:
    import jax
    import jax.numpy as jnp

    multiply, add = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    dtype = json.loads((folder / "work.json").read_text("utf-8"))["size"]["dtype"]
    width = MATMUL * (1 if jax.default_backend() == "cpu" else 4)
    square = jax.random.normal(jax.random.key(0), (width, width), dtype)
    stream = jnp.zeros(STREAM_BYTES // 4, jnp.float32)

    def rate(function, *arguments, work: float, times: int) -> float:
        jax.block_until_ready(function(*arguments))
        started = time.perf_counter()
        for _ in range(times):
            jax.block_until_ready(function(*arguments))
        return work * times / (time.perf_counter() - started)

    gate.wait()
    while True:
        flops = rate(multiply, square, square, work=2.0 * width**3, times=5)
        gate.wait(flops_per_second=flops, bytes_per_second=rate(add, stream, work=2.0 * STREAM_BYTES, times=3))


if __name__ == "__main__":
    measure(Gate(), Path(sys.argv[1]))
