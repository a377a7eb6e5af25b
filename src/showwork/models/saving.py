"""Saving of models as Hugging Face checkpoints under the published Gemma names, and conversion of published ones."""

from pathlib import Path

import ml_dtypes
import numpy as np

from showwork.errors import UserError
from showwork.files import write_json
from showwork.models import adapters, checkpoints, hf_config, layout, tensors
from showwork.models.specs import GemmaSpec
from showwork.tunix_adapter import gemma, lora
from showwork.tunix_adapter.gemma import Model

# A published embedding may have rows that no token uses: the last 64 of Gemma 3 4B's.
_MAX_UNUSED_ROWS = 128


def save(
    model: Model,
    folder: Path,
    *,
    spec: GemmaSpec,
    stop_ids: tuple[int, ...],
    adapter: tuple[int, float] | None = None,
) -> None:
    """Writes weights and configuration; the caller writes the tokenizer's files.

    adapter is (rank, alpha) of a LoRA model: the weights are merged with it, and the adapter itself is written in
    PEFT's layout to the subfolder `adapter`. Training targets end with the first of stop_ids; generation stops at any.
    """
    weights, adapted = gemma.parameters(model), lora.lora_modules(model)
    embedding = weights["embedder.input_embedding"]
    placed = layout.places(spec, vocabulary=embedding.shape[0])

    def read(name: str) -> np.ndarray:
        place = placed[name]
        path = place.leaf.rpartition(".")[0]
        if adapter is None or path not in adapted:
            return place.to_published(np.asarray(weights[place.leaf]))
        rank, alpha = adapter
        return place.to_published(np.asarray(lora.merged_weight(*adapted[path], rank=rank, alpha=alpha)))

    _write(folder, read, spec=spec, vocabulary=embedding.shape[0], dtype=str(embedding.dtype), stop_ids=stop_ids)
    if adapter:
        adapters.save(model, folder / adapters.FOLDER, rank=adapter[0], alpha=adapter[1])


def convert(
    source: Path, folder: Path, *, spec: GemmaSpec, vocabulary: int, dtype: str, stop_ids: tuple[int, ...]
) -> None:
    """Converts a published folder into one of ours: text decoder only, in this dtype, without unused embedding rows.

    Raises UserError where source holds another model than spec, or its tokenizer does not have `vocabulary` tokens.
    """
    header = checkpoints.read_header(source)
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
