"""Model folders: Hugging Face checkpoints in the published Gemma names, read and written."""

from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from showwork import tunix_adapter
from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.models import adapters, hf_config, layout, tensors
from showwork.models.specs import GemmaSpec

# Rows of a published embedding that no token has: Gemma 3 4B ends in 64 of them.
_MAX_UNUSED_ROWS = 128


def save(
    model: nnx.Module,
    folder: Path,
    *,
    spec: GemmaSpec,
    stop_ids: tuple[int, ...],
    adapter: tuple[int, float] | None = None,
) -> None:
    """Writes weights and configuration; the tokenizer's files are the caller's.

    adapter is (rank, alpha) of a LoRA model: its weights are written merged, and the adapter in PEFT's layout
    into the folder `adapter`. The first of stop_ids ends a training target; generation stops at any of them.
    """
    weights, adapted = tunix_adapter.parameters(model), tunix_adapter.lora_modules(model)
    embedding = weights["embedder.input_embedding"]
    placed = layout.places(spec, vocabulary=embedding.shape[0])

    def read(name: str) -> np.ndarray:
        place = placed[name]
        path = place.leaf.rpartition(".")[0]
        if path not in adapted:
            return place.to_published(np.asarray(weights[place.leaf]))
        rank, alpha = adapter
        return place.to_published(np.asarray(tunix_adapter.merged_weight(*adapted[path], rank=rank, alpha=alpha)))

    _write(folder, read, spec=spec, vocabulary=embedding.shape[0], dtype=str(embedding.dtype), stop_ids=stop_ids)
    if adapter:
        adapters.save(model, folder / adapters.FOLDER, rank=adapter[0], alpha=adapter[1])


def load(folder: Path, *, mesh: jax.sharding.Mesh | None = None, remat: bool = False) -> tuple[nnx.Module, GemmaSpec]:
    """Reads a checkpoint folder, tensor by tensor; with a mesh, each is spread over it as it comes.

    Raises UserError that names what is missing, broken or of another shape, before anything is read.
    """
    header = _read_header(folder)
    placed = layout.places(header.spec, vocabulary=header.vocabulary)
    with tensors.Tensors(folder, has_vision=header.has_vision) as published:
        published.check({name: place.shape for name, place in placed.items()}, dtype=header.dtype)
        model = tunix_adapter.abstract_model(header.spec, vocabulary=header.vocabulary, dtype=header.dtype, remat=remat)
        tunix_adapter.fill(model, layout.gather(placed, published.__getitem__), mesh=mesh)
    return model, header.spec


def convert(
    source: Path, folder: Path, *, spec: GemmaSpec, vocabulary: int, dtype: str, stop_ids: tuple[int, ...]
) -> None:
    """Writes a published folder as one of ours: text alone, in this dtype, a row of the embedding for each token.

    Raises UserError where source holds another model than spec, or one whose tokenizer has not `vocabulary` tokens.
    """
    header = _read_header(source)
    if header.spec != spec:
        wanted, found = hf_config.describe(spec), hf_config.describe(header.spec)
        raise UserError(f"params.yaml: model.name is {wanted}, but {source} holds {found}")
    if not 0 <= header.vocabulary - vocabulary <= _MAX_UNUSED_ROWS:
        raise UserError(
            f"{source}: the tokenizer has {vocabulary} tokens, the embedding {header.vocabulary} rows: "
            "they are not of one model"
        )
    placed = layout.places(spec, vocabulary=header.vocabulary)
    with tensors.Tensors(source, has_vision=header.has_vision) as published:
        published.check({name: place.shape for name, place in placed.items()}, dtype=header.dtype)

        def read(name: str) -> np.ndarray:
            tensor = published[name][:vocabulary] if name == tensors.EMBEDDING else published[name]
            return tensor.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32, copy=False)

        _write(folder, read, spec=spec, vocabulary=vocabulary, dtype=dtype, stop_ids=stop_ids)


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion; the first is the one that training targets end with."""
    ids = read_json(folder / "generation_config.json")["eos_token_id"]
    return tuple(ids) if isinstance(ids, list) else (ids,)


def _read_header(folder: Path) -> hf_config.Header:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model: it was not trained yet; `dvc repro {folder.name}` makes it")
    return hf_config.read(folder)


def _write(
    folder: Path, read: layout.Read, *, spec: GemmaSpec, vocabulary: int, dtype: str, stop_ids: tuple[int, ...]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: place.shape for name, place in layout.places(spec, vocabulary=vocabulary).items()}
    tensors.write(folder, shapes, read, dtype=dtype)
    hf_config.write(folder, spec, vocabulary=vocabulary, dtype=dtype)
    write_json(
        folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": list(stop_ids), "pad_token_id": 0}
    )
