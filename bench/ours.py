"""Our side: the trainers and the rollout as the stages run them. `python -m bench.ours WHAT FOLDER`."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from showwork import stage  # first, as in the stages: it sets Python's garbage collector

# isort: split
import jax
import numpy as np
from flax import nnx

from bench import material
from bench.gate import Gate
from bench.sizes import Size
from showwork import config, devices, rollout
from showwork.models import adapters, checkpoints
from showwork.models.specs import GemmaSpec
from showwork.records import Problem
from showwork.shapes import round_up
from showwork.training import data, optimizer, rl
from showwork.training import sft as sft_loop
from showwork.training.arms import LoadedArm
from showwork.training.curves import Curve
from showwork.training.passes import Split
from showwork.training.run import Run
from showwork.tunix_adapter import supervised
from showwork.tunix_adapter.gemma import Model

NEVER = 10**9
# For all sides: AdamW at a rate that hardly changes the model, so that all steps are alike.
OPTIMIZER = config.Optimizer(
    learning_rate=1e-6, warmup_ratio=0.0, final_ratio=1.0, b1=0.9, b2=0.99, weight_decay=0.0, max_grad_norm=1.0
)


def mesh_of(size: Size) -> jax.sharding.Mesh:
    """The CPU as the size's devices; one device of another kind. Call before any other use of JAX."""
    jax.config.update("jax_num_cpu_devices", size.devices)
    return devices.make_mesh(config.Mesh(fsdp=min(size.devices, len(jax.devices())), tp=1))


def split_of(size: Size, mesh: jax.sharding.Mesh) -> Split:
    return Split(mesh.shape["fsdp"], size.tokens_per_pass, size.logit_positions)


def sft(folder: Path, gate: Gate) -> None:
    size, work = material.read(folder)
    mesh = mesh_of(size)
    model, _ = checkpoints.load_merged(folder / "model", dtype=size.dtype, mesh=mesh)
    examples = [data.Example(*(np.array(row[name], np.int32) for name in ("tokens", "trained"))) for row in work["sft"]]
    longest = size.sft_max_tokens if size.sft_packed_rows else max(len(row.tokens) for row in examples)
    width = min(size.sft_max_tokens, round_up(longest, 64))
    split = split_of(size, mesh)

    def packed() -> list[dict[str, np.ndarray]]:
        return list(data.packed_rows(examples, max_tokens=width, seed=None))

    rows = len(packed())
    settings = config.Supervised(
        optimizer=OPTIMIZER, steps=NEVER, rows_per_step=rows, max_tokens=width, validate_every_steps=NEVER,
        checkpoint_every_steps=NEVER,
    )  # fmt: skip
    facts: dict[str, Any] = {"positions": split.capacity(rows, width) * width, "width": width}

    def on_step(_: int, sums: Mapping[str, np.ndarray]) -> None:
        facts["loss"] = float(sums["nll"]) / float(sums["tokens"])

    def stream() -> Any:
        # Packed at every step, as in the stages.
        while True:
            jax.block_until_ready(nnx.state(model))  # or the step would go on while others take theirs
            trainer.report()
            gate.wait(**facts)
            yield from data.step_rows(iter(packed()), rows_per_step=rows, split=split)

    devices.place(model, mesh)
    trainer = supervised.SupervisedTrainer(
        model, optimizer.build(OPTIMIZER, steps=NEVER), settings, loss=sft_loop.loss_of(model, split),
        on_step=on_step, on_validation=lambda *_: None,
    )  # fmt: skip
    with mesh:
        trainer.train(stream(), [])


class _GatedCurve(Curve):
    """A curve that waits at the end of every step, when rl.train adds to it."""

    def __init__(self, folder: Path, columns: tuple[str, ...], gate: Gate):
        super().__init__(folder / "plot.csv", folder / "kept.csv", columns)
        self._gate = gate

    def add(self, step: int, values: dict[str, Any]) -> None:
        super().add(step, values)
        self._gate.wait(reward=values["reward"], completion_tokens=values["completion_tokens"])


