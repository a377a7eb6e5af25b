"""The tensors of a checkpoint folder, in one safetensors file or in shards."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from showwork.errors import UserError
from showwork.files import read_json, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# As the hubs like them.
SHARD_BYTES = 2 * 10**9

_DTYPES = {"float32": "F32", "bfloat16": "BF16", "int32": "I32", "uint32": "U32"}
_BYTES = {"float32": 4, "bfloat16": 2, "int32": 4, "uint32": 4}
# In a multimodal Gemma, the weights of the text decoder have one of these prefixes.
_TEXT_PREFIXES = ("language_model.", "model.language_model.")
_VISION = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class Stored(NamedTuple):
    """A tensor of a file, without its values."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _BYTES[self.dtype]


class Tensors:
    """A context that maps published names to tensors, each read on access.

    Raises UserError, naming the file, where one is missing or not a complete safetensors file.
    """

    def __init__(self, folder: Path, *, has_vision: bool = False):
        self.folder = folder
        self._has_vision = has_vision
        self._open = ExitStack()
        self._holders: dict[str, tuple[Any, str, Path]] = {}

    def __enter__(self) -> "Tensors":
        with self._open as opened:
            for path in _weight_files(self.folder):
                content = opened.enter_context(open_file(path))
                for stored in content.keys():  # noqa: SIM118 (no mapping)
                    if name := self._text_name(stored):
                        self._holders[name] = (content, stored, path)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def __getitem__(self, name: str) -> np.ndarray:
        content, stored, _ = self._holders[name]
        return content.get_tensor(stored)

    def check(self, shapes: Mapping[str, tuple[int, ...]], *, dtype: str) -> None:
        """Raises UserError unless exactly these tensors exist, of this dtype; does not read their values."""
        place = self.folder / WEIGHTS
        lacking = [name for name in shapes if name not in self._holders]
        # Allowed besides: the tied copy of the embedding, and buffers of old releases, which are no weights.
        extra = [n for n in self._holders if n not in shapes and n != HEAD and not n.endswith(".rotary_emb.inv_freq")]
        if lacking:
            others = f"; it has {extra[0]} instead: another family's names?" if extra else ""
            raise UserError(f"{place}: lacks {_count(lacking)}{others}")
        if extra:
            raise UserError(f"{place}: has {_count(extra)}, which config.json leaves no place for: another family's?")
        for name, shape in shapes.items():
            content, stored, path = self._holders[name]
            found = content.get_slice(stored)
            if tuple(found.get_shape()) != shape:
                raise UserError(f"{path}: {name} is {tuple(found.get_shape())}; config.json says {shape}")
            if found.get_dtype() != _DTYPES[dtype]:
                raise UserError(f"{path}: {name} is stored as {found.get_dtype()}; config.json says {dtype}")
        if HEAD in self._holders and not np.array_equal(self[HEAD], self[EMBEDDING]):
            raise UserError(f"{self._holders[HEAD][2]}: {HEAD} is not the embedding; a Gemma's output is tied to it")

    def _text_name(self, stored: str) -> str | None:
        """Its name in a text-only checkpoint; None for vision tensors."""
        if not self._has_vision:
            return stored
        if stored.startswith(_VISION):
            return None
        for prefix in _TEXT_PREFIXES:
            if stored.startswith(prefix):
                rest = stored.removeprefix(prefix)
                return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"
        return stored


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            raise UserError(f"{folder / WEIGHTS}: no such file, and no {INDEX}; the weights are read from safetensors")
        return [folder / WEIGHTS]
    index = read_json(folder / INDEX)
    shards = sorted(set(index["weight_map"].values())) if isinstance(index, dict) and "weight_map" in index else []
    if not shards:
        raise UserError(f"{folder / INDEX}: names no shard under weight_map")
    missing = [shard for shard in shards if not (folder / shard).exists()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(shards)} shards are missing, which {INDEX} names: "
            f"{', '.join(missing[:3])}; fetch or make them again"
        )
    return [folder / shard for shard in shards]


def _count(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"


def write(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray], *, dtype: str
) -> None:
    """Writes the tensors that `read` returns, each as it is read.

    In shards of at most SHARD_BYTES, or in one file where they fit.
    """
    stored = {name: Stored(shape, dtype) for name, shape in shapes.items()}
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in stored.items():
        if size and size + tensor.bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.bytes
    for path in (folder / INDEX, *folder.glob("model*.safetensors")):
        path.unlink(missing_ok=True)
    if len(shards) == 1:
        write_file(folder / WEIGHTS, stored, read)
        return
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, {name: stored[name] for name in names}, read)
        weight_map |= dict.fromkeys(names, file)
    total = sum(tensor.bytes for tensor in stored.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_file(path: Path, stored: Mapping[str, Stored], read: Callable[[str], np.ndarray]) -> None:
    """The bytes that safetensors would write, which takes all tensors at once and copies each: twice the memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(stored.items()):
        start, end = end, end + tensor.bytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in sorted(stored.items()):
            values = np.asarray(read(name), order="C")
            assert (values.shape, str(values.dtype)) == tensor, f"{name} is {values.dtype} {values.shape}"
            file.write(values.reshape(-1).view(np.uint8).data)
    temporary.replace(path)


def open_file(path: Path) -> Any:
    """safetensors' context of an open file; UserError where it is not a whole safetensors file."""
    try:
        return safe_open(path, framework="np")
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or make it again") from None


def read(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a small file by name; UserError where it is missing or not a whole safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); make it again") from None


def save(tensors: dict[str, np.ndarray], path: Path) -> None:
    # One metadata key: with several, the order of safetensors' header varies from run to run.
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(path)
