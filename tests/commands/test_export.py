"""An exported folder: the model's files, and a card whose numbers are the run's."""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from showwork import config, files, presets
from showwork.commands.export import export, render_card
from showwork.errors import UserError

PRESET = presets.FOLDER / "tiny.yaml"
METRICS = {
    "n": 200, "accuracy": 0.5, "accuracy_low": 0.43, "accuracy_high": 0.57, "accuracy_within_10pct": 0.6,
    "format_rate": 1.0, "truncated_rate": 0.0, "faithful_rate": 0.4, "equations_n": 321, "equations_hold_rate": 0.75,
    "samples_n": 50, "samples_k": 4, "accuracy_sampled": 0.3, "pass_at_4": 0.7, "maj_at_4": 0.35,
    "n_steps_1": 150, "accuracy_steps_1": 0.6, "n_steps_3": 50, "accuracy_steps_3": 0.2,
}  # fmt: skip
DATA = {
    "rows": {"train": 1234, "val": 56, "test": 200},
    "train": {"rejected": 3},
    "test": {"rejected": 4},
    "provenance": {"source": {"source": "generated", "seed": 7}},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PRESET.read_text())
    files.write_json(Path("results/metrics/clean.json"), DATA)
    files.write_json(Path("results/metrics/eval/grpo.json"), METRICS)
    for name in ("model.safetensors", "config.json", "tokenizer.model", "generation_config.json"):
        files.write_text(Path("models/grpo") / name, f"the bytes of {name}")
    return tmp_path


def test_the_folder_holds_the_model_and_a_card(project):
    export("grpo", Path("out"))
    written = {path.name: path.read_text() for path in Path("out").iterdir()}
    card = written.pop("README.md")
    assert written == {path.name: path.read_text() for path in Path("models/grpo").iterdir()}
    assert not list(project.glob(".out*"))
    header = YAML(typ="safe").load(card.split("---")[1])
    assert header == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "language": "en", "license": "apache-2.0",
    }  # fmt: skip
    assert "base → sft → grpo, from random weights" in card
    assert "1,234 problems to train on, 56 to validate, 200 to test; 7 were rejected" in card
    assert "commit: none: this was no git checkout" in card
    assert "generations: " in card  # its settings


def test_each_share_has_its_n_and_interval(project):
    export("grpo", Path("out"))
    card = Path("out/README.md").read_text()
    # Wilson by hand: (0.5 ± 1.96 sqrt(0.25 / 200 + 1.96² / 4 / 200²)) at n = 200, about its own centre, 0.5.
    assert "| right answer, greedy | 50.0% | 43.1% to 56.9% | 200 |" in card
    assert "| equations that hold | 75.0% | – | 321 |" in card
    assert "| right by the majority of 4 samples | 35.0% | – | 50 questions × 4 |" in card


def test_the_card_says_what_it_is_not_good_for(project):
    export("grpo", Path("out"))
    limits = Path("out/README.md").read_text().partition("## What it is not good for")[2]
    assert "50.0% of those to the test questions are wrong" in limits
    assert "3 (20% of 50)" in limits  # the steps at which it is mostly wrong, and those alone
    assert "1 (60%" not in limits
    assert "10.0% of all completions come to the right answer by reasoning that is false" in limits
    assert "trained from scratch" in limits


def test_published_weights_keep_their_licence_and_name():
    values = YAML(typ="safe").load(PRESET)
    values["base"] = {"weights": "hub:google/gemma-3-1b-it@abc", "drills": None}
    values["model"] |= {"name": "gemma3_1b", "dtype": "bfloat16"}
    values["prompt"] |= {"plain": "Think first."}
    card = render_card("sft", config.check(values), metrics=METRICS, data=DATA, commit="`abc`", has_adapter=True)
    header = YAML(typ="safe").load(card.split("---")[1])
    assert (header["license"], header["base_model"]) == ("gemma", "google/gemma-3-1b-it")
    assert "licence: the terms of use of Gemma" in card
    assert "the folder `adapter` holds the adapter alone" in card
    assert "```\nThink first.\n```" in card
    assert "trained from scratch" not in card


def test_an_arm_of_ones_own_has_its_way_and_its_settings():
    values = YAML(typ="safe").load(PRESET)
    values["rl"]["arms"]["longer"] = values["rl"]["arms"]["dsa_cast"] | {"start": "dsa_cast", "steps": 7}
    values["prompt"] |= {"dual": "Four sections."}
    card = render_card("longer", config.check(values), metrics=METRICS, data=DATA, commit="`abc`", has_adapter=False)
    assert "Made by showwork as base → sft_dual → dsa_cast → longer, from random weights" in card
    assert "```\nFour sections.\n```" in card
    settings = YAML(typ="safe").load(card.partition("## Settings\n\n```yaml\n")[2].partition("```")[0])
    assert list(settings) == ["base", "sft_dual", "dsa_cast", "longer"]
    assert (settings["longer"]["steps"], settings["longer"]["beta"]) == (7, 0.0)  # its own, and what all RL arms share


def test_a_commit_is_named_and_changes_are_told(project):
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    export("grpo", Path("clean"))
    assert f"- commit: `{commit}`\n" in Path("clean/README.md").read_text()
    Path("params.yaml").write_text(PRESET.read_text() + "\n")
    export("grpo", Path("dirty"))
    assert f"- commit: `{commit}`, with changes that are in no commit\n" in Path("dirty/README.md").read_text()


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("grop", "arm grop is unknown; did you mean grpo?"),
        ("sft", "models/sft: no such model: it was not trained yet; `dvc repro sft@sft` makes it"),
        ("base", "models/base: no such model: it was not trained yet; `dvc repro base` makes it"),
    ],
)
def test_an_arm_that_is_not_there_is_a_mistake(project, arm, message):
    with pytest.raises(UserError) as caught:
        export(arm, Path("out"))
    assert str(caught.value) == message
    assert not Path("out").exists()


def test_a_folder_that_is_there_is_left_alone(project):
    files.write_text(Path("out/mine.txt"), "mine")
    with pytest.raises(UserError, match="out: is there already"):
        export("grpo", Path("out"))
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]


def test_an_arm_without_metrics_is_a_mistake(project):
    Path("results/metrics/eval/grpo.json").unlink()
    with pytest.raises(UserError, match=r"grpo\.json: no such file"):
        export("grpo", Path("out"))


def test_no_jax_is_imported(project):
    program = "from showwork.commands.export import export; from pathlib import Path; import sys\n"
    program += "export('grpo', Path('out')); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