def policy_of(folder: Path, size: Size, mesh: jax.sharding.Mesh) -> tuple[Model, Model, GemmaSpec]:
    """The policy, all of it trained or with a new adapter, and the reference, as showwork.training.arms loads them."""
    if not size.lora_rank:
        model, spec = checkpoints.load_merged(folder / "model", dtype=size.dtype, mesh=mesh)
        return model, checkpoints.load(folder / "model", dtype=size.dtype, mesh=mesh).model, spec
    model, spec = checkpoints.load_weights(folder / "model", dtype=size.dtype, weights_dtype=size.dtype, mesh=mesh)
    shape = adapters.Shape(size.lora_rank, float(size.lora_rank), ())
    model = checkpoints.adapt(model, folder / "model", shape, key=jax.random.key(0))
    devices.place(model, mesh)
    return model, nnx.clone(model), spec


def grpo(folder: Path, gate: Gate) -> None:
    size, work = material.read(folder)
    mesh = mesh_of(size)
    model, reference, spec = policy_of(folder, size, mesh)
    settings = config.load(material.ROOT / "src/showwork/presets/tiny.yaml").arms["grpo"].settings
    changes = {
        "adapter": config.Adapter(rank=size.lora_rank, alpha=size.lora_rank, modules=[]) if size.lora_rank else None,
        "optimizer": OPTIMIZER, "steps": 10**6, "prompts_per_step": size.prompts, "generations": size.generations,
        "iterations": 1, "beta": size.beta, "epsilon_low": size.epsilon,
        "epsilon_high": size.epsilon, "validation_problems": 0, "watched_problems": 0,
        "validate_every_steps": NEVER, "checkpoint_every_steps": NEVER,
        "rewards": {"answer": 1.0, "format": 0.1},
        "rollout": settings.rollout.model_copy(update={
            "temperature": size.temperature, "top_k": size.top_k, "top_p": size.top_p,
            "max_prompt_tokens": size.max_prompt_tokens, "max_completion_tokens": size.max_completion_tokens,
            "rows_per_call": size.prompts * size.generations,
        }),
    }  # fmt: skip
    settings = settings.model_copy(update=changes)
    words, rollout_mesh = material.tokenizer_of(folder), devices.rollout_mesh(mesh, tp=1)
    arm = LoadedArm(settings, model, spec, words, "", (material.STOP,), rollout_mesh, reference)
    problems = [Problem.from_json(row["problem"]) for row in work["grpo"]]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        gate.wait()
        curve = _GatedCurve(scratch, rl.columns(settings), gate)
        rl.train(arm, problems, [], Run("grpo", 0, mesh, split_of(size, mesh), scratch, curve))


def evaluate(folder: Path, gate: Gate) -> None:
    size, work = material.read(folder)
    mesh = mesh_of(size)
    model, _ = checkpoints.load(folder / "model", dtype=size.dtype, mesh=mesh)
    problems = [Problem.from_json(row["problem"]) for row in work["questions"]]
    completer = rollout.Completer(
        model, material.tokenizer_of(folder), "", (material.STOP,), max_tokens=size.max_completion_tokens,
        rows_per_call=size.questions, mesh=mesh,
    )  # fmt: skip
    greedy = rollout.Sampling(greedy=True)
    gate.wait()
    while True:
        asked = completer(problems, key=jax.random.key(0), sampling=greedy, generations=1, name="evaluate")
        completions = [row for (row,) in asked]
        gate.wait(texts=[row.text for row in completions], tokens=sum(row.tokens for row in completions))


def roll_out(folder: Path, gate: Gate) -> None:
    """Sampling without stop tokens: every row runs to the end."""
    size, work = material.read(folder)
    mesh = mesh_of(size)
    model, _ = checkpoints.load(folder / "model", dtype=size.dtype, mesh=mesh)
    prompts, tokens = size.rollout
    asked = rollout.left_pad(
        [work["questions"][i % len(work["questions"])]["tokens"] for i in range(prompts)], pad_id=0
    )
    gate.wait(width=asked.shape[1])
    while True:
        rollout.generate(
            model, asked, key=jax.random.key(0), generations=1, slots=rollout.Slots(mesh=mesh),
            decoding=rollout.Decoding(rollout.Sampling(), max_tokens=tokens, stop_ids=(), pad_id=0),
        )  # fmt: skip
        gate.wait()


if __name__ == "__main__":
    stage.prepare()
    {"sft": sft, "grpo": grpo, "evaluate": evaluate, "rollout": roll_out}[sys.argv[1]](Path(sys.argv[2]), Gate())
