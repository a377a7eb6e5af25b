"""params.yaml as frozen, typed sections.

A key that is unknown, missing, of the wrong type or at odds with another ends the run before any work, with
the key, the file and the nearest known name. There are no defaults in code: what runs is what params.yaml says.
"""

import difflib
import importlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from showwork.errors import UserError

PARAMS = Path("params.yaml")
# Every arm, in the order of the tables, and those that write the monologue in four sections before the answer.
ARMS = ("base", "sft", "sft_dual", "grpo", "trajectory", "dsa_cast", "cast")
DUAL_ARMS = ("sft_dual", "dsa_cast", "cast")
GROUP_ARMS = ("grpo", "trajectory", "dsa_cast")

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# What jax.random.key tells apart: it drops the higher bits, so that 2**32 would be 0 again.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(Section):
    """basic_maths_files: CSVs of question, answer, reasoning and calc_expr, whose rows are added to train."""

    source: str
    basic_maths_files: list[str]


class GeneratedData(Source):
    """Word problems that the project makes itself, in GSM8K's form.

    shifted_rows are a second test set, half of new scenarios and half of greater numbers than train has.
    """

    source: Literal["generated"]
    seed: int
    train_rows: PositiveInt
    test_rows: PositiveInt
    shifted_rows: Annotated[int, Field(ge=0)]
    difficulty: Literal["easy", "medium", "hard"]


class JsonlData(Source):
    """Files of JSON Lines with GSM8K's two fields, question and answer."""

    source: Literal["jsonl"]
    train_files: Annotated[list[str], Field(min_length=1)]
    test_files: list[str]
    hold_out_rows: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _one_test_set(self) -> "JsonlData":
        if bool(self.test_files) == bool(self.hold_out_rows):
            raise ValueError(
                "give either test_files or hold_out_rows > 0 (rows taken out of the train files), not both"
            )
        return self


class HubData(Source):
    """A dataset of the Hugging Face hub, at one revision."""

    source: Literal["hub"]
    repo: str
    config: str
    revision: Annotated[str, Field(min_length=7)]


Data = Annotated[GeneratedData | JsonlData | HubData, Field(discriminator="source")]


class Clean(Section):
    annotation_style: Literal["readable", "parenthesis", "drop"]
    drop_leaks: bool
    validation_rows: PositiveInt


class Prompt(Section):
    """Put before the question, in the user's turn, as Gemma's chat template does; may be empty.

    dual is that of the arms that write the dual stream, system that of all others.
    """

    system: str
    dual: str

    def of(self, arm: str) -> str:
        return self.dual if arm in DUAL_ARMS else self.system


class Tokenizer(Section):
    vocabulary: Annotated[int, Field(ge=300)]


class Model(Section):
    """remat: in training, activations are made anew in the backward pass and not kept: less memory, a third slower."""

    name: str
    dtype: Literal["float32", "bfloat16"]
    remat: bool


class Mesh(Section):
    fsdp: PositiveInt
    tp: PositiveInt


class Hardware(Section):
    mesh: Mesh


class Adapter(Section):
    """LoRA on these projections of every layer, such as attn.q_einsum; on all where modules is empty."""

    rank: PositiveInt
    alpha: PositiveFloat
    modules: list[str]


class Optimizer(Section):
    """AdamW with linear warm-up, then cosine from learning_rate to final_ratio * learning_rate."""

    learning_rate: PositiveFloat
    warmup_ratio: Fraction
    final_ratio: Fraction
    b1: Decay
    b2: Decay
    weight_decay: NonNegativeFloat
    max_grad_norm: PositiveFloat


class Supervised(Section):
    """Cross-entropy on packed rows: steps of rows_per_step rows of at most max_tokens positions."""

    optimizer: Optimizer
    steps: PositiveInt
    rows_per_step: PositiveInt
    micro_batch_rows: PositiveInt
    max_tokens: PositiveInt
    validate_every_steps: PositiveInt
    checkpoint_every_steps: PositiveInt

    @model_validator(mode="after")
    def _divides(self) -> "Supervised":
        if self.rows_per_step % self.micro_batch_rows:
            raise ValueError(
                f"micro_batch_rows ({self.micro_batch_rows}) must divide rows_per_step ({self.rows_per_step})"
            )
        return self


class Drills(Supervised):
    """recall_share: of the rows, those that repeat parts of themselves; the others hold equations."""

    recall_share: Fraction


_WEIGHTS = re.compile(r"folder:.+|hub:[\w.-]+/[\w.-]+(@[\w.-]+)?|kaggle:[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?")


