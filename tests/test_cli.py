"""The command line: presets keep comments and are checked before they are written; doctor knows bad combinations."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from showwork import cli
from showwork.commands import doctor
from tests.conftest import invoke

ROOT = Path(__file__).parents[1]
GOOD = dict.fromkeys(doctor.PACKAGES, "1.0") | {
    "flax": "0.12.8", "qwix": "0.1.8", "google-tunix": "0.1.7", "sentencepiece": "0.2.3",
}  # fmt: skip


def test_the_command_ends_with_two_and_without_a_traceback(project: Path) -> None:
    code = "import sys; sys.argv[:] = ['showwork', 'preset', 'tyni']; from showwork.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "showwork: preset tyni is unknown; did you mean tiny?\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["preset", "--list"], ["preset", "smoke"], ["doctor"], ["ask", "--help"]]
)
def test_no_command_imports_what_is_slow(arguments: list[str], project: Path) -> None:
    code = (
        f"import sys; sys.argv[:] = ['showwork', *{arguments!r}]\n"
        "from showwork.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'dvc', 'flax', 'jax', 'numpy', 'pandas', 'scipy', 'tunix'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_doctor_shows_the_versions_and_fails_on_a_fault(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_versions", lambda: GOOD)
    output = invoke("doctor")
    assert "google-tunix      0.1.7" in output
    assert "no known fault" in output
    monkeypatch.setattr(doctor, "installed_versions", lambda: GOOD | {"flax": "0.12.0"})
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 1
    assert "✗ flax 0.12.0 with qwix 0.1.8: LoRA ends in `TypeError: set_metadata takes either" in result.output
    assert "no known fault" not in result.output


@pytest.mark.parametrize(
    ("flax", "qwix", "is_wrong"),
    [
        ("0.12.0", "0.1.1", False),
        ("0.12.0", "0.1.2", True),
        ("0.12.0", "0.1.3", False),
        ("0.12.0", "0.1.5", False),
        ("0.12.0", "0.1.6", True),
        ("0.12.0", "0.1.8", True),
        ("0.12.1", "0.1.2", False),
        ("0.12.8", "0.1.8", False),
    ],
)
def test_which_flax_refuses_which_qwix(flax: str, qwix: str, is_wrong: bool) -> None:
    found = doctor.find_faults(GOOD | {"flax": flax, "qwix": qwix}, python=(3, 11))
    assert found == ([f"flax {flax} with qwix {qwix}: {doctor.SET_METADATA}"] if is_wrong else [])


def test_other_faults() -> None:
    assert doctor.find_faults(GOOD, python=(3, 12))[0].startswith("Python 3.12: ")
    assert "0.1.7; install that release" in doctor.find_faults(GOOD | {"google-tunix": "0.1.8"}, python=(3, 11))[0]
    without = {name: version for name, version in GOOD.items() if name not in ("dvc", "qwix")}
    assert doctor.find_faults(without, python=(3, 11)) == ["qwix, dvc: not installed; `make setup`"]


def test_notes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert list(doctor.notes(GOOD)) == ["no requirements.lock here: the versions are not compared with it"]
    Path("requirements.lock").write_text("flax==0.12.8\nqwix==0.1.8\n")
    assert list(doctor.notes(GOOD)) == []
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    slow, differ, one, other = doctor.notes({"flax": "0.12.9"})
    assert "PYTHONDONTWRITEBYTECODE is set" in slow
    assert differ.startswith("2 of 2 packages differ from requirements.lock")
    assert (one, other) == ("  flax: 0.12.9, locked 0.12.8", "  qwix: not installed, locked 0.1.8")


def test_the_lock_holds_every_dependency_within_its_bounds() -> None:
    locked = doctor.locked_versions(ROOT / "requirements.lock")
    assert list(locked) == sorted(locked)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)], prereleases=True), text
