"""Tunix's own loops, as notebooks 1 and 4 use them. `python -m bench.stock WHAT FOLDER`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from tunix.generate import sampler as samplers
from tunix.models.gemma3 import model as tunix_gemma3
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout
from tunix.sft import peft_trainer
from tunix.sft import utils as sft_utils

from bench import material
from bench.gate import Gate, answer_reward
from bench.sizes import Size
from showwork.models import checkpoints
from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter.gemma import Model

NEVER = 10**9
SPARE_CACHE = 256  # tokens by which the notebooks' kv cache exceeds prompt and completion


def load(folder: Path, size: Size) -> tuple[Model, GemmaSpec]:
    """The model as Tunix has it, with its own attention and layout of the cache."""
    model, spec = checkpoints.load(folder / "model", dtype=size.dtype)
    model.__class__ = tunix_gemma3.Gemma3
    for layer in model.layers:
        layer.attn.__class__ = tunix_gemma3.Attention
    return model, spec


def one_device() -> jax.sharding.Mesh:
    # Axes were Auto by default when the notebooks were written, and Tunix's models need them so.
    return jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def adamw() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, b1=0.9, b2=0.99, weight_decay=0.0))


def model_input(batch: peft_trainer.TrainingInput) -> dict[str, Any]:
    pad_mask = batch.input_tokens != 0
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": sft_utils.build_positions_from_mask(pad_mask),
        "attention_mask": sft_utils.make_causal_attn_mask(pad_mask),
    }


def sft(folder: Path, gate: Gate, *, pad_to_maximum: bool) -> None:
    size, work = material.read(folder)
    model, _ = load(folder, size)
    rows = work["sft"]
    # A published model's logits of a whole step would need more memory than a laptop has.
    micro_rows = size.stock_micro_rows if pad_to_maximum or size.sft_packed_rows else len(rows)
    width = size.sft_max_tokens if pad_to_maximum else max(len(row["tokens"]) for row in rows)

    def pad(part: list[dict[str, list[int]]], name: str) -> np.ndarray:
        return np.array([row[name] + [0] * (width - len(row[name])) for row in part], np.int32)

    def micro_batches() -> Iterator[peft_trainer.TrainingInput]:
        for start in range(0, len(rows), micro_rows):
            part = rows[start : start + micro_rows]
            yield peft_trainer.TrainingInput(input_tokens=pad(part, "tokens"), input_mask=pad(part, "trained"))

    def loss() -> float:
        """Loss per token over the whole step; Tunix's own weighs micro-batches of unequal counts equally."""
        losses = nnx.jit(lambda model, batch: peft_trainer._default_loss_fn(model, **model_input(batch)))
        counts = [(float(losses(model, batch)), int(batch.input_mask[:, 1:].sum())) for batch in micro_batches()]
        return sum(value * count for value, count in counts) / sum(count for _, count in counts)

    def stream() -> Iterator[peft_trainer.TrainingInput]:
        facts: dict[str, Any] = {"loss": loss(), "positions": len(rows) * width}
        while True:
            jax.block_until_ready(nnx.state(model))
            gate.wait(**facts)
            facts = {}
            yield from micro_batches()

    trainer = peft_trainer.PeftTrainer(
        model, adamw(),
        peft_trainer.TrainingConfig(
            eval_every_n_steps=NEVER, max_steps=10**6, gradient_accumulation_steps=len(rows) // micro_rows
        ),
    ).with_gen_model_input_fn(model_input)  # fmt: skip
    with one_device():
        trainer.train(stream())


def grpo(folder: Path, gate: Gate) -> None:
    size, work = material.read(folder)
    (model, _), (reference, _) = (load(folder, size) for _ in range(2))
    mesh = one_device()
    written: list[int] = []

    def reward(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [answer_reward(text, gold) for text, gold in zip(completions, answer, strict=True)]

    def measure(prompts: Any, completions: list[str], rewards: Any, advantages: Any, **_: Any) -> dict[str, Any]:
        written.append(sum(len(words.encode(text)) + 1 for text in completions))
        return {}

    words = material.tokenizer_of(folder)
    lengths = size.max_prompt_tokens + size.max_completion_tokens
    cluster = rl_cluster.RLCluster(
        actor=model,
        reference=reference,
        tokenizer=words,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(
                (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT), mesh
            ),
            rollout_engine="vanilla",
            offload_to_cpu=False,
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=adamw(),
                eval_every_n_steps=NEVER,
                max_steps=10**6,
                mini_batch_size=size.prompts,
                train_micro_batch_size=size.prompts,
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=size.max_completion_tokens,
                max_prompt_length=size.max_prompt_tokens,
                kv_cache_size=lengths + SPARE_CACHE,
                temperature=size.temperature,
                top_p=size.top_p,
                top_k=size.top_k,
                eos_tokens=[material.STOP],
            ),
        ),
    )
    config = grpo_learner.GRPOConfig(
        num_generations=size.generations, num_iterations=1, beta=size.beta, epsilon=size.epsilon
    )
    learner = grpo_learner.GRPOLearner(cluster, config, reward_fns=[reward], metric_fns=[measure])

    def batches() -> Iterator[dict[str, np.ndarray]]:
        batch = {
            "prompts": np.array([row["prompt"] for row in work["grpo"]]),
            "answer": np.array([row["problem"]["answer"] for row in work["grpo"]]),
        }
        while True:
            jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
            rows = size.prompts * size.generations
            gate.wait(**({"completion_tokens": written[-1] / rows} if written else {}))
            yield dict(batch)

    learner.train(batches())


def evaluate(folder: Path, gate: Gate, *, alone: bool) -> None:
    size, work = material.read(folder)
    model, spec = load(folder, size)
    sampler = samplers.Sampler(
        model, material.tokenizer_of(folder),
        samplers.CacheConfig(
            cache_size=size.max_prompt_tokens + size.max_completion_tokens + SPARE_CACHE,
            num_layers=spec.layers, num_kv_heads=spec.kv_heads, head_dim=spec.head_dim,
        ),
    )  # fmt: skip
    prompts = [row["prompt"] for row in work["questions"]]
    calls = [[prompt] for prompt in prompts[: size.alone]] if alone else [prompts]
    gate.wait()
    while True:
        outputs = [
            # The notebooks' greedy.
            sampler(
                input_strings=call, max_generation_steps=size.max_completion_tokens, temperature=1e-4, top_k=1,
                top_p=1.0, echo=False, eos_tokens=[material.STOP],
            )
            for call in calls
        ]  # fmt: skip
        texts = [text for output in outputs for text in output.text]
        gate.wait(texts=texts, tokens=sum(len(ids) for output in outputs for ids in output.tokens))


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    match what:
        case "sft-maximum":
            sft(where, Gate(), pad_to_maximum=True)
        case "sft-longest":
            sft(where, Gate(), pad_to_maximum=False)
        case "grpo":
            grpo(where, Gate())
        case "evaluate-alone":
            evaluate(where, Gate(), alone=True)
        case "evaluate-batch":
            evaluate(where, Gate(), alone=False)
