"""Loading of model folders: Hugging Face checkpoints under the published Gemma names."""

from pathlib import Path

import jax

from showwork.errors import UserError
from showwork.files import read_json
from showwork.models import hf_config, layout, tensors
from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter import gemma
from showwork.tunix_adapter.gemma import Model


def load(folder: Path, *, mesh: jax.sharding.Mesh | None = None, remat: bool = False) -> tuple[Model, GemmaSpec]:
    """Loads a checkpoint folder tensor by tensor; with a mesh, shards each tensor over it as it is read.

    Raises UserError that names what is missing, corrupt or of another shape, before any weight is read.
    """
    header = read_header(folder)
    placed = layout.places(header.spec, vocabulary=header.vocabulary)
    with tensors.Tensors(folder, has_vision=header.has_vision) as published:
        published.check({name: place.shape for name, place in placed.items()}, dtype=header.dtype)
        model = gemma.abstract_model(header.spec, vocabulary=header.vocabulary, dtype=header.dtype, remat=remat)
        gemma.fill(model, layout.gather(placed, published.__getitem__), mesh=mesh)
    return model, header.spec


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion; training targets end with the first."""
    ids = read_json(folder / "generation_config.json")["eos_token_id"]
    return tuple(ids) if isinstance(ids, list) else (ids,)


def read_header(folder: Path) -> hf_config.Header:
    """What config.json says; raises UserError where the folder does not exist."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model: it was not trained yet; `dvc repro` makes it")
    return hf_config.read(folder)
