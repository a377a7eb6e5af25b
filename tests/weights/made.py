"""Made-up published weights: a folder of safetensors, and the same model as llama.cpp writes it into a GGUF file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file
from sentencepiece import sentencepiece_model_pb2

from showwork import tokenizer as tokenizers
from showwork.models import hf_config, layout, tensors
from showwork.models.specs import MODELS

VOCABULARY = 320
TEXTS = (
    "Tom has 5 apples and buys 3 more. How many apples does he have?",
    "Ann reads 12 pages a day for 4 days: 12 * 4 = 48 pages.",
    "A box of 24 pens costs $6, so one pen costs 6 / 24 = $0.25.",
    "Mia had 1,080 stamps and gave away 80.\nThere are 1,080 - 80 = 1,000 left.",
)
ARCHITECTURES = {
    "gemma_test": gguf.MODEL_ARCH.GEMMA, "gemma2_test": gguf.MODEL_ARCH.GEMMA2, "gemma3_test": gguf.MODEL_ARCH.GEMMA3,
}  # fmt: skip
PIECES: Any = sentencepiece_model_pb2
TYPES = PIECES.ModelProto.SentencePiece


def folder(path: Path, name: str = "gemma3_test", *, dtype: Any = np.float32, seed: int = 0) -> Path:
    """A published model's folder with random weights, which brings tokenizer.model and nothing else beside them."""
    path.mkdir(parents=True)
    numbers = np.random.default_rng(seed)
    placed = layout.places(MODELS[name], vocabulary=VOCABULARY)
    values = {tensor: numbers.normal(0, 0.3, place.shape).astype(dtype) for tensor, place in placed.items()}
    tensors.save(values, path / tensors.WEIGHTS)
    hf_config.write(path, MODELS[name], vocabulary=VOCABULARY, dtype=np.dtype(dtype).name)
    model = PIECES.ModelProto.FromString(tokenizers.train(TEXTS, vocabulary=VOCABULARY))
    model.pieces[-1].piece, model.pieces[-1].type = "\u2581\u2581", TYPES.USER_DEFINED  # as Gemma has runs of spaces
    (path / tokenizers.MODEL_FILE).write_bytes(model.SerializeToString())
    return path


def write(
    source: Path, path: Path, name: str = "gemma3_test", *, kind: Kind = Kind.F32,
    edit: Callable[[dict[str, Any], dict[str, Any]], None] = lambda keys, tensors: None,
) -> Path:  # fmt: skip
    """The folder's model as a GGUF file whose matrices are of this kind.

    `edit` changes the metadata, or the tensors, before they are written. A tensor is an array or (bytes, kind).
    """
    architecture = ARCHITECTURES[name]
    names = gguf.get_tensor_name_map(architecture, MODELS[name].layers)
    stored: dict[str, Any] = {}
    for published, value in load_file(source / tensors.WEIGHTS).items():
        theirs = names.get_name(published.removesuffix(".weight"))
        value = value.astype(np.float32) + np.float32("norm" in published)
        is_kept = value.ndim == 1 or kind == Kind.F32
        stored[f"{theirs}.weight"] = value if is_kept else (gguf.quants.quantize(value, kind), kind)
    keys = metadata(name) | vocabulary(source)
    edit(keys, stored)
    writer = gguf.GGUFWriter(path, keys.pop("general.architecture"))
    for key, value in keys.items():
        add(writer, key, value)
    for theirs, value in stored.items():
        data, of = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(theirs, data, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    kinds.get(type(value), writer.add_array)(key, value)


def metadata(name: str) -> dict[str, Any]:
    """As llama.cpp's converter has it, which leaves out what is the architecture's default."""
    spec, architecture = MODELS[name], gguf.MODEL_ARCH_NAMES[ARCHITECTURES[name]]
    keys: dict[str, Any] = {
        "block_count": spec.layers, "embedding_length": spec.width, "feed_forward_length": spec.hidden,
        "attention.head_count": spec.heads, "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_dim, "attention.value_length": spec.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }  # fmt: skip
    if spec.family != "gemma":
        keys["attention.sliding_window"] = spec.sliding_window
    if spec.family == "gemma2":
        keys |= {"attn_logit_softcapping": spec.attention_softcap, "final_logit_softcapping": spec.final_softcap}
    if spec.family == "gemma3":
        keys |= {"rope.freq_base": 1e6, "attention.sliding_window_pattern": 2}
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def vocabulary(source: Path) -> dict[str, Any]:
    """Tokens as llama.cpp's converter writes them: turns are control tokens, symbols of the user have true spaces."""
    pieces = PIECES.ModelProto.FromString((source / tokenizers.MODEL_FILE).read_bytes()).pieces
    kinds = [TYPES.CONTROL if "_of_turn" in piece.piece else piece.type for piece in pieces]
    texts = [
        piece.piece.replace("\u2581", " ") if piece.type == TYPES.USER_DEFINED else piece.piece for piece in pieces
    ]
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [piece.score for piece in pieces], "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_space_prefix": False,
    }  # fmt: skip
