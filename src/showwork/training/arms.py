"""Where every trained arm begins and ends: its start's model with the arm's adapter, and the arm's own model folder."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import jax

from showwork import tokenizer as tokenizers
from showwork.config import Base, Cast, Params, Rl, Sft
from showwork.errors import UserError
from showwork.models import checkpoints, saving
from showwork.models.specs import GemmaSpec
from showwork.names import suggest
from showwork.tokenizer import Tokenizer
from showwork.tunix_adapter import lora
from showwork.tunix_adapter.gemma import Model

MODELS = Path("models")

Settings = TypeVar("Settings", bound=Sft | Rl | Cast)


@dataclass(frozen=True)
class LoadedArm(Generic[Settings]):
    """An arm about to be trained."""

    settings: Settings
    """Its section of params.yaml."""
    model: Model
    """The model of its start, with the arm's adapter; training changes it in place."""
    spec: GemmaSpec
    tokenizer: Tokenizer
    system: str
    """The text before each question; may be empty."""
    stop_ids: tuple[int, ...]
    """Ids that end a completion; training targets end with the first."""
    reference: Model | None = None
    """The start's model once more, left as it is: where the loss has a KL term."""

    def save(self, name: str) -> None:
        """Writes models/NAME: merged weights, the adapter beside them, the start's tokenizer."""
        adapter, out = self.settings.adapter, MODELS / name
        saving.save(
            self.model, out, spec=self.spec, stop_ids=self.stop_ids,
            adapter=(adapter.rank, adapter.alpha) if adapter else None,
        )  # fmt: skip
        tokenizers.copy(MODELS / self.settings.start, out)


def load(params: Params, name: str, *, mesh: jax.sharding.Mesh) -> LoadedArm:
    """The arm of that name, its weights spread over the mesh.

    Raises UserError where params.yaml has no such arm, or its start was not trained.
    """
    arms = {arm.name: arm.settings for arm in params.arms.values() if not isinstance(arm.settings, Base)}
    if name not in arms:
        raise UserError(f"params.yaml has no arm {name} to train; {suggest(name, list(arms))}")
    settings = arms[name]
    start = MODELS / settings.start
    model, spec = checkpoints.load(start, mesh=mesh, remat=params.model.remat)
    if adapter := settings.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), zlib.crc32(f"{name}: adapter".encode()))
        model = lora.add_lora(model, rank=adapter.rank, alpha=adapter.alpha, key=key, modules=adapter.modules)
    has_reference = isinstance(settings, Rl) and settings.beta > 0
    return LoadedArm(
        settings, model, spec, tokenizers.load(start), params.system(name), checkpoints.stop_ids(start),
        reference=checkpoints.load(start, mesh=mesh)[0] if has_reference else None,
    )  # fmt: skip
