"""The table over several seeds, from a made-up results/seeds.csv."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from showwork.arms import flatten
from showwork.commands import revisions
from showwork.errors import UserError
from showwork.evaluation.seeds import COLUMNS, digest
from showwork.files import write_csv
from showwork.report.seed_table import read

ROOT = Path(__file__).parents[2]
PARAMS = {"seed": 0, "grpo.beta": 0.0}
COMMIT = "0123456789abcdef"
# Of 1,000 questions: right ones of sft, then what grpo gained and lost.
SEEDS = {0: (400, 60, 20), 1: (420, 70, 30), 2: (410, 45, 35)}


def rows(**changes: object) -> list[dict[str, object]]:
    made = []
    for seed, (right, gained, lost) in SEEDS.items():
        known = {"seed": seed, "n": 1000, "commit": COMMIT, "params": digest(PARAMS)}
        made.append({**known, "arm": "sft", "correct": right, **changes})
        grpo = {"arm": "grpo", "start": "sft", "correct": right + gained - lost, "gained": gained, "lost": lost}
        made.append({**known, **grpo, **changes})
    return made


def write(folder: Path, **changes: object) -> Path:
    write_csv(folder / "seeds.csv", COLUMNS, rows(**changes))
    return folder / "seeds.csv"


def test_the_numbers_by_hand(tmp_path: Path) -> None:
    table = read(write(tmp_path), PARAMS | {"seed": 5})
    sft, grpo = table.rows
    assert (sft["arm"], sft["seeds"], sft["mean"], sft["sd"]) == ("sft", "3", "41.0%", "1.0")
    assert sft["lowest to highest"] == "40.0 to 42.0%"
    assert {sft[name] for name in ("change", "95% interval of the change", "p < 0.01", "verdict")} == {"–"}
    # 44, 46 and 42%.
    assert (grpo["mean"], grpo["sd"], grpo["lowest to highest"]) == ("44.0%", "2.0", "42.0 to 46.0%")
    # 4, 4 and 1 points: mean 3, deviation sqrt(3), and t for 2 degrees of freedom 4.303: 3 ± 4.303 * sqrt(3) / sqrt(3).
    assert (grpo["change"], grpo["95% interval of the change"]) == ("+3.0 over sft", "−1.3 to +7.3")
    # 60 to 20 and 70 to 30 are beyond 4 standard deviations of a coin, 45 to 35 about 1.
    assert (grpo["p < 0.01"], grpo["verdict"]) == ("2 better, 0 worse of 3", "no difference")


def test_it_says_which_seeds_and_of_which_commit(tmp_path: Path) -> None:
    said = read(write(tmp_path), PARAMS | {"seed": 5}).said
    assert "with the seeds 0, 1, 2 (3 in all)" in said
    assert "asked the same 1,000 questions" in said
    assert said.endswith("commit 0123456, whose params are the present ones but for the seed.")


def test_seeds_of_other_params_leave_a_sentence_and_no_number(tmp_path: Path) -> None:
    table = read(write(tmp_path), PARAMS | {"grpo.beta": 0.5})
    assert table.said.startswith("results/seeds.csv is of other params than the present ones (commit 0123456)")
    assert table.rows == []


def test_without_the_file_or_a_row_there_is_no_table(tmp_path: Path) -> None:
    assert read(tmp_path / "seeds.csv", PARAMS) is None
    write_csv(tmp_path / "seeds.csv", COLUMNS, [])
    assert read(tmp_path / "seeds.csv", PARAMS) is None


@pytest.mark.parametrize("changes", [{"n": "many"}, {"correct": None}, {"gained": None, "start": "sft"}])
def test_another_file_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"seeds\.csv: not what one `showwork seeds --save` writes"):
        read(write(tmp_path, **changes), PARAMS)


def test_two_recipes_in_one_file_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "seeds.csv", COLUMNS, [*rows(), *rows(commit="fedcba9876543210")])
    with pytest.raises(UserError, match="not what one"):
        read(tmp_path / "seeds.csv", PARAMS)
    (tmp_path / "seeds.csv").write_text("seed,arm,n,correct\n0,sft,4,2\n")
    with pytest.raises(UserError, match="not what one"):
        read(tmp_path / "seeds.csv", PARAMS)


def test_the_committed_file_has_the_header() -> None:
    """DVC has no dep that may be absent: without saved seeds, the file is its header."""
    assert (ROOT / "results/seeds.csv").read_text("utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_the_report_and_the_command_read_params_alike() -> None:
    with_report = flatten(YAML(typ="safe", pure=True).load(ROOT / "params.yaml"))
    assert json.dumps(with_report) == json.dumps(revisions.read_params(ROOT))
