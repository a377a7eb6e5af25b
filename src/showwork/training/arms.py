"""Where every training stage begins and ends: the start's model with the arm's adapter, and the arm's model folder."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from showwork import tokenizer, tunix_adapter
from showwork.config import Params
from showwork.models import checkpoints
from showwork.models.specs import GemmaSpec
from showwork.tokenizer import Tokenizer

MODELS = Path("models")


@dataclass(frozen=True)
class Arm:
    """An arm about to be trained: `config` is its section of params.yaml, model that of its start, with its adapter."""

    name: str
    config: Any
    system: str
    mesh: jax.sharding.Mesh
    model: nnx.Module
    spec: GemmaSpec
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]

    @property
    def start(self) -> Path:
        return MODELS / self.config.start

    def reference(self) -> nnx.Module:
        """The start once more, to stay as it is."""
        return checkpoints.load(self.start, mesh=self.mesh)[0]

    def save(self) -> None:
        """Writes models/NAME: merged weights, the adapter beside them, the start's tokenizer."""
        adapter, out = self.config.adapter, MODELS / self.name
        checkpoints.save(
            self.model, out, spec=self.spec, stop_ids=self.stop_ids,
            adapter=(adapter.rank, adapter.alpha) if adapter else None,
        )  # fmt: skip
        tokenizer.copy(self.start, out)


def load(params: Params, name: str) -> Arm:
    """Raises UserError where the start was not trained, or the mesh asks for more devices than there are."""
    mesh = tunix_adapter.make_mesh(params.hardware.mesh)
    config = getattr(params, name)
    start = MODELS / config.start
    model, spec = checkpoints.load(start, mesh=mesh, remat=params.model.remat)
    if config.adapter:
        key = jax.random.fold_in(jax.random.key(params.seed), zlib.crc32(f"{name}: adapter".encode()))
        model = tunix_adapter.add_lora(
            model, rank=config.adapter.rank, alpha=config.adapter.alpha, key=key, modules=config.adapter.modules
        )
    return Arm(
        name, config, params.prompt.of(name), mesh, model, spec, tokenizer.load(start), checkpoints.stop_ids(start)
    )