class Base(Section):
    """What all arms start from: published weights, or null for a model from scratch.

    weights: folder:PATH | hub:OWNER/NAME[@REVISION] | kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION].
    drills: training on plain equations and on recall, before any word; null for none.
    """

    weights: str | None
    drills: Drills | None

    @model_validator(mode="after")
    def _one_beginning(self) -> "Base":
        if self.weights is not None and not _WEIGHTS.fullmatch(self.weights):
            raise ValueError(
                f"weights {self.weights!r} is none of folder:PATH, hub:OWNER/NAME[@REVISION], "
                "kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"
            )
        if self.weights is not None and self.drills is not None:
            raise ValueError("published weights have learned more than drills: set drills to null, or weights")
        return self


class Sft(Supervised):
    """A warm start: styles are the ways of writing a solution that it is taught, each with its share."""

    start: Literal["base"]
    adapter: Adapter | None
    styles: Annotated[dict[str, PositiveFloat], Field(min_length=1)]


class Rollout(Section):
    """top_k 0 and top_p 1 keep every token."""

    temperature: PositiveFloat
    top_k: Annotated[int, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_prompt_tokens: PositiveInt
    max_completion_tokens: PositiveInt
    rows_per_call: PositiveInt

    def check(self, generations: int) -> None:
        if self.rows_per_call % generations:
            raise ValueError(
                f"rollout.rows_per_call ({self.rows_per_call}) must be a multiple of generations ({generations})"
            )


class Grpo(Section):
    """A policy-gradient arm on groups of completions."""

    start: Literal["base", "sft", "sft_dual"]
    adapter: Adapter | None
    optimizer: Optimizer
    steps: PositiveInt
    prompts_per_step: PositiveInt
    generations: Annotated[int, Field(ge=2)]
    micro_batches: PositiveInt
    iterations: PositiveInt
    beta: NonNegativeFloat
    epsilon_low: Annotated[float, Field(gt=0, lt=1)]
    epsilon_high: PositiveFloat
    advantage: Literal["grpo", "drgrpo", "rloo"]
    loss_aggregation: Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-scale"]
    rewards: Annotated[dict[str, FiniteFloat], Field(min_length=1)]
    rollout: Rollout
    validation_problems: Annotated[int, Field(ge=0)]
    validate_every_steps: PositiveInt
    watched_problems: Annotated[int, Field(ge=0)]
    checkpoint_every_steps: PositiveInt

    @model_validator(mode="after")
    def _consistent(self) -> "Grpo":
        if self.prompts_per_step % self.micro_batches:
            raise ValueError(
                f"micro_batches ({self.micro_batches}) must divide prompts_per_step ({self.prompts_per_step})"
            )
        self.rollout.check(self.generations)
        if self.prompts_per_step % (self.rollout.rows_per_call // self.generations):
            raise ValueError("rollout.rows_per_call / generations must divide prompts_per_step")
        if self.watched_problems > self.validation_problems:
            raise ValueError("watched_problems are taken from validation_problems, which are fewer")
        if self.iterations > 1 and (self.rollout.top_k or self.rollout.top_p < 1):
            raise ValueError("iterations > 1 needs top_k 0 and top_p 1: the ratio is against the untruncated policy")
        return self


class Cast(Section):
    """The self-teaching loop: at most `rounds` rounds of sampling, selecting and a small fine-tune."""

    start: Literal["sft_dual"]
    adapter: Adapter | None
    rounds: PositiveInt
    problems_per_round: PositiveInt
    variants_per_round: Annotated[int, Field(ge=0)]
    generations: PositiveInt
    keep_per_problem: PositiveInt
    replay_share: Annotated[float, Field(ge=0, lt=1)]
    training: Supervised
    rollout: Rollout
    validation_problems: PositiveInt

    @model_validator(mode="after")
    def _divides(self) -> "Cast":
        self.rollout.check(self.generations)
        return self


class Probes(Section):
    """What the detectors of the dual-stream arms call a sign (showwork.probes).

    late_layer, a share of the depth, is the inner layer that is asked about the answer's digits, and objection_nats
    by how much it must prefer another digit. gap_percentile: a result is unsure where the entropy at one of its
    tokens is above this percentile of those of all results of the run.
    """

    late_layer: Annotated[float, Field(ge=0, lt=1)]
    objection_nats: NonNegativeFloat
    gap_percentile: Annotated[float, Field(gt=0, lt=100)]


class Evaluate(Section):
    """greedy on every test question; samples completions on the first sampled_questions of them."""

    max_completion_tokens: PositiveInt
    rows_per_call: PositiveInt
    sampled_questions: Annotated[int, Field(ge=0)]
    samples: PositiveInt
    temperature: PositiveFloat
    probes: Probes | None


class Params(Section):
    """live is no param of any stage in dvc.yaml: it decides what is watched, and nothing that is made."""

    seed: Seed
    live: bool
    data: Data
    clean: Clean
    prompt: Prompt
    tokenizer: Tokenizer
    model: Model
    hardware: Hardware
    base: Base
    sft: Sft
    sft_dual: Sft
    grpo: Grpo
    trajectory: Grpo
    dsa_cast: Grpo
    cast: Cast
    evaluate: Evaluate

    @model_validator(mode="after")
    def _known_names(self) -> "Params":
        # By name and not by an import statement: every stage checks the whole file, but what a stage makes does
        # not depend on these tables, and dvc.yaml's deps follow import statements.
        models = importlib.import_module("showwork.models.specs").MODELS
        rewards = importlib.import_module("showwork.rewards").REWARDS
        styles = importlib.import_module("showwork.problems.styles").STYLES
        for section, names, table in (
            ("model.name", [self.model.name], models),
            *((f"{arm}.styles", getattr(self, arm).styles, styles) for arm in ("sft", "sft_dual")),
            *((f"{arm}.rewards", getattr(self, arm).rewards, rewards) for arm in GROUP_ARMS),
        ):
            for name in names:
                if name not in table:
                    raise ValueError(f"{section}: {name} is unknown; {_suggest(name, list(table))}")
        for arm in GROUP_ARMS:
            weights = getattr(self, arm).rewards
            specs = {name: rewards[name] for name in weights}
            lead = sum(spec.lead(weights[name]) for name, spec in specs.items())
            if any(spec.is_outcome for spec in specs.values()) and lead <= 0:
                raise ValueError(
                    f"{arm}.rewards: the worst right answer leads the best wrong one by {lead:.6g}; it must be ahead"
                )
        return self


def load(path: Path = PARAMS) -> Params:
    """Reads and checks the whole file. Raises UserError with every fault, one a line."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run from the project's root, or `showwork preset tiny` makes one"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except (YAMLError, ValueError, RecursionError) as error:  # a ValueError: not UTF-8, a thirteenth month
        raise UserError(f"{path}: not YAML: {error}") from None
    return check(values, str(path))


def check(values: Any, name: str = "params.yaml") -> Params:
    """A mapping as Params. Raises UserError with every fault, one a line."""
    if not isinstance(values, dict):
        raise UserError(f"{name}: empty, or not a mapping of sections")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(_explain(fault, values, name) for fault in error.errors())) from None


def _explain(fault: Any, values: Any, name: str) -> str:
    # The discriminator's tag ("generated") stands in pydantic's path, not in the file: leave it out.
    path = [str(part) for part in fault["loc"]]
    if len(path) > 1 and path[0] == "data" and path[1] in _SOURCES:
        del path[1]
    key = ".".join(path)
    match fault["type"]:
        case "extra_forbidden":
            return f"{name}: {key} is unknown; {_suggest(path[-1], _known(path[:-1], values))}"
        case "missing":
            return f"{name}: {key} is missing; the comment in the committed params.yaml says what it is"
        case "union_tag_not_found":
            return f"{name}: {key}.source is missing; known: {', '.join(_SOURCES)}"
        case "union_tag_invalid":
            source = str(fault["input"]["source"])
            return f"{name}: {key}.source: {source} is unknown; {_suggest(source, list(_SOURCES))}"
        case "value_error":
            return f"{name}: {key + ': ' if key else ''}{fault['ctx']['error']}"
        case _:
            return f"{name}: {key}: {fault['msg']} (got {fault['input']!r})"


_SOURCES = {"generated": GeneratedData, "jsonl": JsonlData, "hub": HubData}


def _known(path: list[str], values: Any) -> list[str]:
    """The keys that the section at path may have."""
    model: Any = Params
    for part in path:
        annotation = model.model_fields[part].annotation
        if part == "data":
            tag = values["data"].get("source")
            model = _SOURCES[tag]
            continue
        options = [
            a for a in getattr(annotation, "__args__", (annotation,)) if isinstance(a, type) and issubclass(a, Section)
        ]
        if not options:
            return []
        model = options[0]
    return list(model.model_fields)


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
