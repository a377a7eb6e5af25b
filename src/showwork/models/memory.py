"""Whether a model fits into memory, by arithmetic, before anything of it is read."""

import math
from pathlib import Path

import jax

from showwork.errors import UserError
from showwork.models import hf_config, layout

# Bytes a parameter while all parameters are trained: weight, two moments and gradient, each float32.
TRAINED = 16
BYTES = {"float32": 4, "bfloat16": 2}
_CGROUP = Path("/sys/fs/cgroup")


def parameters(header: hf_config.Header) -> int:
    """The number of parameters of a model folder."""
    placed = layout.places(header.spec, vocabulary=header.vocabulary)
    return sum(math.prod(place.shape) for place in placed.values())


def require(folder: Path, header: hf_config.Header, *, bytes_a_parameter: int, mesh: jax.sharding.Mesh | None) -> None:
    """Raises UserError where the devices of the mesh, or the first one, have less free memory than the model needs.

    Activations and logits come on top. A CPU's devices share its memory, and each has whole weights.
    """
    devices = list(mesh.devices.flat) if mesh else jax.devices()[:1]
    count = parameters(header)
    is_cpu = devices[0].platform == "cpu"
    needed = count * bytes_a_parameter * (len(devices) if is_cpu else 1)
    found = free_memory() if is_cpu else _device_memory(devices)
    if found is not None and needed > found:
        copies = f" × {len(devices)} devices, each with whole weights" if is_cpu and len(devices) > 1 else ""
        way_out = (
            "train an adapter (adapter: {rank: 32, alpha: 32.0, modules: []}), whose frozen weights take "
            f"{BYTES['bfloat16']} to {BYTES['float32']} bytes a parameter, or take a smaller model or a larger machine"
            if bytes_a_parameter == TRAINED
            else "take a smaller model, fewer devices of this CPU (hardware.mesh) or a machine with more memory"
        )
        raise UserError(
            f"{folder}: {count / 1e6:,.0f} million parameters × {bytes_a_parameter} bytes{copies} are "
            f"{needed / 1e9:.1f} GB, and {found / 1e9:.1f} GB of memory are free: {way_out}"
        )


def free_memory() -> int | None:
    """Bytes that this process can still get, within its container's limit; None where the system does not say."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((_CGROUP / "memory.current").read_text()))
    except OSError:
        pass
    return min(found) if found else None


def _device_memory(devices: list[jax.Device]) -> int | None:
    """Free bytes of all devices together; None where they do not say."""
    stats = [device.memory_stats() or {} for device in devices]
    if any("bytes_limit" not in each for each in stats):
        return None
    return sum(each["bytes_limit"] - each.get("bytes_in_use", 0) for each in stats)
