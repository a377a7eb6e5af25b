"""An exported folder: merged weights, what rounding them changed, and a card whose numbers are the run's."""

import functools
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from ruamel.yaml import YAML

from showwork import config, files, presets
from showwork.commands.export import Dtype, export, render_card
from showwork.errors import UserError
from showwork.models import adapters, merging, tensors
from tests.weights import made

PRESET = presets.FOLDER / "tiny.yaml"
METRICS = {
    "n": 200, "accuracy": 0.5, "accuracy_low": 0.43, "accuracy_high": 0.57, "accuracy_within_10pct": 0.6,
    "accuracy_flexible": 0.55, "format_rate": 1.0, "truncated_rate": 0.0, "faithful_rate": 0.4, "equations_n": 321,
    "equations_hold_rate": 0.75, "samples_n": 50, "samples_k": 4, "accuracy_sampled": 0.3, "pass_at_4": 0.7,
    "maj_at_4": 0.35, "n_steps_1": 150, "accuracy_steps_1": 0.6, "n_steps_3": 50, "accuracy_steps_3": 0.2,
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
    for arm, seed in (("sft", 0), ("grpo", 1)):
        made.folder(Path("models") / arm, seed=seed)
    return tmp_path


pack = functools.partial(export, questions=0)


def test_the_folder_holds_the_model_and_a_card(project):
    pack("grpo", Path("out"))
    written = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    card = written.pop("README.md").decode()
    assert written == {path.name: path.read_bytes() for path in Path("models/grpo").iterdir()}
    assert not list(project.glob(".out*"))
    header = YAML(typ="safe").load(card.split("---")[1])
    assert header == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "language": "en", "license": "apache-2.0",
    }  # fmt: skip
    assert "base → sft → grpo, from random weights" in card
    assert "1,234 problems to train on, 56 to validate, 200 to test; 7 were rejected" in card
    assert "commit: none: this was no git checkout" in card
    assert "- model: gemma3_tiny, weights in float32; the results below were computed in float32" in card
    assert "generations: " in card  # its settings


def test_each_share_has_its_n_and_interval(project):
    pack("grpo", Path("out"))
    card = Path("out/README.md").read_text()
    # Wilson by hand: (0.5 ± 1.96 sqrt(0.25 / 200 + 1.96² / 4 / 200²)) at n = 200, about its own centre, 0.5.
    assert "| right answer, greedy | 50.0% | 43.1% to 56.9% | 200 |" in card
    assert "| right by the last number, whatever the form | 55.0% | 48.1% to 61.7% | 200 |" in card
    assert "| equations that hold | 75.0% | – | 321 |" in card
    assert "| right by the majority of 4 samples | 35.0% | – | 50 questions × 4 |" in card


def test_the_card_says_what_it_is_not_good_for(project):
    pack("grpo", Path("out"))
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
    card = render_card(
        "sft", config.check(values), metrics=METRICS, data=DATA, commit="`abc`", has_adapter=True, dtype="bfloat16"
    )
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
    card = render_card(
        "longer", config.check(values), metrics=METRICS, data=DATA, commit="`abc`", has_adapter=False, dtype="bfloat16"
    )
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
    pack("grpo", Path("clean"))
    assert f"- commit: `{commit}`\n" in Path("clean/README.md").read_text()
    Path("params.yaml").write_text(PRESET.read_text() + "\n")
    pack("grpo", Path("dirty"))
    assert f"- commit: `{commit}`, with changes that are in no commit\n" in Path("dirty/README.md").read_text()


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("grop", "arm grop is unknown; did you mean grpo?"),
        ("sft_dual", "models/sft_dual: no such model: it was not trained yet; `dvc repro sft@sft_dual` makes it"),
        ("base", "models/base: no such model: it was not trained yet; `dvc repro base` makes it"),
    ],
)
def test_an_arm_that_is_not_there_is_a_mistake(project, arm, message):
    with pytest.raises(UserError) as caught:
        pack(arm, Path("out"))
    assert str(caught.value) == message
    assert not Path("out").exists()


