"""The command line: presets keep comments and are checked before they are written; doctor knows bad combinations."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML
from typer.testing import CliRunner

from showwork import cli, config
from showwork.errors import UserError

ROOT = Path(__file__).parents[1]
TINY = cli.PRESETS / "tiny.yaml"
GOOD = dict.fromkeys(cli.PACKAGES, "1.0") | {
    "flax": "0.12.8", "qwix": "0.1.8", "google-tunix": "0.1.7", "sentencepiece": "0.2.3",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the default's params.yaml; the process works in it."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    Path("params.yaml").write_text(default_text(), "utf-8")
    return tmp_path


def default_text() -> str:
    return TINY.read_text("utf-8").partition("\n")[2]


def values(text: str) -> dict:
    return YAML(typ="safe", pure=True).load(text)


def invoke(*arguments: str) -> str:
    """What a command that succeeds prints."""
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fails(*arguments: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """What main prints on standard error where it ends with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["showwork", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_params_yaml_as_committed_is_the_preset_tiny() -> None:
    diff = ["git", "diff", "--quiet", "HEAD", "--", "params.yaml"]
    if subprocess.run(diff, cwd=ROOT, capture_output=True, check=False).returncode == 1:
        pytest.skip("params.yaml was changed since the last commit, as one does")
    assert values((ROOT / "params.yaml").read_text("utf-8")) == values(default_text())


@pytest.mark.parametrize("name", cli.preset_names())
def test_a_preset_is_complete_and_valid_and_says_what_it_is(name: str) -> None:
    text = cli.preset_path(name).read_text("utf-8")
    config.check(values(text), name)
    assert text.startswith("# ")
    assert len(cli.describe_preset(name)) > 20


@pytest.mark.parametrize("name", cli.preset_names())
def test_applying_a_preset_gives_its_values_and_back_again_the_same_bytes(name: str, project: Path) -> None:
    cli.apply_preset(name)
    assert values(Path("params.yaml").read_text("utf-8")) == values(cli.preset_path(name).read_text("utf-8"))
    cli.apply_preset("tiny")
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_comments_are_kept_and_changes_are_told(project: Path) -> None:
    output = invoke("preset", "smoke")
    text = Path("params.yaml").read_text("utf-8")
    comments = [line.partition("#")[2] for line in default_text().splitlines() if "#" in line]
    assert comments == [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert "data.train_rows: 20000 → 300\n" in output
    assert 'model.name: "gemma3_tiny" → "gemma3_test"\n' in output
    assert "sft.adapter" not in output
    assert invoke("preset", "smoke") == "params.yaml was preset smoke already.\n"


def test_a_section_of_other_keys_keeps_what_follows_it(project: Path) -> None:
    """data: the last key carries the blank line before the next section, and it goes."""
    own = default_text()
    start, end = own.index("  source: generated"), own.index("\nclean:")
    jsonl = "  source: jsonl\n  train_files:\n    - a.jsonl # mine\n  test_files: []\n  hold_out_rows: 5 # mine too\n"
    own = own[:start] + jsonl + own[end:].replace("adapter: null", "adapter: {rank: 4, alpha: 4.0}", 1)
    Path("params.yaml").write_text(own, "utf-8")
    changes = cli.apply_preset("tiny")
    assert ("data.train_files", '["a.jsonl"]', "(absent)") in changes
    assert ("data.difficulty", "(absent)", '"easy"') in changes
    assert ("sft.adapter", '{"rank": 4, "alpha": 4.0}', "null") in changes
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_an_unknown_key_goes_and_an_added_comment_stays(project: Path) -> None:
    own = default_text().replace("  beta: 0.0", "  # why: see the log\n  betaa: 1\n  beta: 0.0", 1)
    Path("params.yaml").write_text(own, "utf-8")
    assert cli.apply_preset("tiny") == [("grpo.betaa", "1", "(absent)")]
    assert "  # why: see the log\n  beta: 0.0" in Path("params.yaml").read_text("utf-8")


def test_true_is_not_one(project: Path) -> None:
    Path("params.yaml").write_text(default_text().replace("drop_leaks: true", "drop_leaks: 1"), "utf-8")
    assert cli.apply_preset("tiny") == [("clean.drop_leaks", "1", "true")]


def test_a_missing_file_is_made_with_the_defaults_comments(project: Path) -> None:
    Path("params.yaml").unlink()
    cli.apply_preset("tiny")
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_nothing_is_made_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run from the project's root"):
        cli.apply_preset("tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_preset_is_checked_before_it_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "presets"
    folder.mkdir()
    (folder / "bad.yaml").write_text(f"# bad\n{default_text().replace('  steps: 600', '  steps: 0', 1)}", "utf-8")
    monkeypatch.setattr(cli, "PRESETS", folder)
    with pytest.raises(UserError, match=r"preset bad: sft\.steps: .*greater than 0"):
        cli.apply_preset("bad")
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_the_list_names_every_preset_and_changes_nothing(project: Path) -> None:
    for output in (invoke("preset", "--list"), invoke("preset"), invoke("preset", "smoke", "--list")):
        assert [line.split()[0] for line in output.splitlines()] == cli.preset_names()
    assert Path("params.yaml").read_text("utf-8") == default_text()


@pytest.mark.parametrize(
    ("name", "hint"), [("smok", "did you mean smoke?"), ("xyz", "known: "), ("../params", "known: "), ("", "known: ")]
)
def test_an_unknown_preset_names_the_nearest(
    name: str, hint: str, project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = fails("preset", name, capsys=capsys, monkeypatch=monkeypatch)
    assert error.startswith(f"showwork: preset {name} is unknown; ")
    assert hint in error


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("seed: 0\ndata: [\n", "params.yaml: not YAML in line 3"),
        ("seed: 0\nseed: 1\n", "params.yaml: not YAML in line 2 (found duplicate key"),
        ("", "params.yaml: empty"),
        ("- seed\n", "params.yaml: empty, or not a mapping"),
    ],
)
def test_a_broken_params_yaml_is_told_and_left_alone(
    content: str, says: str, project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text(content)
    assert says in fails("preset", "smoke", capsys=capsys, monkeypatch=monkeypatch)
    assert Path("params.yaml").read_text() == content


def test_the_command_ends_with_two_and_without_a_traceback(project: Path) -> None:
    code = "import sys; sys.argv[:] = ['showwork', 'preset', 'tyni']; from showwork.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "showwork: preset tyni is unknown; did you mean tiny?\n"


@pytest.mark.parametrize("arguments", [["--help"], ["preset", "--list"], ["preset", "smoke"], ["doctor"]])
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
    monkeypatch.setattr(cli, "installed_versions", lambda: GOOD)
    output = invoke("doctor")
    assert "google-tunix      0.1.7" in output
    assert "no known fault" in output
    monkeypatch.setattr(cli, "installed_versions", lambda: GOOD | {"flax": "0.12.0"})
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
    found = cli.find_faults(GOOD | {"flax": flax, "qwix": qwix}, python=(3, 11))
    assert found == ([f"flax {flax} with qwix {qwix}: {cli.SET_METADATA}"] if is_wrong else [])


def test_other_faults() -> None:
    assert cli.find_faults(GOOD, python=(3, 12))[0].startswith("Python 3.12: ")
    assert "0.1.7; install that release" in cli.find_faults(GOOD | {"google-tunix": "0.1.8"}, python=(3, 11))[0]
    without = {name: version for name, version in GOOD.items() if name not in ("dvc", "qwix")}
    assert cli.find_faults(without, python=(3, 11)) == ["qwix, dvc: not installed; `make setup`"]


def test_notes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert list(cli.notes(GOOD)) == ["no requirements.lock here: the versions are not compared with it"]
    Path("requirements.lock").write_text("flax==0.12.8\nqwix==0.1.8\n")
    assert list(cli.notes(GOOD)) == []
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    slow, differ, one, other = cli.notes({"flax": "0.12.9"})
    assert "PYTHONDONTWRITEBYTECODE is set" in slow
    assert differ.startswith("2 of 2 packages differ from requirements.lock")
    assert (one, other) == ("  flax: 0.12.9, locked 0.12.8", "  qwix: not installed, locked 0.1.8")


def test_the_lock_holds_every_dependency_within_its_bounds() -> None:
    locked = cli.locked_versions(ROOT / "requirements.lock")
    assert list(locked) == sorted(locked)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)], prereleases=True), text
