"""Weights are written one tensor at a time, in the bytes that safetensors would write."""

import gc
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from showwork.models import tensors

SHAPES = {"b.weight": (3, 5), "a.weight": (7,), "model.layers.10.x": (2, 2, 2), "model.layers.9.x": (1, 64)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bytes_are_those_of_the_library(dtype: str, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
    values = {name: numbers.normal(size=shape).astype(kind) for name, shape in SHAPES.items()}
    tensors.write(tmp_path, SHAPES, values.__getitem__, dtype=dtype)
    save_file(values, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / tensors.WEIGHTS).read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref] = []

    def read(name: str) -> np.ndarray:
        gc.collect()
        assert sum(made() is not None for made in alive) <= 1  # the one before, whose name is taken over
        made = np.ones(SHAPES[name], np.float32)
        alive.append(weakref.ref(made))
        return made

    tensors.write(tmp_path, SHAPES, read, dtype="float32")
    assert len(alive) == len(SHAPES)


def test_another_shape_or_type_than_was_announced_is_no_file(tmp_path: Path) -> None:
    for value in (np.ones((3, 5), np.float64), np.ones((5, 3), np.float32)):
        with pytest.raises(AssertionError, match=r"b\.weight is"):
            tensors.write(tmp_path, {"b.weight": (3, 5)}, lambda name, value=value: value, dtype="float32")
        assert not (tmp_path / tensors.WEIGHTS).exists()
