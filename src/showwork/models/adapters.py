"""A LoRA adapter in PEFT's layout, in a folder of its own beside the weights that it was trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.models import hf_config, layout, tensors
from showwork.tunix_adapter import lora
from showwork.tunix_adapter.gemma import Model

# Not beside the weights themselves: where PEFT is installed, transformers would apply it to merged ones a second time.
FOLDER = "adapter"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Tunix's attention modules → the published projections that they contain, in order.
_LETTERS = {"attn.q_einsum": "q", "attn.kv_einsum": "kv", "attn.qkv_einsum": "qkv", "attn.attn_vec_einsum": "o"}


class Shape(NamedTuple):
    """Of an adapter: the product of its matrices is scaled by alpha / rank."""

    rank: int
    alpha: float
    modules: tuple[str, ...]
    """Tunix's names, as params.yaml has them."""


def save(model: Model, folder: Path, *, rank: int, alpha: float) -> None:
    """Writes lora_A [r, in] and lora_B [out, r] of each published projection; those that Tunix fuses share lora_A."""
    values: dict[str, np.ndarray] = {}
    targets: set[str] = set()
    for path, (module, name) in lora.lora_modules(model).items():
        a, b = (np.asarray(getattr(module, f"{name}_lora_{part}").get_value()) for part in "ab")
        projections = _projections(path)
        for i, prefix in enumerate(projections):
            targets.add(prefix.split(".")[-1])
            up = b if len(projections) == 1 else b[:, i]  # [r, projections, N, H]
            values[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, rank).T)
            values[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(up.reshape(rank, -1).T)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / _CONFIG,
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
         "bias": "none", "target_modules": sorted(targets)},
    )  # fmt: skip
    tensors.save(values, folder / _WEIGHTS)


def find(folder: Path) -> dict[str, Any] | None:
    """The configuration of a model folder's adapter; None without one."""
    path = folder / FOLDER / _CONFIG
    return read_json(path) if path.exists() else None


def shape(config: dict[str, Any], model: Model) -> Shape:
    """The shape of the adapter with this configuration on this model."""
    published = _targets(config)
    modules = [
        name
        for name in lora.projections(model)
        if any(projection.split(".")[-1] in published for projection in _projections(f"layers.0.{name}"))
    ]
    return Shape(config["r"], config["lora_alpha"], tuple(modules))


def merged(read: layout.Read, folder: Path) -> layout.Read:
    """A function that reads a published weight of the folder with the adapter, if it has one, added in float32."""
    if find(folder) is None:
        return read
    stored = _read(folder)

    def read_merged(name: str) -> np.ndarray:
        prefix = _prefix(name)
        if f"{prefix}.lora_A.weight" not in stored.tensors:
            return read(name)
        down, up = (stored.tensors[f"{prefix}.lora_{part}.weight"].astype(np.float32) for part in "AB")
        return read(name).astype(np.float32) + np.float32(stored.alpha / stored.rank) * (up @ down)

    return read_merged


def fill(model: Model, folder: Path, *, rank: int, alpha: float) -> None:
    """Sets the adapter of an adapted model, of this rank and alpha, to the one in a model folder, in place.

    The model's may have a greater rank and more modules: what it has more adds nothing yet. Raises UserError where the
    folder's does not fit in.
    """
    stored, path = _read(folder), folder / FOLDER / _WEIGHTS
    theirs, scale, rest = stored.rank, stored.alpha / stored.rank / (alpha / rank), dict(stored.tensors)
    if theirs > rank:
        raise UserError(
            f"{folder} has an adapter of rank {theirs}, into which one of rank {rank} does not go: give the arm that "
            f"rank or more, or `adapter: null` to train all parameters"
        )
    for name, (module, weight) in lora.lora_modules(model).items():
        prefixes = _projections(name)
        found = [prefix for prefix in prefixes if f"{prefix}.lora_A.weight" in rest]
        if not found:
            continue
        downs, ups = ([rest.pop(f"{prefix}.lora_{part}.weight") for prefix in found] for part in "AB")
        if found != prefixes or any(not np.array_equal(down, downs[0]) for down in downs):
            raise UserError(f"{path}: {', '.join(prefixes)} have not one lora_A together, as they have here")
        down, up = (getattr(module, f"{weight}_lora_{part}") for part in "ab")
        a, b = np.array(down.get_value()), np.zeros(up.get_value().shape, np.float32)
        a[..., :theirs] = downs[0].T.reshape(*a.shape[:-1], theirs)
        b[:theirs] = np.stack([up.T for up in ups], axis=1).reshape(theirs, *b.shape[1:]) * np.float32(scale)
        down.set_value(jnp.asarray(a))
        up.set_value(jnp.asarray(b))
    if rest:
        raise UserError(f"{path}: has {next(iter(rest))}; give the arm's `adapter` all the modules that are in it")


class _Stored(NamedTuple):
    """The adapter of a model folder."""

    tensors: dict[str, np.ndarray]
    """By PEFT's names."""
    rank: int
    alpha: float


def _read(folder: Path) -> _Stored:
    """Raises UserError unless it is one for the folder's weights: of their shapes, whole, and no more than that."""
    config, path, header = find(folder), folder / FOLDER / _WEIGHTS, hf_config.read(folder)
    assert config is not None
    found, rank, targets = tensors.read(path), int(config["r"]), _targets(config)
    wanted: dict[str, tuple[int, int]] = {}
    for name, place in layout.places(header.spec, vocabulary=header.vocabulary).items():
        prefix = _prefix(name)
        if prefix.rpartition(".")[2] in targets:
            out, inner = place.shape
            wanted |= {f"{prefix}.lora_A.weight": (rank, inner), f"{prefix}.lora_B.weight": (out, rank)}
    for key, shape in wanted.items():
        if key not in found or found[key].shape != shape:
            what = f"is {found[key].shape}, where this model needs {shape}" if key in found else "is missing"
            raise UserError(f"{path}: {key} {what}: it is an adapter for another model")
    if others := found.keys() - wanted.keys():
        raise UserError(f"{path}: has {min(others)}, which this model has no place for: it is for another model")
    return _Stored(found, rank, float(config["lora_alpha"]))


def _targets(config: dict[str, Any]) -> set[str]:
    """The last part of the published projections that have an adapter, such as q_proj."""
    return {path.split(".")[-1] for path in config["target_modules"]}


def _prefix(name: str) -> str:
    """PEFT's for a published weight."""
    return f"base_model.model.{name.removesuffix('.weight')}"


def _projections(path: str) -> list[str]:
    """Prefixes of PEFT's names of the published projections in a module of Tunix's, such as layers.0.attn.q_einsum."""
    _, layer, kind = path.split(".", 2)
    letters = _LETTERS.get(kind)

    def names() -> Iterator[str]:
        yield from (f"self_attn.{letter}_proj" for letter in letters) if letters else [kind]

    return [f"base_model.model.model.layers.{layer}.{name}" for name in names()]
