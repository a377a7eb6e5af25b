"""Curves as files, and with DVCLive, which a fake module replaces."""

import sys
import types
from pathlib import Path

import pytest

from showwork.errors import UserError
from showwork.training.curves import Curve

COLUMNS = ("loss", "val_loss")


class FakeLive:
    """Records (step, name, value) of each logged value, and how many were logged when each step ended."""

    def __init__(self, folder: str, **settings: object):
        self.folder, self.settings, self.step = folder, settings, 0
        self.logged: list[tuple[int, str, float]] = []
        self.ended: list[int] = []
        opened.append(self)

    def log_metric(self, name: str, value: float) -> None:
        self.logged.append((self.step, name, value))

    def next_step(self) -> None:
        self.ended.append(len(self.logged))
        self.step += 1


opened: list[FakeLive] = []


@pytest.fixture
def dvclive(monkeypatch: pytest.MonkeyPatch) -> list[FakeLive]:
    """The instances created so far."""
    opened.clear()
    monkeypatch.setitem(sys.modules, "dvclive", types.SimpleNamespace(Live=FakeLive))
    return opened


def make(folder: Path, *, live: bool) -> Curve:
    return Curve(folder / "plot.csv", folder / "kept.csv", COLUMNS, live=folder / "dvclive/sft" if live else None)


def run(folder: Path, *, live: bool) -> None:
    """Three steps, the second validated; then the process is killed and resumes after step 2."""
    curve = make(folder, live=live)
    curve.start(step=0)
    curve.add(1, {"loss": 2.0})
    curve.add(2, {"loss": 1.5})
    curve.add(2, {"val_loss": 1.75})
    curve.add(3, {"loss": 9.0})
    curve = make(folder, live=live)
    curve.start(step=2)
    curve.add(3, {"loss": 1.0, "val_loss": None})


def test_the_plot_and_what_is_kept_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)  # not needed
    run(tmp_path, live=False)
    assert (tmp_path / "plot.csv").read_text() == "step,loss,val_loss\n1,2,\n2,1.5,1.75\n3,1,\n"
    assert (tmp_path / "plot.csv").read_bytes() == (tmp_path / "kept.csv").read_bytes()


def test_dvclive_has_the_same_numbers_at_the_same_steps(tmp_path: Path, dvclive: list[FakeLive]) -> None:
    run(tmp_path / "watched", live=True)
    run(tmp_path / "alone", live=False)
    assert (tmp_path / "watched/plot.csv").read_bytes() == (tmp_path / "alone/plot.csv").read_bytes()
    killed, resumed = dvclive
    assert resumed.folder == str(tmp_path / "watched/dvclive/sft")
    assert resumed.settings == {"dvcyaml": None, "save_dvc_exp": False}
    assert killed.logged == [(1, "loss", 2.0), (2, "loss", 1.5), (2, "val_loss", 1.75), (3, "loss", 9.0)]
    assert killed.ended == [1, 2, 3, 4]
    # The kept rows are logged again, into an emptied folder, and then the new step 3.
    assert resumed.logged == [(1, "loss", 2.0), (2, "loss", 1.5), (2, "val_loss", 1.75), (3, "loss", 1.0)]
    assert resumed.ended == [4]


def test_a_missing_package_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(UserError, match=r"live is true, and DVCLive is not installed: `pip install dvclive`"):
        make(tmp_path, live=True)
