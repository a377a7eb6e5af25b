"""The sections of params.yaml that train something: the base model, warm starts, RL arms and self-teaching arms."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from showwork.arms import PromptStyle
from showwork.config.sections import (
    Decay,
    FiniteFloat,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


class Adapter(Section):
    """LoRA."""

    rank: PositiveInt
    """Rank of the adapter's matrices; 8 to 64."""
    alpha: PositiveFloat
    """The product is scaled by alpha / rank; usually as large as the rank."""
    modules: list[str]
    """Projections that get an adapter, such as attn.q_einsum; [] for all of each layer."""


class Optimizer(Section):
    """AdamW with gradient clipping; linear warm-up, then cosine decay."""

    learning_rate: PositiveFloat
    """Peak rate. About 1e-3 for the tiny model, 1e-6 to 1e-4 for a published one."""
    warmup_ratio: Fraction
    """Share of the steps in which the rate rises from 0; 0.03 to 0.1."""
    final_ratio: Fraction
    """The last step's rate as a share of the peak; 0 to 0.1."""
    b1: Decay
    """Decay of the mean of gradients; 0.9."""
    b2: Decay
    """Decay of the mean of squared gradients; 0.99 for short runs, 0.999 for long ones."""
    weight_decay: NonNegativeFloat
    """Decoupled weight decay; 0 to 0.1."""
    max_grad_norm: PositiveFloat
    """Global gradient norm above which gradients are scaled down; 0.1 to 1."""


class Supervised(Section):
    """Cross-entropy on packed rows."""

    optimizer: Optimizer
    """The optimizer of this training."""
    steps: PositiveInt
    """Optimizer steps."""
    rows_per_step: PositiveInt
    """Packed rows in an optimizer step; how many at a time, hardware.tokens_per_pass says."""
    max_tokens: PositiveInt
    """Positions of a packed row; longer examples are left out and counted."""
    validate_every_steps: PositiveInt
    """Steps between two measurements of the validation loss."""
    checkpoint_every_steps: PositiveInt
    """Steps between two checkpoints, from which an interrupted run resumes."""


class Drills(Supervised):
    """Pre-training on plain equations and copying."""

    recall_share: Fraction
    """Share of rows that repeat parts of themselves; the others hold equations. 0.2 to 0.5."""


_WEIGHTS = re.compile(
    r"(folder|gguf):.+|package:[\w.-]+|hub:[\w.-]+/[\w.-]+(@[\w.-]+)?|kaggle:[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?"
)


class Base(Section):
    """What all arms start from: published weights, or a model from scratch."""

    weights: str | None
    """folder:PATH, gguf:PATH, package:NAME, hub:… or kaggle:… (docs/add-a-model.md says which); null: from scratch."""
    drills: Drills | None
    """Pre-training from scratch on plain equations and copying; null to skip, always null with weights."""

    @model_validator(mode="after")
    def _one_beginning(self) -> "Base":
        if self.weights is not None and not _WEIGHTS.fullmatch(self.weights):
            raise ValueError(
                f"weights {self.weights!r} is none of folder:PATH, gguf:PATH, package:NAME, "
                "hub:OWNER/NAME[@REVISION], kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"
            )
        if self.weights is not None and self.drills is not None:
            raise ValueError("published weights have learned more than drills: set drills to null, or weights")
        return self


class _Trained(Section):
    start: str
    """The arm whose model this one starts from: base, or any arm with the same prompt."""
    prompt: PromptStyle
    """plain | dual: the system text, and whether the monologue has four sections."""
    adapter: Adapter | None
    """LoRA, {rank, alpha, modules}; null trains all parameters."""


class Sft(Supervised, _Trained):
    """A warm start by supervised fine-tuning."""

    styles: Annotated[dict[str, PositiveFloat], Field(min_length=1)]
    """How solutions are written (src/showwork/problems/styles.py), each style with its share."""


