"""Our side: the trainers and the rollout as the stages run them. `python -m bench.ours WHAT FOLDER`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from showwork import stage  # first, as in the stages: Python's collector is set there

# isort: split
import jax
import numpy as np
from flax import nnx

from bench import material
from bench.gate import Gate
from showwork import config, rollout, tunix_adapter
from showwork.models import checkpoints
from showwork.records import Problem
from showwork.training import data, losses, optimizer, rl
from showwork.training.curves import Curve

NEVER = 10**9
# Of all sides: AdamW at a rate that changes the model by next to nothing, so that all steps are alike.
OPTIMIZER = config.Optimizer(
    learning_rate=1e-6, warmup_ratio=0.0, final_ratio=1.0, b1=0.9, b2=0.99, weight_decay=0.0, max_grad_norm=1.0
)


def two_devices() -> jax.sharding.Mesh:
    """The CPU as two devices, as in the default run; one of anything else. Before all else of JAX."""
    jax.config.update("jax_num_cpu_devices", 2)
    return tunix_adapter.make_mesh(config.Mesh(fsdp=min(2, len(jax.devices())), tp=1))


def sft(folder: Path, gate: Gate) -> None:
    mesh = two_devices()
    size, work = material.read(folder)
    model, _ = checkpoints.load(folder / "model", mesh=mesh)
    examples = [data.Example(*(np.array(row[name], np.int32) for name in ("tokens", "trained"))) for row in work["sft"]]
    width = data.row_width(examples, max_tokens=size.sft_max_tokens)

    def packed() -> list[dict[str, np.ndarray]]:
        return list(data.packed_rows(examples, max_tokens=width, seed=None))

    rows = -(-len(packed()) // mesh.shape["fsdp"]) * mesh.shape["fsdp"]

    facts: dict[str, Any] = {"positions": rows * width, "width": width}

    def on_step(_: int, auxes: list[dict[str, Any]]) -> None:
        nll, tokens = (sum(float(aux[name]) for aux in auxes) for name in ("nll", "tokens"))
        facts["loss"] = nll / tokens

    def stream() -> Any:
        # Packed anew at every step, as in earnest.
        while True:
            jax.block_until_ready(nnx.state(model))  # or the step would go on while others take theirs
            trainer.tell()
            gate.wait(**facts)
            yield from data.micro_batches(iter(packed()), rows_per_step=rows, micro_batch_rows=rows)

    with tempfile.TemporaryDirectory() as scratch:
        tunix_adapter.place(model, mesh)
        trainer = tunix_adapter.SupervisedTrainer(
            model, optimizer.build(OPTIMIZER, steps=NEVER), loss_fn=losses.supervised_loss, micro_batches=1,
            validate_every_steps=NEVER, checkpoints=Path(scratch), checkpoint_every_steps=NEVER,
            on_step=on_step, on_validation=lambda *_: None,
        )  # fmt: skip
        with mesh:
            trainer.train(stream(), [])


class _GatedCurve(Curve):
    """rl.train adds to its curve at the end of every step."""

    def __init__(self, folder: Path, columns: tuple[str, ...], gate: Gate):
        super().__init__(folder / "plot.csv", folder / "kept.csv", columns)
        self._gate = gate

    def add(self, step: int, values: dict[str, Any]) -> None:
        super().add(step, values)
        self._gate.wait(reward=values["reward"], completion_tokens=values["completion_tokens"])


def grpo(folder: Path, gate: Gate) -> None:
    mesh = two_devices()
    size, work = material.read(folder)
    (model, _), (reference, _) = (checkpoints.load(folder / "model", mesh=mesh) for _ in range(2))
    arm = config.load(material.ROOT / "src/showwork/presets/tiny.yaml").grpo
    settings = {
        "optimizer": OPTIMIZER, "steps": 10**6, "prompts_per_step": size.prompts, "generations": size.generations,
        "micro_batches": 1, "iterations": 1, "beta": size.beta, "epsilon_low": size.epsilon,
        "epsilon_high": size.epsilon, "validation_problems": 0, "watched_problems": 0,
        "validate_every_steps": NEVER, "checkpoint_every_steps": NEVER,
        "rewards": {"answer": 1.0, "format": 0.1},
        "rollout": arm.rollout.model_copy(update={
            "temperature": size.temperature, "top_k": size.top_k, "top_p": size.top_p,
            "max_prompt_tokens": size.max_prompt_tokens, "max_completion_tokens": size.max_completion_tokens,
            "rows_per_call": size.prompts * size.generations,
        }),
    }  # fmt: skip
    arm = arm.model_copy(update=settings)
    problems = [Problem.from_json(row["problem"]) for row in work["grpo"]]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        gate.wait()
        rl.train(
            model, reference, problems, [], arm, tokenizer=material.words(folder), system="",
            stop_ids=(material.STOP,), mesh=mesh, seed=0, checkpoints=scratch / "state",
            curve=_GatedCurve(scratch, rl.columns(arm), gate), watched=scratch / "watched", name="grpo",
        )  # fmt: skip


def evaluate(folder: Path, gate: Gate) -> None:
    mesh = two_devices()
    size, work = material.read(folder)
    model, _ = checkpoints.load(folder / "model", mesh=mesh)
    problems = [Problem.from_json(row["problem"]) for row in work["questions"]]
    completer = rollout.Completer(
        model, material.words(folder), "", (material.STOP,), max_tokens=size.max_completion_tokens,
        rows_per_call=size.questions,
    )  # fmt: skip
    greedy = rollout.Sampling(greedy=True)
    gate.wait()
    while True:
        asked = completer(problems, key=jax.random.key(0), sampling=greedy, generations=1, name="evaluate")
        completions = [row for (row,) in asked]
        gate.wait(texts=[row.text for row in completions], tokens=sum(row.tokens for row in completions))


def roll_out(folder: Path, gate: Gate) -> None:
    """Sampling without any stop: every row runs to the end."""
    mesh = two_devices()
    size, work = material.read(folder)
    model, _ = checkpoints.load(folder / "model", mesh=mesh)
    prompts, tokens = size.rollout
    asked = rollout.left_pad(
        [work["questions"][i % len(work["questions"])]["tokens"] for i in range(prompts)], pad_id=0
    )
    gate.wait(width=asked.shape[1])
    while True:
        rollout.generate(
            model, asked, key=jax.random.key(0), sampling=rollout.Sampling(), generations=1, max_tokens=tokens,
            stop_ids=(), pad_id=0,
        )  # fmt: skip
        gate.wait()


if __name__ == "__main__":
    stage.prepare()
    {"sft": sft, "grpo": grpo, "evaluate": evaluate, "rollout": roll_out}[sys.argv[1]](Path(sys.argv[2]), Gate())
