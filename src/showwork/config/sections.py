"""The sections of params.yaml as frozen, typed models.

The docstring below a field says what the key does, its unit and a sensible range; `showwork params KEY` shows it.
There are no defaults in code: what runs is what params.yaml says.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# jax.random.key keeps 32 bits; a larger seed would alias a smaller one.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Source(Section):
    source: str
    """Where problems come from: generated | jsonl | hub. data/README.md shows the keys of each."""
    basic_maths_files: list[str]
    """CSV files of question, answer, reasoning and calc_expr, whose rows are added to train; usually []."""
    second_test_files: list[str]
    """Files of JSON Lines whose rows are a second test set, each reported under its own name; usually []."""


class GeneratedData(Source):
    """Word problems that the project generates in GSM8K's form."""

    source: Literal["generated"]
    seed: int
    """Seed of the generator; another one gives other problems of the same kinds."""
    train_rows: PositiveInt
    """Problems to train on, validation included; 5,000 to 50,000 for the tiny model."""
    test_rows: PositiveInt
    """Test questions. 1,024 detect a difference of some 4 points (`showwork power`)."""
    shifted_rows: NonNegativeInt
    """Generated rows of the second test set: half new scenarios, half greater numbers than train has; 0 for none."""
    difficulty: Literal["easy", "medium", "hard"]
    """How many steps and how large numbers: easy | medium | hard."""


class JsonlData(Source):
    """Files of JSON Lines with GSM8K's two fields, question and answer."""

    source: Literal["jsonl"]
    train_files: Annotated[list[str], Field(min_length=1)]
    """Files of training problems, read in order."""
    test_files: list[str]
    """Files of test questions; [] takes hold_out_rows from the training files instead."""
    hold_out_rows: NonNegativeInt
    """Test rows taken out of the training files; 0 where test_files are given."""

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
    """OWNER/NAME of the dataset."""
    config: str
    """Its configuration, such as main."""
    revision: Annotated[str, Field(min_length=7)]
    """The commit of the dataset, at least 7 digits, so that a rerun reads the same rows."""


Data = Annotated[GeneratedData | JsonlData | HubData, Field(discriminator="source")]


class Clean(Section):
    annotation_style: Literal["readable", "parenthesis", "drop"]
    """How <<48/2=24>> is written: readable "48/2 = 24 clips" | parenthesis "(48/2=24)24" | drop "24 clips"."""
    drop_leaks: bool
    """Whether train questions that are also in test, or nearly, are rejected; keep it true."""
    validation_rows: PositiveInt
    """Rows taken from train for validation; 128 to 512. Test is read by the evaluation alone."""


class Prompt(Section):
    """System texts, put before the question in the user's turn as Gemma's chat template does."""

    plain: str
    """System text of arms with `prompt: plain`; "" for a model that learns the format from SFT."""
    dual: str
    """System text of arms with `prompt: dual`, which write their monologue in four sections."""


class Tokenizer(Section):
    vocabulary: Annotated[int, Field(ge=300)]
    """Tokens of a tokenizer trained from scratch, 512 to 4,096; a published model brings its own."""


class Model(Section):
    name: str
    """A name of src/showwork/models/specs.py, such as gemma3_tiny or gemma3_1b."""
    dtype: Literal["float32", "bfloat16"]
    """What is computed in: float32 | bfloat16. Trained weights and the optimizer's state are float32 with either."""
    remat: bool
    """Whether layers are recomputed in the backward pass: less memory, about a third slower."""


class Mesh(Section):
    fsdp: PositiveInt
    """Devices that share out the batch and, on an accelerator, the weights; on a CPU at most its cores."""
    tp: PositiveInt
    """Devices that share out each matrix (tensor parallelism); 1 unless the model needs more."""


class Hardware(Section):
    """The devices, and what each takes at a time. No result depends on it but by rounding."""

    mesh: Mesh
    """Devices by axis. A CPU is split into as many as asked for."""
    rollout_tp: PositiveInt
    """Devices that share out each matrix while sampling; the others share rows. 1 where a device holds the model."""
    tokens_per_pass: PositiveInt
    """Tokens of a forward and backward pass on a device, at least a row: 1,024 to 16,384. More take more memory."""
    logit_positions: PositiveInt
    """Tokens whose logits a device holds at a time: 64 to 1,024. Each takes 4 bytes an entry of the vocabulary."""

    @model_validator(mode="after")
    def _divides(self) -> "Hardware":
        count = self.mesh.fsdp * self.mesh.tp
        if count % self.rollout_tp:
            raise ValueError(f"rollout_tp ({self.rollout_tp}) must divide the number of devices ({count})")
        return self


class Probes(Section):
    """Thresholds of the detectors (showwork.probes) on the monologue of arms with `prompt: dual`."""

    late_layer: Annotated[float, Field(ge=0, lt=1)]
    """The inner layer that is asked about the answer's digits, as a share of the depth; 0.5 to 0.9."""
    objection_nats: NonNegativeFloat
    """By how much, in nats, that layer must prefer another digit."""
    gap_percentile: Annotated[float, Field(gt=0, lt=100)]
    """A result is unsure where an entropy at its tokens is above this percentile of all results'."""


class Evaluate(Section):
    """Greedy completions of every test question, samples of some."""

    max_completion_tokens: PositiveInt
    """Tokens after which a completion is cut off and counted as truncated."""
    rows_per_call: PositiveInt
    """Completions made at a time. More take more memory."""
    sampled_questions: NonNegativeInt
    """The first questions of the test set that are also sampled; 0 for none."""
    samples: PositiveInt
    """Samples of each: K of pass@K and maj@K; 4 to 16."""
    temperature: PositiveFloat
    """Temperature of those samples."""
    few_shot: NonNegativeInt
    """Solved train rows that base is shown before each question, in a second measurement; 0 for none, else 4 to 8."""
    probes: Probes | None
    """Thresholds of the detectors; null takes no traces."""
