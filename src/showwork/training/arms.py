"""Where every trained arm begins and ends: its start's model with the arm's adapter, and the arm's own model folder."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import jax
from flax import nnx

from showwork import devices
from showwork import tokenizer as tokenizers
from showwork.config import Base, Cast, Params, Rl, Sft
from showwork.errors import UserError
from showwork.models import adapters, checkpoints, saving
from showwork.models.specs import GemmaSpec
from showwork.names import suggest
from showwork.tokenizer import Tokenizer
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
    rollout_mesh: jax.sharding.Mesh
    """The devices in the layout in which completions are sampled."""
    reference: Model | None = None
    """The start's model, left as it is: where the loss has a KL term."""

    def save(self, name: str) -> None:
        """Writes models/NAME: the weights that training ended with, or the adapter beside its start's, and the start's
        tokenizer."""
        adapter, start, out = self.settings.adapter, MODELS / self.settings.start, MODELS / name
        if adapter:
            saving.save_adapted(self.model, out, start=start, rank=adapter.rank, alpha=adapter.alpha)
        else:
            saving.save(self.model, out, spec=self.spec, stop_ids=self.stop_ids)
        tokenizers.copy(start, out)


def load(params: Params, name: str, *, mesh: jax.sharding.Mesh) -> LoadedArm:
    """The arm of that name, its weights spread over the mesh.

    Raises UserError where params.yaml has no such arm, or its start was not trained.
    """
    arms = {arm.name: arm.settings for arm in params.arms.values() if not isinstance(arm.settings, Base)}
    if name not in arms:
        raise UserError(f"params.yaml has no arm {name} to train; {suggest(name, list(arms))}")
    settings = arms[name]
    start, dtype, remat = MODELS / settings.start, params.model.dtype, params.model.remat
    if adapter := settings.adapter:
        model, spec = checkpoints.load_weights(start, dtype=dtype, weights_dtype=dtype, mesh=mesh, remat=remat)
        shape = adapters.Shape(adapter.rank, adapter.alpha, tuple(adapter.modules))
        key = jax.random.fold_in(jax.random.key(params.seed), zlib.crc32(f"{name}: adapter".encode()))
        model = checkpoints.adapt(model, start, shape, key=key)
    else:
        model, spec = checkpoints.load_merged(start, dtype=dtype, mesh=mesh, remat=remat)
    devices.place(model, mesh)
    reference = None
    if isinstance(settings, Rl) and settings.beta > 0:
        # With an adapter, the same frozen weights and the adapter that it starts with. nnx.merge would share variables,
        # and the reference be the policy itself.
        reference = nnx.clone(model) if adapter else checkpoints.load(start, dtype=dtype, mesh=mesh).model
    return LoadedArm(
        settings, model, spec, tokenizers.load(start), params.system(name), checkpoints.stop_ids(start),
        devices.rollout_mesh(mesh, tp=params.hardware.rollout_tp), reference,
    )  # fmt: skip
