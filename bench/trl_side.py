"""TRL's trainers and transformers' generate, as their examples use them, in an environment of their own.

`python -m bench.trl_side WHAT [DTYPE] FOLDER`; without a dtype, that of the folder's model.
"""

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
from peft import LoraConfig
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from bench.gate import Gate, answer_reward

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

# No autocast on the CPU, no recomputation in the backward pass, the optimizer of all sides; the rest is TRL's default.
COMMON = {
    "use_cpu": not torch.cuda.is_available(), "bf16": torch.cuda.is_available(), "gradient_checkpointing": False,
    "max_steps": 10**6, "learning_rate": 1e-6, "lr_scheduler_type": "constant", "adam_beta1": 0.9, "adam_beta2": 0.99,
    "weight_decay": 0.0, "max_grad_norm": 1.0, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    "seed": 0,
}  # fmt: skip

PAD, STOP = 0, 1  # the tokenizer's
VERSIONS = {name: version(name) for name in ("trl", "transformers", "torch", "peft")}


class Gated(TrainerCallback):
    """Waits between two steps; a step includes fetching the batch and logging."""

    def __init__(self, gate: Gate, facts: dict[str, Any], after_step: Callable[[], dict[str, Any]]):
        self._gate, self._facts, self._after_step = gate, facts, after_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._gate.wait(**self._facts, versions=VERSIONS)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._gate.wait(**self._after_step())


def sft(folder: Path, gate: Gate, dtype: str, *, packing: bool) -> None:
    work = json.loads((folder / "work.json").read_text("utf-8"))
    size, rows = work["size"], work["sft"]
    longest = size["sft_max_tokens"] if packing else max(len(row["tokens"]) for row in rows)
    # A step is an epoch, in as many passes as it takes.
    at_once = min(len(rows), max(1, (size["trl_sft_tokens"] or 10**9) // longest))
    dataset = Dataset.from_list([{"input_ids": row["tokens"], "completion_mask": row["trained"]} for row in rows])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            train_dataset=dataset,
            args=SFTConfig(
                output_dir=scratch, per_device_train_batch_size=at_once,
                gradient_accumulation_steps=-(-len(rows) // at_once), max_length=size["sft_max_tokens"],
                packing=packing, completion_only_loss=True, **COMMON,
            ),
        )  # fmt: skip
        trainer.add_callback(Gated(gate, _before(trainer), dict))
        trainer.train()


def _before(trainer: SFTTrainer) -> dict[str, Any]:
    """The loss per trained token and the positions of a step, before it."""
    loss, tokens, positions = 0.0, 0, 0
    for batch in trainer.get_train_dataloader():
        batch = trainer._prepare_inputs(batch)
        count = int((batch["labels"] != -100).sum())
        with torch.no_grad():
            loss += float(trainer.model(**batch).loss) * count
        tokens, positions = tokens + count, positions + batch["input_ids"].numel()
    return {"loss": loss / tokens, "positions": positions}


def grpo(folder: Path, gate: Gate, dtype: str) -> None:
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
    at_once, rank = size["trl_grpo_rows"] or batch, size["lora_rank"]
    adapter = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM") if rank else None
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype),
            processing_class=words,
            peft_config=adapter,
            reward_funcs=reward,
            train_dataset=Dataset.from_list(rows),
            args=GRPOConfig(
                output_dir=scratch, per_device_train_batch_size=at_once,
                gradient_accumulation_steps=batch // at_once, num_generations=size["generations"],
                max_completion_length=size["max_completion_tokens"], temperature=size["temperature"],
                top_k=size["top_k"], top_p=size["top_p"], beta=size["beta"], epsilon=size["epsilon"],
                use_vllm=False, **COMMON,
            ),
        )  # fmt: skip
        trainer.add_callback(Gated(gate, {}, lambda: {"completion_tokens": written[-1] / batch}))
        trainer.train()


def evaluate(folder: Path, gate: Gate, dtype: str) -> None:
    """Greedy completions of all questions in one batch, padded on the left."""
    work = json.loads((folder / "work.json").read_text("utf-8"))
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype).eval()
    words = SentencePieceProcessor(model_file=str(folder / "model" / "tokenizer.model"))
    prompts = [row["tokens"] for row in work["questions"]]
    width = max(map(len, prompts))
    asked = torch.tensor([[PAD] * (width - len(ids)) + ids for ids in prompts])
    gate.wait(versions=VERSIONS)
    while True:
        with torch.inference_mode():
            written = model.generate(
                input_ids=asked, attention_mask=(asked != PAD).long(), do_sample=False, pad_token_id=PAD,
                eos_token_id=STOP, max_new_tokens=work["size"]["max_completion_tokens"],
            )[:, width:].tolist()  # fmt: skip
        rows = [[token for token in row if token != PAD] for row in written]
        texts = [words.decode([token for token in row if token != STOP]) for row in rows]
        gate.wait(texts=texts, tokens=sum(map(len, rows)))


if __name__ == "__main__":
    what, kind, where = sys.argv[1], sys.argv[2] if len(sys.argv) > 3 else "auto", Path(sys.argv[-1])
    match what:
        case "grpo":
            grpo(where, Gate(), kind)
        case "evaluate":
            evaluate(where, Gate(), kind)
        case _:
            sft(where, Gate(), kind, packing=what == "sft-packed")
