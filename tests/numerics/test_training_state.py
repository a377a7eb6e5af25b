"""Training states: a resumed run ends in the same bytes; a damaged state is an error; half a state is none."""

import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from showwork import config, devices
from showwork.config import Mesh
from showwork.errors import UserError
from showwork.models.specs import MODELS
from showwork.training import data, sft
from showwork.training.losses import Rows
from showwork.training.passes import Split
from showwork.tunix_adapter import gemma, supervised, training_state
from showwork.tunix_adapter.training_state import TrainingState
from tests.numerics.conftest import ONE_DEVICE, VOCABULARY, flat, with_lora

WIDTH, STEPS = 8, 6


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    """Each trainer is a new function to JAX; as in a stage, its program comes from the compilation cache."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


class Trained:
    """A run of STEPS steps of Adam on random rows, which validates every 2 and saves every `every`."""

    def __init__(self, model: nnx.Module, folder: Path, *, mesh=ONE_DEVICE, every: int = 2, killed_after: int = 99):
        self.records, self.folder, self.killed_after = folder / "records", folder / "state", killed_after
        state = TrainingState(self.folder, records=self.records)
        settings = config.Supervised.model_construct(validate_every_steps=2, checkpoint_every_steps=every)
        split = Split(mesh.size, WIDTH * mesh.size, 4)
        devices.place(model, mesh)
        with devices.use(mesh):
            self.trainer = supervised.SupervisedTrainer(
                model, optax.adam(0.01), settings, loss=sft.loss_of(model, split), on_step=self._add,
                on_validation=lambda step, _: self._add_line(f"validated {step}"), state=state,
            )  # fmt: skip
            self.first = self.trainer.train_steps
            if self.first < STEPS:
                self.trainer.train(steps_of_rows(split), steps_of_rows(split)[:1])
        self.weights = flat(nnx.state(model, nnx.LoRAParam if nnx.state(model, nnx.LoRAParam) else nnx.Param))

    def _add(self, step: int, sums: supervised.Sums) -> None:
        self._add_line(f"step {step} {float(sums['nll'])!r}")
        if step == self.killed_after:
            raise Killed

    def _add_line(self, line: str) -> None:
        path = self.records / "lines"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("\n".join([*lines, *([line] if line not in lines else [])]))

    @property
    def lines(self) -> list[str]:
        return (self.records / "lines").read_text().splitlines()


def steps_of_rows(split: Split) -> list[Rows]:
    rng = np.random.default_rng(0)
    cut = [
        {"tokens": rng.integers(3, VOCABULARY, WIDTH), "positions": np.arange(WIDTH), "segments": np.ones(WIDTH, int),
         "trained": np.ones(WIDTH, np.int32)}
        for _ in range(4 * STEPS)
    ]  # fmt: skip
    return list(data.step_rows(iter(cut), rows_per_step=4, split=split))


def copied(model: nnx.Module, kind: str) -> nnx.Module:
    return with_lora(model) if kind == "lora" else nnx.clone(model, arrays=True)


MESHES = {"one device": Mesh(fsdp=1, tp=1), "four devices": Mesh(fsdp=2, tp=2)}


@pytest.mark.parametrize(
    ("kind", "mesh"),
    [
        ("full", "one device"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("lora", "one device"), ("full", "four devices")]),
        pytest.param("lora", "four devices", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_in_the_same_bytes(model, tmp_path, kind, mesh):
    devices_ = devices.make_mesh(MESHES[mesh])
    whole = Trained(copied(model, kind), tmp_path / "whole", mesh=devices_)
    with pytest.raises(Killed):
        Trained(copied(model, kind), tmp_path / "killed", mesh=devices_, killed_after=5)
    shutil.rmtree(tmp_path / "killed/records")  # the state has its own copy
    resumed = Trained(copied(model, kind), tmp_path / "killed", mesh=devices_)
    assert (whole.first, resumed.first) == (0, 4)
    np.testing.assert_array_equal(resumed.weights, whole.weights)
    assert sorted(resumed.lines) == sorted(whole.lines)

    # A finished run rests.
    again = Trained(copied(model, kind), tmp_path / "killed", mesh=devices_)
    assert again.first == STEPS
    np.testing.assert_array_equal(again.weights, whole.weights)
    assert again.lines == resumed.lines


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_records_are_never_behind_the_weights(model, tmp_path, monkeypatch, every):
    """Metrics are read one step late, so that the devices never wait; but always before a state is saved."""
    seen = []
    save = TrainingState.save

    def watched(self, step, *args, **options):
        if save(self, step, *args, **options):
            saved = tmp_path / f"state/{step:06d}/records/lines"
            seen.append((step, [line.split()[:2] for line in saved.read_text().splitlines()]))
            return True
        return False

    monkeypatch.setattr(TrainingState, "save", watched)
    Trained(copied(model, "full"), tmp_path, every=every)
    assert [step for step, _ in seen] == list(range(every, STEPS + 1, every))
    for step, lines in seen:
        assert [f"{n}" for n in range(1, step + 1)] == [line[1] for line in lines if line[0] == "step"]
        assert [f"{n}" for n in range(0, step + 1, 2)] == [line[1] for line in lines if line[0] == "validated"]
    assert [path.name for path in (tmp_path / "state").iterdir()] == [f"{STEPS:06d}"]


def optimizer_of(model: nnx.Module, *, wrt: type = nnx.Param) -> nnx.Optimizer:
    return nnx.Optimizer(model, optax.adam(0.01), wrt=wrt)


def save(folder: Path, step: int, model: nnx.Module) -> None:
    """Writes the state of a model with fresh moments, and `step` in its records."""
    (folder / "records").mkdir(exist_ok=True)
    (folder / "records/lines").write_text(f"step {step}")
    state = TrainingState(folder / "state", records=folder / "records")
    state.save(step, model, optimizer_of(model), force=True)


def restore(folder: Path, model: nnx.Module, *, is_adapter: bool = False) -> int:
    state = TrainingState(folder / "state", records=folder / "records")
    optimizer = optimizer_of(model, wrt=nnx.LoRAParam if is_adapter else nnx.Param)
    return state.maybe_restore(model, optimizer, restore_only_lora_params=is_adapter)[0]


FILES = ("weights.safetensors", "optimizer.safetensors", "records/lines", "manifest.json")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    where = np.random.default_rng(len(content)).integers(len(content))
    content[where] ^= 1 << 3
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip_a_bit,
    "gone": Path.unlink,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_state_is_an_error(model, tmp_path, file, damage):
    # Orbax restored a flipped bit, and started with new moments where those of the optimizer were gone.
    save(tmp_path, 4, model)
    assert restore(tmp_path, copied(model, "full")) == 4
    DAMAGES[damage](tmp_path / "state/000004" / file)
    with pytest.raises(UserError, match=r"no training can go on from here.*`rm -r .*state`"):
        restore(tmp_path, copied(model, "full"))


def test_a_file_too_many_is_an_error(model, tmp_path):
    save(tmp_path, 4, model)
    (tmp_path / "state/000004/records/more").write_text("")
    with pytest.raises(UserError, match="records/more"):
        restore(tmp_path, copied(model, "full"))


def test_a_state_of_another_model_is_an_error(model, tmp_path):
    save(tmp_path, 4, model)
    with pytest.raises(UserError, match="of another model or optimizer"):
        restore(tmp_path, copied(model, "lora"), is_adapter=True)
    with pytest.raises(UserError, match="input_embedding is float32"):
        restore(tmp_path, gemma.build_model(MODELS["gemma3_test"], vocabulary=VOCABULARY + 1, dtype="float32"))


@pytest.mark.parametrize("dies_at", ["_write", "_sha256", "_sync"])
def test_half_a_state_is_none(model, tmp_path, monkeypatch, dies_at):
    save(tmp_path, 4, model)
    do, calls = getattr(training_state, dies_at), []

    def dying(path, *args):
        calls.append(path)
        if len(calls) == 2:
            raise Killed
        return do(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, dies_at, dying)
        with pytest.raises(Killed):
            save(tmp_path, 6, model)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [".000006.part", "000004"]
    assert restore(tmp_path, copied(model, "full")) == 4
    assert (tmp_path / "records/lines").read_text() == "step 4"
    save(tmp_path, 6, model)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["000006"]
    assert restore(tmp_path, copied(model, "full")) == 6


def test_without_a_state_nothing_is_written(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = copied(model, "full")
    settings = config.Supervised.model_construct(validate_every_steps=2, checkpoint_every_steps=1)
    split = Split(1, WIDTH, 4)
    trainer = supervised.SupervisedTrainer(
        trained, optax.adam(0.01), settings, loss=sft.loss_of(trained, split), on_step=lambda *_: None,
        on_validation=lambda *_: None,
    )  # fmt: skip
    trainer.train(steps_of_rows(split), [])
    assert trainer.train_steps == STEPS
    assert list(tmp_path.iterdir()) == []


def test_a_state_holds_what_was_trained_and_its_moments(model, tmp_path):
    trained = with_lora(model)
    TrainingState(tmp_path, records=tmp_path / "records").save(
        3, trained, optimizer_of(trained, wrt=nnx.LoRAParam), save_only_lora_params=True, force=True
    )
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(trained, nnx.LoRAParam)))
    files = {path.name: path.stat().st_size for path in (tmp_path / "000003").glob("*.safetensors")}
    header = 8192  # at most, a file
    assert size <= files["weights.safetensors"] <= size + header
    assert 2 * size <= files["optimizer.safetensors"] <= 2 * size + 2 * header
