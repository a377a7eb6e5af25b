"""showwork preset: params.yaml becomes a preset and keeps its comments, and is checked before it is written."""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from showwork import cli, presets
from showwork.commands import preset
from showwork.errors import UserError
from tests.conftest import invoke

ROOT = Path(__file__).parents[2]


def default_text() -> str:
    return presets.text("tiny")


def values(text: str) -> dict:
    return YAML(typ="safe", pure=True).load(text)


def fails(*arguments: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """What main prints on standard error; it must end with exit code 2."""
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


@pytest.mark.parametrize("name", presets.names())
def test_applying_a_preset_gives_its_values_and_back_again_the_same_bytes(name: str, project: Path) -> None:
    preset.apply_preset(name)
    assert values(Path("params.yaml").read_text("utf-8")) == values(presets.text(name))
    preset.apply_preset("tiny")
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_comments_are_kept_and_changes_are_told(project: Path) -> None:
    output = invoke("preset", "smoke")
    text = Path("params.yaml").read_text("utf-8")
    comments = [line.partition("#")[2] for line in default_text().splitlines() if "#" in line]
    assert comments == [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert f"data.train_rows: {values(default_text())['data']['train_rows']} → 300\n" in output
    assert 'model.name: "gemma3_tiny" → "gemma3_test"\n' in output
    assert "sft.shared.adapter" not in output
    said = "params.yaml was preset smoke already; `dvc repro` runs what is not up to date.\n"
    assert invoke("preset", "smoke") == said


def test_a_section_of_other_keys_keeps_what_follows_it(project: Path) -> None:
    """ruamel keeps the blank line before the next section with data's last key, which is removed."""
    own = default_text()
    start, end = own.index("  source: generated"), own.index("\nclean:")
    jsonl = "  source: jsonl\n  train_files:\n    - a.jsonl # mine\n  test_files: []\n  hold_out_rows: 5 # mine too\n"
    own = own[:start] + jsonl + own[end:].replace("adapter: null", "adapter: {rank: 4, alpha: 4.0, modules: []}", 1)
    Path("params.yaml").write_text(own, "utf-8")
    changes = preset.apply_preset("tiny")
    assert ("data.train_files", '["a.jsonl"]', "(absent)") in changes
    assert ("data.difficulty", "(absent)", '"easy"') in changes
    assert ("sft.shared.adapter", '{"rank": 4, "alpha": 4.0, "modules": []}', "null") in changes
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_an_unknown_key_goes_and_an_added_comment_stays(project: Path) -> None:
    own = default_text().replace("    beta:", "    # why: see the log\n    betaa: 1\n    beta:", 1)
    Path("params.yaml").write_text(own, "utf-8")
    assert preset.apply_preset("tiny") == [("rl.shared.betaa", "1", "(absent)")]
    assert "    # why: see the log\n    beta:" in Path("params.yaml").read_text("utf-8")


def test_true_is_not_one(project: Path) -> None:
    Path("params.yaml").write_text(default_text().replace("drop_leaks: true", "drop_leaks: 1"), "utf-8")
    assert preset.apply_preset("tiny") == [("clean.drop_leaks", "1", "true")]


def test_a_missing_file_is_made_with_the_defaults_comments(project: Path) -> None:
    Path("params.yaml").unlink()
    preset.apply_preset("tiny")
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_nothing_is_made_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run from the project's root"):
        preset.apply_preset("tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_preset_is_checked_before_it_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "presets"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(f"# tiny\n{default_text()}", "utf-8")
    (folder / "bad.yaml").write_text("# bad\nsft: {arms: {sft: {steps: 0}}}\n", "utf-8")
    monkeypatch.setattr(presets, "FOLDER", folder)
    with pytest.raises(UserError, match=r"preset bad: sft\.arms\.sft\.steps: .*greater than 0"):
        preset.apply_preset("bad")
    assert Path("params.yaml").read_text("utf-8") == default_text()


def test_the_list_names_every_preset_and_changes_nothing(project: Path) -> None:
    for output in (invoke("preset", "--list"), invoke("preset"), invoke("preset", "smoke", "--list")):
        titles = [line.partition(":")[0] for line in output.splitlines() if line and not line.startswith(" ")]
        assert titles == presets.names()
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


def test_the_list_says_what_each_is_made_for_and_what_it_costs(project: Path) -> None:
    blocks = invoke("preset", "--list").split("\n\n")
    (shown,) = (block for block in blocks if block.startswith("grpo_efficient_v3_8: "))
    lines = [line.split(maxsplit=1) for line in shown.strip().splitlines()[1:]]
    assert [name for name, _ in lines] == ["notebook", "model", "hardware", "cost", "differs"]
    assert dict(lines)["notebook"].startswith("5, ")
    assert "the rank, is the weak one" in dict(lines)["differs"]


def test_a_row_ends_with_the_command_that_runs_its_arm(project: Path) -> None:
    assert invoke("preset", "trajectory_gemma2_2b").splitlines()[-1] == (
        "params.yaml is preset trajectory_gemma2_2b now; `dvc repro` runs what that affects."
    )


def test_a_former_layout_becomes_the_new_one(project: Path) -> None:
    Path("params.yaml").write_text(
        "seed: 0 # mine\nsft: {start: base, steps: 5}\ngrpo: {start: sft, beta: 0.1}\n", "utf-8"
    )
    preset.apply_preset("tiny")
    text = Path("params.yaml").read_text("utf-8")
    assert values(text) == values(default_text())
    assert "seed: 0 # mine" in text


def test_a_flow_mapping_that_gets_shorter_keeps_its_comment_beside_it(project: Path) -> None:
    preset.apply_preset("sft_full_gemma3_1b")
    text = Path("params.yaml").read_text("utf-8")
    assert "      optimizer: {warmup_ratio: 0.045} # 50 of 1,110 steps\n" in text
    assert "  mesh: {fsdp: 8, tp: 1} # devices" in text
