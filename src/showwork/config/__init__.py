"""params.yaml, typed: its keys (sections.py, training.py), the whole (params.py), reading and checking (reading.py)."""

from showwork.config.params import Kind, Params
from showwork.config.reading import PARAMS, check, load
from showwork.config.sections import (
    Clean,
    Evaluate,
    GeneratedData,
    Hardware,
    HubData,
    JsonlData,
    Mesh,
    Model,
    Probes,
    Prompt,
    Section,
    Tokenizer,
)
from showwork.config.training import Adapter, Base, Cast, Drills, Optimizer, Rl, Rollout, Sft, Supervised

__all__ = [
    "PARAMS", "Adapter", "Base", "Cast", "Clean", "Drills", "Evaluate", "GeneratedData", "Hardware", "HubData",
    "JsonlData", "Kind", "Mesh", "Model", "Optimizer", "Params", "Probes", "Prompt", "Rl", "Rollout", "Section", "Sft",
    "Supervised", "Tokenizer", "check", "load",
]  # fmt: skip
