"""Loading of model folders: Hugging Face checkpoints under the published Gemma names, and an adapter beside them."""

from pathlib import Path
from typing import NamedTuple

import jax

from showwork.errors import UserError
from showwork.files import read_json
from showwork.models import adapters, hf_config, layout, memory, tensors
from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter import gemma, lora, parameters
from showwork.tunix_adapter.gemma import Model


class Loaded(NamedTuple):
    model: Model
    spec: GemmaSpec


def load(folder: Path, *, dtype: str, mesh: jax.sharding.Mesh | None = None) -> Loaded:
    """The model of a folder as it was trained, with its adapter if there is one, to compute in this dtype.

    Raises UserError as load_weights does.
    """
    loaded = load_weights(folder, dtype=dtype, weights_dtype=dtype, mesh=mesh)
    config = adapters.find(folder)
    if config is None:
        return loaded
    model = adapt(loaded.model, folder, adapters.shape(config, loaded.model), key=jax.random.key(0))
    return Loaded(model, loaded.spec)


def load_merged(folder: Path, *, dtype: str, mesh: jax.sharding.Mesh | None = None, remat: bool = False) -> Loaded:
    """The same with float32 weights, to which the adapter is added: for training all of them.

    Raises UserError where memory has no room for their moments and gradients too.
    """
    memory.require(folder, read_header(folder), bytes_a_parameter=memory.TRAINED, mesh=mesh)
    return load_weights(folder, dtype=dtype, weights_dtype="float32", mesh=mesh, remat=remat, is_merged=True)


def load_weights(
    folder: Path, *, dtype: str, weights_dtype: str, mesh: jax.sharding.Mesh | None = None, remat: bool = False,
    is_merged: bool = False,
) -> Loaded:  # fmt: skip
    """The folder's weights, each cast to weights_dtype and sharded over the mesh as it is read; is_merged adds the
    folder's adapter to them.

    Raises UserError that names what is missing, corrupt or of another shape, before any weight is read.
    """
    header = read_header(folder)
    memory.require(folder, header, bytes_a_parameter=memory.BYTES[weights_dtype], mesh=mesh)
    placed = layout.places(header.spec, vocabulary=header.vocabulary)
    with tensors.Tensors(folder, has_vision=header.has_vision) as published:
        published.check({name: place.shape for name, place in placed.items()}, dtype=header.dtype)
        model = gemma.abstract_model(
            header.spec, vocabulary=header.vocabulary, dtype=dtype, weights_dtype=weights_dtype, remat=remat
        )
        read = adapters.merged(published.__getitem__, folder) if is_merged else published.__getitem__
        parameters.fill(model, layout.gather(placed, read), mesh=mesh)
    return Loaded(model, header.spec)


def adapt(model: Model, folder: Path, shape: adapters.Shape, *, key: jax.Array) -> Model:
    """A model with an adapter of this shape, which begins as that of the folder; without one, it adds nothing yet."""
    adapted = lora.add_lora(model, rank=shape.rank, alpha=shape.alpha, key=key, modules=shape.modules)
    if adapters.find(folder) is not None:
        adapters.fill(adapted, folder, rank=shape.rank, alpha=shape.alpha)
    return adapted


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion; training targets end with the first."""
    ids = read_json(folder / "generation_config.json")["eos_token_id"]
    return tuple(ids) if isinstance(ids, list) else (ids,)


def read_header(folder: Path) -> hf_config.Header:
    """What config.json says; raises UserError where the folder does not exist."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model: it was not trained yet; `dvc repro` makes it")
    return hf_config.read(folder)
