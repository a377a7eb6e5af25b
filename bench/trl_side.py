"""TRL's trainers, as its examples use them, in an environment of their own. `python -m bench.trl_side WHAT FOLDER`."""

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from bench.gate import Gate, answer_reward

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

# Float32 on the CPU, no recomputation in the backward pass, the optimizer of all sides; the rest is TRL's default.
COMMON = {
    "use_cpu": not torch.cuda.is_available(), "bf16": torch.cuda.is_available(), "gradient_checkpointing": False,
    "max_steps": 10**6, "learning_rate": 1e-6, "lr_scheduler_type": "constant", "adam_beta1": 0.9, "adam_beta2": 0.99,
    "weight_decay": 0.0, "max_grad_norm": 1.0, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    "seed": 0,
}  # fmt: skip


class Gated(TrainerCallback):
    """Waits between two steps; a step includes fetching the batch and logging."""

    def __init__(self, gate: Gate, facts: dict[str, Any], after_step: Callable[[], dict[str, Any]]):
        self._gate, self._facts, self._after_step = gate, facts, after_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._gate.wait(**self._facts, versions={name: version(name) for name in ("trl", "transformers", "torch")})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._gate.wait(**self._after_step())


def sft(folder: Path, gate: Gate, *, packing: bool) -> None:
    work = json.loads((folder / "work.json").read_text("utf-8"))
    size, rows = work["size"], work["sft"]
    dataset = Dataset.from_list([{"input_ids": row["tokens"], "completion_mask": row["trained"]} for row in rows])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto"),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            train_dataset=dataset,
            args=SFTConfig(
                output_dir=scratch, per_device_train_batch_size=len(rows), max_length=size["sft_max_tokens"],
                packing=packing, completion_only_loss=True, **COMMON,
            ),
        )  # fmt: skip
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        with torch.no_grad():
            loss = float(trainer.model(**batch).loss)
        trainer.add_callback(Gated(gate, {"loss": loss, "positions": batch["input_ids"].numel()}, dict))
        trainer.train()


def grpo(folder: Path, gate: Gate) -> None:
    work = json.loads((folder / "work.json").read_text("utf-8"))
    size = work["size"]
    words = AutoTokenizer.from_pretrained(folder / "model")
    for row in work["grpo"]:
        if words(row["prompt"])["input_ids"] != row["tokens"]:
            raise ValueError(f"TRL's tokenizer sees other tokens in {row['prompt']!r}")
    rows = [{"prompt": row["prompt"], "gold": row["problem"]["answer"]} for row in work["grpo"]]
    written: list[int] = []

    def reward(completions: list[str], completion_ids: list[list[int]], gold: list[str], **_: Any) -> list[float]:
        written.append(sum(len(ids) for ids in completion_ids))
        return [answer_reward(text, answer) for text, answer in zip(completions, gold, strict=True)]

    batch = size["prompts"] * size["generations"]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype="auto"),
            processing_class=words,
            reward_funcs=reward,
            train_dataset=Dataset.from_list(rows),
            args=GRPOConfig(
                output_dir=scratch, per_device_train_batch_size=batch, num_generations=size["generations"],
                max_completion_length=size["max_completion_tokens"], temperature=size["temperature"],
                top_k=size["top_k"], top_p=size["top_p"], beta=size["beta"], epsilon=size["epsilon"],
                use_vllm=False, **COMMON,
            ),
        )  # fmt: skip
        trainer.add_callback(Gated(gate, {}, lambda: {"completion_tokens": written[-1] / batch}))
        trainer.train()


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "grpo":
        grpo(where, Gate())
    else:
        sft(where, Gate(), packing=what == "sft-packed")
