"""GGUF files: metadata and tensors, from one file or from its parts without putting them together.

The layout is that of docs/gguf.md in ggml's repository, versions 2 and 3. The library gguf undoes the quantisation. Its
own reader is not used: it makes a NumPy view of every string of a vocabulary, which takes 18 s and 700 MB for Gemma 3's
262,144 (here 0.7 s and 50 MB), and it needs the file in one piece.
"""

import math
import mmap
import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from showwork.errors import UserError

_VERSIONS = (2, 3)
# Kind of a value → struct's code. Strings and arrays are kinds of their own.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
# Bytes of a tensor that are turned into numbers at a time: what the library needs besides is a few times as much.
_BLOCK_BYTES = 2**22


class Stored(NamedTuple):
    """A tensor in the file."""

    shape: tuple[int, ...]
    """As the published one has it: GGUF lists the dimensions in reverse."""
    kind: GGMLQuantizationType
    start: int
    """Byte of the file."""

    @property
    def row_bytes(self) -> int:
        values, size = GGML_QUANT_SIZES[self.kind]
        return self.shape[-1] // values * size

    @property
    def bytes(self) -> int:
        return self.row_bytes * math.prod(self.shape[:-1])


class GgufFile:
    """Metadata by key, and tensors by name, each read on access.

    Raises UserError, naming the file, where it is missing, cut short, no GGUF file, or holds a tensor that the library
    gguf can't turn into numbers. No tensor is read before.
    """

    def __init__(self, path: Path, parts: Sequence[Path] = ()):
        self.path = path
        self._content = _Content(path, parts or (path,))
        cursor = _Cursor(self._content)
        if self._content.size < 4 or cursor.take(4) != b"GGUF":
            raise UserError(f"{path}: not a GGUF file")
        version = cursor.scalar("I")
        if version not in _VERSIONS:
            raise UserError(f"{path}: GGUF of version {version}; this reads versions 2 and 3")
        tensors, keys = cursor.scalar("Q"), cursor.scalar("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = cursor.text()
            self.metadata[key] = cursor.value(cursor.scalar("I"))
        found = [self._tensor(cursor) for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        data = -(-cursor.at // alignment) * alignment
        self.tensors = {name: stored._replace(start=data + stored.start) for name, stored in found}
        self._content.require(max((stored.start + stored.bytes for stored in self.tensors.values()), default=0))

    def _tensor(self, cursor: "_Cursor") -> tuple[str, Stored]:
        name = cursor.text()
        shape = tuple(cursor.scalar("Q") for _ in range(cursor.scalar("I")))[::-1]
        number, start = cursor.scalar("I"), cursor.scalar("Q")
        try:
            kind = GGMLQuantizationType(number)
            values, size = GGML_QUANT_SIZES[kind]
            dequantize(np.zeros((1, size), np.uint8), kind)
        except (ValueError, KeyError):
            raise UserError(f"{self.path}: {name} is stored in type {number}, which no GGUF has known so far") from None
        except NotImplementedError:
            raise UserError(
                f"{self.path}: {name} is stored as {kind.name}, which the library gguf does not turn into numbers; "
                "take the model in another quantisation, such as Q8_0, Q4_K_M or BF16"
            ) from None
        if not shape or shape[-1] % values:
            raise UserError(f"{self.path}: {name} has the shape {shape}, and {kind.name} has {values} values a block")
        return name, Stored(shape, kind, start)

    def read(self, name: str) -> np.ndarray:
        """A tensor in float32, turned into numbers some rows at a time: no more than it is in memory besides."""
        stored = self.tensors[name]
        rows, width = math.prod(stored.shape[:-1]), stored.shape[-1]
        found = np.empty((rows, width), np.float32)
        step = max(1, _BLOCK_BYTES // stored.row_bytes)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            raw = self._content.read(stored.start + start * stored.row_bytes, count * stored.row_bytes)
            blocks = np.frombuffer(raw, np.uint8).reshape(count, stored.row_bytes)
            found[start : start + count] = dequantize(blocks, stored.kind)
        return found.reshape(stored.shape)


class _Content:
    """The bytes of the parts, one after another."""

    def __init__(self, path: Path, parts: Sequence[Path]):
        self.path = path
        self._maps = [self._map(part) for part in parts]
        self._starts = [0, *accumulate(len(content) for content in self._maps)]
        self.size = self._starts[-1]

    def _map(self, part: Path) -> mmap.mmap | bytes:
        try:
            with part.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if part.stat().st_size else b""
        except OSError as error:
            raise UserError(f"{part}: can't be read: {error.strerror}") from None

    def require(self, end: int) -> None:
        if end > self.size:
            raise UserError(
                f"{self.path}: cut short: {end:,} bytes belong to it, {self.size:,} are there; fetch it again"
            )

    def read(self, start: int, count: int) -> bytes:
        """A copy. Raises UserError where the file ends before."""
        self.require(start + count)
        number = bisect_right(self._starts, start) - 1
        found = b""
        while count > 0:
            within = start - self._starts[number]
            piece = self._maps[number][within : within + count]
            found = found + piece if found else piece
            start, count, number = start + len(piece), count - len(piece), number + 1
        return found


class _Cursor:
    """Reads values one after another."""

    def __init__(self, content: _Content):
        self._content = content
        self._window, self._from = b"", 0  # a vocabulary is half a million small values
        self.at = 0

    def take(self, count: int) -> bytes:
        within = self.at - self._from
        if within + count > len(self._window):
            size = max(count, min(_BLOCK_BYTES, self._content.size - self.at))
            self._window, self._from, within = self._content.read(self.at, size), self.at, 0
        self.at += count
        return self._window[within : within + count]

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        """A scalar, a text, or an array as a list."""
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            of, count = self.scalar("I"), self.scalar("Q")
            if code := _SCALARS.get(of):
                return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))
            return [self.value(of) for _ in range(count)]
        if code := _SCALARS.get(kind):
            return self.scalar(code)
        raise UserError(f"{self._content.path}: has a value of kind {kind} at byte {self.at:,}, which GGUF has not")
