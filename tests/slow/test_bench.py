"""The bench at toy size: every side steps, all sides compute the same, and the file keeps earlier figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Compilation takes nearly all of the time.
ENVIRONMENT = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_side_steps_and_all_compute_the_same(tmp_path: Path) -> None:
    options = ("--size", "toy", "--runs", "1", "--no-trl", "--results", str(tmp_path))
    shown = run("bench.speed", *options)
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text("utf-8"))
    assert [row["part"] for row in found["figures"]] == [
        *["limit"] * 2, *["sft"] * 3, "grpo", *["evaluate"] * 3, *["start"] * 2
    ]  # fmt: skip
    assert all(row["low"] <= row["ratio"] <= row["high"] and row["ours"] > 0 for row in found["figures"])
    # One check per peer. The lengths of a handful of sampled completions agree only by chance.
    assert [check["part"] for check in found["checks"]] == ["sft"] * 2 + ["grpo"] + ["evaluate"] * 2
    assert all(check["found"] <= check["allowed"] for check in found["checks"] if check["part"] != "grpo")
    assert "useful tokens/s" in shown

    run("bench.speed", *options, "--only", "limit")
    again = json.loads(path.read_text("utf-8"))
    assert again["checks"] == found["checks"]
    assert again["figures"][:-2] == found["figures"][2:]  # the two of `limit` are new and come last


def test_a_published_size_runs_with_small_weights_and_measures_memory(tmp_path: Path) -> None:
    run("bench.speed", "--size", "gemma3_270m-toy", "--runs", "1", "--no-trl", "--results", str(tmp_path))
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text("utf-8"))
    assert [(row["part"], row["peer"], row["unit"]) for row in found["figures"][2:]] == [
        ("sft", "stock, padded to the longest", "trained tokens/s"), ("sft", "the most allowed", "GB"),
        ("sft", "stock, padded to the longest", "GB"),
        ("grpo", "itself", "s"), ("grpo", "the most allowed", "GB"),
        ("evaluate", "stock Sampler, same batch", "tokens/s"), ("evaluate", "stock Sampler, same batch", "GB"),
    ]  # fmt: skip
    peaks = [row["ours"] for row in found["figures"] if row["unit"] == "GB"]
    assert all(0.1 < peak < 3 for peak in peaks)
    assert all(check["found"] <= check["allowed"] for check in found["checks"])


def test_the_gpu_script_runs_at_toy_size_on_a_cpu(tmp_path: Path) -> None:
    run("bench.gpu", "--size", "gpu-toy", "--runs", "1", "--results", str(tmp_path))
    (path,) = tmp_path.iterdir()
    figures = json.loads(path.read_text("utf-8"))["figures"]
    assert [row["peer"] for row in figures] == ["the limit", "the bandwidth floor", "itself"]
    assert all(row["ours"] > 0 for row in figures)
