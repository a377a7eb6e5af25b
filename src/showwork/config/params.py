"""The whole of params.yaml: a section a stage, and the arms by kind."""

from functools import cached_property
from typing import Any

from showwork import arms
from showwork.arms import BASE, Arm, sections
from showwork.config.sections import Clean, Data, Evaluate, Hardware, Model, Prompt, Section, Seed, Tokenizer
from showwork.config.training import Base, Cast, Rl, Sft

SETTINGS: dict[arms.Kind, type[Sft] | type[Rl] | type[Cast]] = {"sft": Sft, "rl": Rl, "cast": Cast}


class Kind(Section):
    """Arms of one kind. An arm's section goes over the shared one; rewards, styles and adapter are replaced whole."""

    shared: dict[str, Any]
    """Settings of every arm of the kind."""
    arms: dict[str, dict[str, Any]]
    """NAME: what the arm has otherwise. start and prompt are always the arm's own."""


class Params(Section):
    seed: Seed
    """Seed of weights, order of rows and samples: one number, one run."""
    live: bool
    """Whether curves also go to DVCLive while training (`pip install dvclive`). Changes no result, reruns nothing."""
    data: Data
    """Where problems come from."""
    clean: Clean
    """How problems are cleaned and split."""
    prompt: Prompt
    """System texts."""
    tokenizer: Tokenizer
    """The tokenizer of a model from scratch."""
    model: Model
    """The model that every arm has."""
    hardware: Hardware
    """The devices that train and evaluate."""
    base: Base
    """What all arms start from."""
    sft: Kind
    """Warm starts by supervised fine-tuning."""
    rl: Kind
    """Group policy-gradient arms."""
    cast: Kind
    """Self-teaching arms."""
    evaluate: Evaluate
    """How every arm is evaluated."""

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """By name: base, then warm starts, RL arms and self-teaching arms, in the order of the file."""
        found = {BASE: Arm(BASE, "base", None, "plain", self.base)}
        for kind, name, merged in sections(self.model_dump(include={"sft", "rl", "cast"})):
            settings = SETTINGS[kind].model_validate(merged)
            found[name] = Arm(name, kind, settings.start, settings.prompt, settings)
        return found

    def system(self, arm: str) -> str:
        """The system text of an arm; may be empty."""
        return arms.system_text(self.arms[arm], self.prompt)
