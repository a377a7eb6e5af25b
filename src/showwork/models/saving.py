"""Saving of models as Hugging Face checkpoints under the published Gemma names, and conversion of published ones."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from showwork.errors import UserError
from showwork.files import write_json
from showwork.models import adapters, hf_config, layout, tensors
from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter import parameters
from showwork.tunix_adapter.gemma import Model

if TYPE_CHECKING:
    from showwork.models.published import Published  # arms save, but convert nothing: its code is none of theirs

# Beside the weights.
_CONFIGS = (hf_config.FILE, "generation_config.json")
# A published embedding may have rows that no token uses: the last 64 of Gemma 3 4B's.
_MAX_UNUSED_ROWS = 128


def save(model: Model, folder: Path, *, spec: GemmaSpec, stop_ids: tuple[int, ...]) -> None:
    """Writes weights, in their dtype, and configuration; the caller writes the tokenizer's files.

    Training targets end with the first of stop_ids; generation stops at any.
    """
    weights = parameters.by_name(model)
    embedding = weights["embedder.input_embedding"]
    placed = layout.places(spec, vocabulary=embedding.shape[0])

    def read(name: str) -> np.ndarray:
        return placed[name].to_published(np.asarray(weights[placed[name].leaf]))

    _write(folder, read, spec=spec, vocabulary=embedding.shape[0], dtype=str(embedding.dtype), stop_ids=stop_ids)


def save_adapted(model: Model, folder: Path, *, start: Path, rank: int, alpha: float) -> None:
    """Writes the adapter, and beside it the weights that it was trained on, which are those of the folder `start`.

    They are not merged: in bfloat16 nearly all that the adapter has learned would be rounded away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("model*"):
        path.unlink()
    for path in sorted(start.glob("*")):
        if path.is_file() and (path.name in _CONFIGS or path.name.startswith("model")):
            shutil.copyfile(path, folder / path.name)
    adapters.save(model, folder / adapters.FOLDER, rank=rank, alpha=alpha)


def convert(source: "Published", folder: Path, *, spec: GemmaSpec, vocabulary: int, stop_ids: tuple[int, ...]) -> None:
    """Writes a published model as one of ours: text decoder only, in its own dtype, without unused embedding rows.

    Raises UserError where it is another model than spec, or its tokenizer does not have `vocabulary` tokens.
    """
    source.require(spec)
    if not 0 <= source.vocabulary - vocabulary <= _MAX_UNUSED_ROWS:
        raise UserError(
            f"{source.place}: the tokenizer has {vocabulary} tokens, the embedding {source.vocabulary} rows: "
            "they are not of one model"
        )

    def read(name: str) -> np.ndarray:
        return source.read(name)[:vocabulary] if name == tensors.EMBEDDING else source.read(name)

    _write(folder, read, spec=spec, vocabulary=vocabulary, dtype=source.dtype, stop_ids=stop_ids)


def _write(
    folder: Path, read: layout.Read, *, spec: GemmaSpec, vocabulary: int, dtype: str, stop_ids: tuple[int, ...]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: place.shape for name, place in layout.places(spec, vocabulary=vocabulary).items()}
    tensors.write(folder, shapes, read, dtype=dtype)
    shutil.rmtree(folder / adapters.FOLDER, ignore_errors=True)  # a former one, which would be read with these
    hf_config.write(folder, spec, vocabulary=vocabulary, dtype=dtype)
    write_json(
        folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": list(stop_ids), "pad_token_id": 0}
    )
