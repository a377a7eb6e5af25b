"""Too little memory for a model is said before it is read."""

from pathlib import Path

import pytest

from showwork.errors import UserError
from showwork.files import write_json
from showwork.models import checkpoints, hf_config, memory
from showwork.models.specs import MODELS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of Gemma 3 270M, without any weights: whoever reads them fails otherwise."""
    hf_config.write(tmp_path, MODELS["gemma3_270m"], vocabulary=262_144, dtype="bfloat16")
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [106, 1]})
    return tmp_path


def test_parameters_by_hand(folder):
    # The embedding; of each layer the MLP, q, k, v, o, four norms of the width and two of a head's size; the last norm.
    layer = 3 * 640 * 2048 + 640 * 256 * (4 + 1 + 1 + 4) + 4 * 640 + 2 * 256
    assert memory.parameters(checkpoints.read_header(folder)) == 262_144 * 640 + 18 * layer + 640


def test_training_needs_sixteen_bytes_a_parameter(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 4_000_000_000)
    with pytest.raises(
        UserError, match=r"268 million parameters × 16 bytes are 4\.3 GB, and 4\.0 GB of memory are free"
    ):
        checkpoints.load_merged(folder, dtype="bfloat16")
    with pytest.raises(UserError, match=r"model\.safetensors"):  # there is room for these; now they are looked for
        checkpoints.load(folder, dtype="bfloat16")


def test_computing_needs_the_dtype_s_bytes(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)
    with pytest.raises(UserError, match=r"× 4 bytes are 1\.1 GB, and 1\.0 GB of memory are free: take a smaller model"):
        checkpoints.load(folder, dtype="float32")


def test_this_machine_says_what_is_free():
    found = memory.free_memory()
    assert found is None or found > 0
