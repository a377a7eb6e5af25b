"""Training states on disk: trained weights, optimizer state and the run's records, from which a killed run resumes.

They take the place of Tunix's checkpoints, which Orbax writes: those hold the whole state in memory up to twice more,
and restore flipped bits and a lost optimizer state without a word.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.models import tensors
from showwork.tunix_adapter import parameters

_MANIFEST, _RECORDS = "manifest.json", "records"
_WEIGHTS, _OPTIMIZER = "weights.safetensors", "optimizer.safetensors"


class TrainingState:
    """The newest training state of a run, in a folder named by its step; what Tunix calls a checkpoint manager.

    A state appears whole or not at all: it is written beside its place, synced, and renamed. records is a folder that
    is kept with it: what the run has recorded up to that step, such as its curve. A manifest lists every file with its
    SHA-256.
    """

    def __init__(self, folder: Path, *, records: Path):
        self._folder, self._records = folder, records
        self.is_due: Callable[[int], bool] = lambda step: False
        """Whether Tunix's save after a step writes a state; set by the trainer."""

    def latest_step(self) -> int | None:
        return max((int(path.name) for path in self._folder.glob("[0-9]*")), default=None)

    def save(
        self, step: int, model: nnx.Module, optimizer: nnx.Optimizer, *, save_only_lora_params: bool = False,
        force: bool = False, custom_metadata: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Writes the state after `step` steps, where it is due or forced, and removes the one before.

        Tunix's signature; what it calls custom metadata is not used. Returns whether a state was written.
        """
        del custom_metadata
        if not force and not self.is_due(step):
            return False
        place = self._folder / f"{step:06d}"
        part = self._folder / f".{place.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part / _WEIGHTS, _trained(model, is_adapter=save_only_lora_params))
        _write(part / _OPTIMIZER, nnx.state(optimizer, nnx.optimizer.OptState))
        if self._records.exists():
            shutil.copytree(self._records, part / _RECORDS)
        write_json(part / _MANIFEST, {"step": step, "sha256": {name: _sha256(part / name) for name in _names(part)}})
        for path in (*part.rglob("*"), part):
            _sync(path)
        part.replace(place)
        _sync(self._folder)
        for other in self._folder.iterdir():
            if other != place:
                shutil.rmtree(other)
        return True

    def maybe_restore(
        self, model: nnx.Module, optimizer: nnx.Optimizer, *, restore_only_lora_params: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Sets model, optimizer and records to the newest state's; without one, empties the records.

        Returns the state's step, 0 without one, and an empty dict as Tunix's metadata. Raises UserError where the
        state is damaged or of another model.
        """
        shutil.rmtree(self._records, ignore_errors=True)
        step = self.latest_step()
        if step is None:
            self._records.mkdir(parents=True)
            return 0, {}
        place = self._folder / f"{step:06d}"
        self._check(place, step)
        for file, owner, wanted in (
            (_WEIGHTS, model, _trained(model, is_adapter=restore_only_lora_params)),
            (_OPTIMIZER, optimizer, nnx.state(optimizer, nnx.optimizer.OptState)),
        ):
            nnx.update(owner, self._read(place / file, wanted))
        shutil.copytree(place / _RECORDS, self._records)
        return step, {}

    def close(self) -> None:
        """Nothing is left to do: every save is finished when it returns."""

    def _check(self, place: Path, step: int) -> None:
        """Raises UserError unless the files are those of the manifest, byte for byte."""
        try:
            manifest = read_json(place / _MANIFEST)
            damaged = sorted(set(manifest["sha256"]) ^ set(_names(place)))
            damaged += [name for name, sha256 in manifest["sha256"].items() if _sha256(place / name) != sha256]
            if manifest["step"] != step:
                damaged.append(_MANIFEST)
        except (UserError, KeyError, TypeError, AttributeError, OSError):
            damaged = [_MANIFEST]
        if damaged:
            raise self._damaged(place / damaged[0], "it is not as it was written")

    def _read(self, path: Path, wanted: nnx.State) -> nnx.State:
        """The file's values in the places of `wanted`, sharded alike, one at a time on their way."""
        with tensors.open_file(path) as content:
            names = {parameters.dotted(leaf) for leaf, _ in jax.tree_util.tree_leaves_with_path(wanted)}
            if names != set(content.keys()):
                raise self._damaged(path, "it is of another model or optimizer")

            def put(leaf: parameters.KeyPath, value: jax.Array) -> jax.Array:
                found = content.get_tensor(parameters.dotted(leaf))
                if found.shape != value.shape or found.dtype != value.dtype:
                    raise self._damaged(path, f"{parameters.dotted(leaf)} is {found.dtype} {found.shape}")
                return jax.device_put(found, value.sharding)

            return jax.tree_util.tree_map_with_path(put, wanted)

    def _damaged(self, path: Path, why: str) -> UserError:
        return UserError(f"{path}: no training can go on from here: {why}; `rm -r {self._folder}` to start again")


def _trained(model: nnx.Module, *, is_adapter: bool) -> nnx.State:
    return nnx.state(model, nnx.LoRAParam if is_adapter else nnx.Param)


def _write(path: Path, state: nnx.State) -> None:
    """Writes a state's leaves under their dotted names. Of a sharded one, all shards: one leaf at a time is whole."""
    leaves = {parameters.dotted(leaf): value for leaf, value in jax.tree_util.tree_leaves_with_path(state)}
    wanted = {name: tensors.Stored(value.shape, str(value.dtype)) for name, value in leaves.items()}
    tensors.write_file(path, wanted, lambda name: np.asarray(leaves[name]))


def _names(folder: Path) -> list[str]:
    """The files of a state but for its manifest, as relative names."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if name != _MANIFEST]


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, where a power cut leaves it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
