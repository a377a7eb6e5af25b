"""User-defined rewards: declared in rewards/FILE.py, selected as FILE.FUNCTION, rejected before any training."""

from pathlib import Path

import pytest

from showwork import presets, rewards
from showwork.errors import UserError
from showwork.records import Completion, Problem

HEAD = "from showwork.rewards import reward\n\n\n"
BRIEF = HEAD + (
    "@reward(low=0.0, high=1.0)\n"
    "def brief(completions, problems):\n"
    "    return [max(0.0, 1 - completion.tokens / 100) for completion in completions]\n"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards").mkdir()
    return tmp_path


def write(project: Path, source: str, name: str = "mine") -> None:
    (project / f"rewards/{name}.py").write_text(source, "utf-8")


def load(**weights: float) -> None:
    named = {name.replace("__", "."): weight for name, weight in weights.items()}
    presets.load("tiny", {"rl": {"arms": {"grpo": {"rewards": {"answer": 1.0, **named}}}}})


def test_it_is_chosen_by_file_and_function(project: Path) -> None:
    write(project, BRIEF)
    load(mine__brief=0.1)
    spec = rewards.load("mine.brief")
    problem = Problem("0", "", "", "8", ())
    assert spec.function([Completion("", 0, False), Completion("", 25, False)], [problem] * 2) == [1.0, 0.75]
    assert (spec.low, spec.high, rewards.module_of("mine.brief")) == (0.0, 1.0, "rewards.mine")
    assert list(rewards.own()) == ["mine.brief"]


def test_another_project_has_other_rewards(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, BRIEF)
    rewards.load("mine.brief")
    other = project / "other"
    (other / "rewards").mkdir(parents=True)
    write(other, BRIEF.replace("high=1.0", "high=2.0"))
    monkeypatch.chdir(other)
    assert rewards.load("mine.brief").high == 2.0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nowhere\n", r"rewards/mine\.py can't be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("def brief(:\n", r"rewards/mine\.py can't be imported: SyntaxError"),
        ("x = 1\n", r"mine\.brief: rewards/mine\.py: has no function brief"),
        (BRIEF.replace("brief(", "breif("), r"has no function brief; did you mean breif\?"),
        (BRIEF.replace("@reward(low=0.0, high=1.0)\n", ""), r"brief is not declared with @reward\(low=…, high=…\)"),
        (BRIEF.replace("low=0.0", "low=2.0"), r"can't be imported: ValueError: reward brief: low < high"),
        (BRIEF.replace("- completion", "+ completion"), r"mine\.brief: .* outside of its declared range, 0\.0 to 1\.0"),
        (BRIEF.replace("max(0.0, ", "float('nan') * ("), r"nan is outside of its declared range"),
        (BRIEF.replace("for completion in completions]", "for completion in completions[:1]]"), r"1 numbers for 7"),
        (BRIEF.replace("completion.tokens", "completion.tokns"), r"mine\.brief raises AttributeError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_any_training(project: Path, source: str, says: str) -> None:
    write(project, source, "mine")
    with pytest.raises(UserError, match=says) as caught:
        load(mine__brief=0.1)
    assert "rl.arms.grpo.rewards" in str(caught.value)


def test_a_file_that_is_not_there(project: Path) -> None:
    write(project, BRIEF)
    with pytest.raises(UserError, match=r"mien\.brief: there is no rewards/mien\.py; did you mean mine\.brief\?"):
        load(mien__brief=0.1)


def test_it_counts_in_whether_the_right_answer_is_ahead(project: Path) -> None:
    write(project, BRIEF)
    with pytest.raises(UserError, match=r"the worst right answer leads the best wrong one by 0; it must be ahead"):
        load(mine__brief=1.0)


def test_a_function_that_is_only_imported_is_its_own_files_reward(project: Path) -> None:
    write(project, BRIEF)
    write(project, "from rewards.mine import brief\n", "more")
    assert list(rewards.own()) == ["mine.brief"]


def test_two_built_in_rewards_have_two_names() -> None:
    assert len(rewards.builtin()) == 14
    assert list(rewards.builtin())[:4] == ["answer", "format", "equations", "ended"]
