"""Measures a lent GPU on a Gemma 3 of 1B parameters with random weights, in one call.

    python -m bench.gpu --trl PYTHON   # PYTHON: an interpreter that has TRL; without it, our side alone
    python -m bench.gpu --size gpu-toy # the machinery on a CPU

SFT at 2,048 tokens as a share of the measured matmul rate, a rollout of 64 x 512 tokens as a share of what the
memory's bandwidth allows, and a GRPO step. One side at a time: each may want most of the memory. The result goes
to bench/results/gpu-DEVICE.json.
"""

import argparse
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import limit, material
from bench.compare import Driver, Figure, figure
from bench.sizes import SIZES
from showwork.files import read_json, write_json

SFT_GOAL, DECODE_GOAL = 0.45, 0.5


def measure(driver: Driver) -> list[Figure]:
    size, work = material.read(driver.folder)
    config = read_json(driver.folder / "model" / "config.json")
    item_bytes = 2 if size.dtype == "bfloat16" else 4

    def run(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        driver.say(name)
        said, answers = driver.alternate([name], XLA_PYTHON_CLIENT_PREALLOCATE="false")
        return said[name], answers[name]

    def seconds(name: str) -> list[float]:
        return [answer["seconds"] for answer in run(name)[1]]

    _, limits = run("limit")
    flops = [answer["flops_per_second"] / 1e12 for answer in limits]
    bandwidth = statistics.median(answer["bytes_per_second"] for answer in limits)

    lengths = [len(row["tokens"]) for row in work["sft"]]
    needed = limit.training_flops(config, lengths) / 1e12
    ours = [needed / s for s in seconds("ours sft")]
    what = f"SFT, {len(lengths)} rows of {size.sft_max_tokens}"
    found = [figure("gpu", what, "the limit", "TFLOP/s", ours, flops, at_least=SFT_GOAL)]

    prompts, tokens = size.rollout
    said, answers = run("ours rollout")
    rates = [prompts * tokens / answer["seconds"] for answer in answers]
    step = limit.decoding_bytes(config, rows=prompts, positions=said["width"] + tokens / 2, item_bytes=item_bytes)
    floor = [prompts * bandwidth / step] * len(rates)
    what = f"rollout, {prompts} x {tokens} tokens"
    found.append(figure("gpu", what, "the bandwidth floor", "tokens/s", rates, floor, at_least=DECODE_GOAL))

    step_seconds = seconds("ours grpo")
    what = f"GRPO step, {size.prompts} prompts x {size.generations}"
    found.append(figure("gpu", what, "itself", "s", step_seconds, step_seconds, at_least=None))
    if driver.trl:
        theirs = [needed / s for s in seconds("trl_side sft-longest")]
        found.append(figure("gpu", found[0].what, "TRL", "TFLOP/s", ours, theirs, at_least=None))
        theirs = seconds("trl_side grpo")
        row = figure("gpu", what, "TRL", "s", step_seconds, theirs, at_least=None, more_is_better=False)
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("gpu", "gpu-toy"), default="gpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--trl", type=Path, help="an interpreter that has TRL")
    parser.add_argument("--results", type=Path, default=material.ROOT / "bench" / "results")
    arguments = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    folder = material.prepare(SIZES[arguments.size], None)
    driver = Driver(folder, runs=arguments.runs, warm_up=2, trl=arguments.trl, say=say)
    found = measure(driver)
    import jax

    device = jax.devices()[0].device_kind.replace(" ", "-")
    path = arguments.results / f"gpu-{device}.json"
    write_json(path, {"device": device, "size": arguments.size, "versions": driver.versions,
                      "figures": [asdict(row) for row in found]})  # fmt: skip
    for row in found:
        print(f"{row.what}, against {row.peer}: {row.ours:g} to {row.theirs:g} {row.unit}, {row.ratio:g} times")
    print(f"Written: {path}")


if __name__ == "__main__":
    main()