def test_a_folder_that_is_there_is_left_alone(project):
    files.write_text(Path("out/mine.txt"), "mine")
    with pytest.raises(UserError, match="out: is there already"):
        pack("grpo", Path("out"))
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]


def test_an_arm_without_metrics_is_a_mistake(project):
    Path("results/metrics/eval/grpo.json").unlink()
    with pytest.raises(UserError, match=r"grpo\.json: no such file"):
        pack("grpo", Path("out"))


def test_what_rounding_loses_by_hand(tmp_path):
    """Weights of 1, to half of which training has added 1, and 2⁻¹⁰ to the others: bfloat16 has no 1 + 2⁻¹⁰."""
    start, trained = (made.folder(tmp_path / name) for name in ("start", "trained"))
    stored = tensors.read(start / tensors.WEIGHTS)
    ones = {name: np.ones_like(value) for name, value in stored.items()}
    tensors.save(ones, start / tensors.WEIGHTS)
    names = sorted(ones)
    added = {name: np.float32(1 if i % 2 else 2**-10) for i, name in enumerate(names)}
    tensors.save({name: ones[name] + added[name] for name in names}, trained / tensors.WEIGHTS)
    squares = {name: float(added[name]) ** 2 * ones[name].size for name in names}
    small = sum(square for name, square in squares.items() if added[name] < 1)
    lost = merging.write(trained, tmp_path / "out", dtype="bfloat16", start=start)
    assert lost == pytest.approx(small / sum(squares.values()), rel=1e-3)
    found = tensors.read(tmp_path / "out" / tensors.WEIGHTS)
    assert {value.dtype for value in found.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert all((found[name] == (2 if added[name] == 1 else 1)).all() for name in names)
    assert merging.write(trained, tmp_path / "whole", dtype="float32", start=start) == pytest.approx(0, abs=1e-9)
    assert merging.write(trained, tmp_path / "same", dtype="float32", start=trained) is None


def test_an_adapter_is_merged_and_kept_beside(project):
    source, prefix = Path("models/grpo"), "base_model.model.model.layers.1.mlp.up_proj"
    before = tensors.read(source / tensors.WEIGHTS)
    random = np.random.default_rng(0)
    down, up = random.normal(size=(2, 32)).astype(np.float32), random.normal(size=(64, 2)).astype(np.float32)
    (source / adapters.FOLDER).mkdir()
    other = prefix.replace("layers.1", "layers.0")
    stored = {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    stored |= {f"{other}.lora_A.weight": down, f"{other}.lora_B.weight": 0 * up}
    tensors.save(stored, source / adapters.FOLDER / "adapter_model.safetensors")
    config_of = {"peft_type": "LORA", "r": 2, "lora_alpha": 6.0, "target_modules": ["up_proj"]}
    files.write_json(source / adapters.FOLDER / "adapter_config.json", config_of)
    shutil.rmtree("models/sft")
    shutil.copytree(source, "models/sft", ignore=shutil.ignore_patterns(adapters.FOLDER))
    pack("grpo", Path("out"))
    found = tensors.read(Path("out") / tensors.WEIGHTS)
    changed = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(found.pop(changed), before.pop(changed) + 3 * (up @ down), rtol=1e-6, atol=1e-6)
    for name, value in found.items():
        np.testing.assert_array_equal(value, before[name])
    assert (Path("out") / adapters.FOLDER / "adapter_config.json").exists()
    assert "with LoRA merged; the folder `adapter` holds the adapter alone" in Path("out/README.md").read_text()


def test_a_dtype_is_chosen_and_what_it_loses_is_said(project, capsys):
    pack("grpo", Path("out"), dtype=Dtype.BFLOAT16)
    assert files.read_json(Path("out/config.json"))["torch_dtype"] == "bfloat16"
    said = capsys.readouterr().out
    assert "weights in bfloat16; README.md is its card" in said
    assert "rounding to bfloat16 lost 0.0% of what training has added to sft" in said  # of updates as large as weights
