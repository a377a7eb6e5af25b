"""One training run: its name, seed and devices, and the files that it writes while it trains."""

import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

from showwork import stage
from showwork.config import Params
from showwork.training.curves import Curve
from showwork.training.passes import Split
from showwork.tunix_adapter.training_state import TrainingState

PLOTS = Path("results/plots")
RECORDS = "records"  # in a run's scratch folder


@dataclass(frozen=True)
class Run:
    """What every kind of training needs besides its model, its data and its settings."""

    name: str
    """The arm's, or that of a part of it; in messages, and in the random key."""
    seed: int
    mesh: jax.sharding.Mesh
    split: Split
    """What a device takes at a time."""
    scratch: Path
    """Folder of the training state, from which a run with the same inputs resumes."""
    curve: Curve

    @property
    def number(self) -> int:
        """A number of the name, for seeds: two arms of one seed draw differently."""
        return zlib.crc32(self.name.encode())

    @property
    def key(self) -> jax.Array:
        """The run's random key, a function of seed and name."""
        return jax.random.fold_in(jax.random.key(self.seed), self.number)

    @property
    def records(self) -> Path:
        """Folder of what the run records as it trains; the training state holds a copy, which a resumed run reads."""
        return self.scratch / RECORDS

    @property
    def state(self) -> TrainingState:
        return TrainingState(self.scratch / "state", records=self.records)


@contextmanager
def begin(params: Params, name: str, columns: Sequence[str], *, mesh: jax.sharding.Mesh) -> Generator[Run, None, None]:
    """The run of a training stage, whose curve has these columns.

    Its scratch folder is removed at the end unless an exception leaves the context: write the outs inside.
    """
    with stage.scratch(name) as scratch:
        live = stage.LIVE / name if params.live else None
        curve = Curve(PLOTS / f"{name}.csv", scratch / RECORDS / "curve.csv", columns, live=live)
        yield Run(name, params.seed, mesh, Split.of(params.hardware), scratch, curve)