class Rollout(Section):
    """Sampling of completions."""

    temperature: PositiveFloat
    """Sampling temperature; 0.7 to 1.0."""
    top_k: NonNegativeInt
    """Tokens that can be sampled, the most likely ones; 0 for all."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Probability mass that can be sampled (nucleus); 1 for all."""
    max_prompt_tokens: PositiveInt
    """Longer prompts are left out and counted."""
    max_completion_tokens: PositiveInt
    """Tokens after which a completion is cut off and counted as truncated."""
    rows_per_call: PositiveInt
    """Completions sampled at a time; a multiple of generations. More take more memory."""

    def check(self, generations: int) -> None:
        if self.rows_per_call % generations:
            raise ValueError(
                f"rollout.rows_per_call ({self.rows_per_call}) must be a multiple of generations ({generations})"
            )


class Rl(_Trained):
    """A policy-gradient arm on groups of completions."""

    optimizer: Optimizer
    """The optimizer of this arm."""
    steps: PositiveInt
    """Rollouts; each is followed by `iterations` optimizer steps."""
    prompts_per_step: PositiveInt
    """Questions sampled in a step."""
    generations: Annotated[int, Field(ge=2)]
    """Completions of each question (the group); 2 to 16."""
    iterations: PositiveInt
    """Optimizer steps on each rollout (mu); 1 is on-policy."""
    beta: NonNegativeFloat
    """Weight of the KL to the start (estimator k3); 0 needs no reference model. 0 to 0.1."""
    epsilon_low: Annotated[float, Field(gt=0, lt=1)]
    """Clip range of the ratio below 1; 0.1 to 0.2. It acts from the second iteration on."""
    epsilon_high: PositiveFloat
    """Clip range of the ratio above 1; 0.1 to 0.28."""
    advantage: Literal["grpo", "drgrpo", "rloo"]
    """grpo divides by the group's deviation | drgrpo does not | rloo compares with the mean of the others."""
    loss_aggregation: Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-scale"]
    """What counts alike: every token | every completion | every completion's sum over a constant length."""
    rewards: Annotated[dict[str, FiniteFloat], Field(min_length=1)]
    """Weight of each reward, built-in or FILE.FUNCTION of the folder rewards/; weight 0 only records it."""
    rollout: Rollout
    """How completions are sampled."""
    validation_problems: NonNegativeInt
    """Validation questions sampled for the curve; 0 for none."""
    validate_every_steps: PositiveInt
    """Steps between two validations."""
    watched_problems: NonNegativeInt
    """Validation questions whose completions are kept at the start, the middle and the end."""
    checkpoint_every_steps: PositiveInt
    """Steps between two checkpoints, from which an interrupted run resumes."""

    @model_validator(mode="after")
    def _consistent(self) -> "Rl":
        self.rollout.check(self.generations)
        if self.prompts_per_step % (self.rollout.rows_per_call // self.generations):
            raise ValueError("rollout.rows_per_call / generations must divide prompts_per_step")
        if self.watched_problems > self.validation_problems:
            raise ValueError("watched_problems are taken from validation_problems, which are fewer")
        if self.iterations > 1 and (self.rollout.top_k or self.rollout.top_p < 1):
            raise ValueError("iterations > 1 needs top_k 0 and top_p 1: the ratio is against the untruncated policy")
        return self


class Cast(_Trained):
    """The self-teaching loop: rounds of sampling, selecting and a small fine-tune."""

    rounds: PositiveInt
    """Rounds at most; two in a row without a gain end the loop. 2 to 10."""
    problems_per_round: PositiveInt
    """Training questions sampled and analysed in a round."""
    variants_per_round: NonNegativeInt
    """New problems made in a round from what failed, with other numbers; 0 for none."""
    generations: PositiveInt
    """Completions of each question."""
    keep_per_problem: PositiveInt
    """Own solutions kept of each question, right answer and every equation true."""
    replay_share: Annotated[float, Field(ge=0, lt=1)]
    """Share of a fine-tune's rows that come from the training data, against forgetting; 0.1 to 0.3."""
    replay_styles: Annotated[dict[str, PositiveFloat], Field(min_length=1)]
    """How those rows are written, each style with its share: as the warm start was taught."""
    training: Supervised
    """The fine-tune of a round."""
    rollout: Rollout
    """How completions are sampled."""
    validation_problems: PositiveInt
    """Validation questions that decide whether a round is kept."""

    @model_validator(mode="after")
    def _divides(self) -> "Cast":
        self.rollout.check(self.generations)
        return self
