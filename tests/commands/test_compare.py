"""showwork compare on made-up commits: hand-computed numbers, causes, the gate, flips, and missing parts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from showwork import cli, formatting
from showwork.commands import revisions
from showwork.errors import UserError
from showwork.problems.cleaning import clean_lines
from tests.commands.conftest import Repository, md5

TEST_SET = "data/clean/test.jsonl"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def as_json(*arguments: str) -> dict:
    return json.loads(run(*arguments, "--json"))


def stage(*, params=None, deps=None, outs=None) -> dict:
    """An entry of dvc.lock."""
    return {
        "params": {"params.yaml": params or {}},
        "deps": [{"path": path, "md5": key} for path, key in (deps or {}).items()],
        "outs": [{"path": path, "md5": key} for path, key in (outs or {}).items()],
    }


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def better(repository: Repository) -> Repository:
    """grpo gains 6 of 8 questions and loses none; sft stays as it is."""
    repository.write_results({"sft": "11110000", "grpo": "11000000"}, seconds=60)
    repository.commit()
    repository.write_results({"sft": "11110000", "grpo": "11111111"}, seconds=90)
    repository.commit()
    return repository


def test_the_numbers_by_hand(better: Repository) -> None:
    sft, grpo = as_json("HEAD~1", "HEAD")["arms"]
    assert (grpo["arm"], grpo["n"], grpo["gained"], grpo["lost"]) == ("grpo", 8, 6, 0)
    assert (grpo["accuracy_a"], grpo["accuracy_b"], grpo["difference"]) == (0.25, 1.0, 0.75)
    # 2 / 2^6; sft has no flip, so that grpo is the only test, and Holm leaves its p alone.
    assert grpo["p"] == grpo["p_adjusted"] == pytest.approx(2 / 64)
    assert grpo["verdict"] == "better"
    assert grpo["beside"]["seconds"] == [60, 90]
    assert (sft["p"], sft["p_adjusted"], sft["verdict"]) == (1.0, 1.0, "no difference")


def test_as_text_and_as_markdown(better: Repository) -> None:
    text, markdown = run("HEAD~1", "HEAD"), run("HEAD~1", "HEAD", "--md")
    row = next(line for line in text.splitlines() if line.startswith("grpo"))
    assert row.split()[:4] == ["grpo", "25.0%", "100.0%", "+75.0"]
    assert row.endswith("better")
    assert "1.0 → 1.5" in text
    assert "| sft | 50.0% | 50.0% | 0.0 | 0.0 to 0.0 | 1.000 | 1.000 | +0 −0 | – | no difference |" in markdown
    commits = better.git("log", "--format=%h", "--abbrev=7").split()
    assert f"A HEAD~1 ({commits[1]}) → B HEAD ({commits[0]}): 8 questions" in text


def test_the_workspace_is_compared_by_default(better: Repository) -> None:
    better.write_results({"grpo": "00000000"})
    result = as_json("HEAD")
    assert (result["b"], result["commit_b"]) == ("workspace", None)
    assert [(arm["arm"], arm["lost"]) for arm in result["arms"]] == [("grpo", 8)]
    assert result["notes"] == ["only HEAD has sft"]


def test_the_gate_ends_with_three_where_an_arm_is_worse(better: Repository) -> None:
    assert "Gate: no arm is worse" in run("HEAD~1", "HEAD", "--fail-on-regression")
    # One-sided mid-p of 0 gained and 6 lost: 1/2 * 1/2^6 = 0.0078.
    assert "Gate: worse: grpo (0.0078); one-sided mid-p" in run("HEAD", "HEAD~1", "--fail-on-regression", code=3)
    assert as_json("HEAD", "HEAD~1")["regressions"] == ["grpo"]
    assert "Gate" not in run("HEAD", "HEAD~1")
    run("HEAD", "HEAD~1", "--fail-on-regression", "--json", code=3)
    run("HEAD", "HEAD~1", "--fail-on-regression", "--arm", "sft")


def test_causes_stand_beside_effects(repository: Repository) -> None:
    rl, reward = repository.write("src/rl.py", "one"), repository.write("src/reward.py", "same")
    repository.write("requirements.lock", "flax==1.0\njax==1.0\n")
    params = {"grpo": {"beta": 0.0, "steps": 5}, "sft": {"steps": 5}}

    def stages(code: str, params: dict, raw: str, model: str) -> dict:
        return {
            "ingest": stage(outs={"data/raw": raw}),
            "grpo": stage(params=params, deps={"src/rl.py": code, "src/reward.py": reward}, outs={"models/x": model}),
        }

    repository.write_results({"grpo": "10"}, params=params, stages=stages(rl, params, "a" * 32, "m"))
    repository.commit()
    rl = repository.write("src/rl.py", "two")
    repository.write("requirements.lock", "flax==1.1\njax==1.0\n")
    params = {"grpo": {"beta": 0.5, "steps": 5, "new": [1]}, "sft": {"steps": 5}}
    repository.write_results({"grpo": "11"}, params=params, stages=stages(rl, params, "b" * 32, "n"))
    cost = json.dumps({"seconds": 1.0, "hardware": "8 cores"})
    repository.write("results/costs/grpo.json", cost)

    result = as_json("HEAD")
    found = {
        group: [(c["name"], c["a"], c["b"], c["stages"]) for c in result[group]]
        for group in ("params", "data", "code", "environment")
    }
    assert found == {
        "params": [("grpo.beta", "0.0", "0.5", ["grpo"]), ("grpo.new", "(absent)", "[1]", ["grpo"])],
        "data": [("data/raw", "aaaaaaaa", "bbbbbbbb", [])],
        "code": [("src/rl.py", md5("one")[:8], md5("two")[:8], ["grpo"])],
        "environment": [("flax", "1.0", "1.1", []), ("hardware", "2 cores", "8 cores", ["grpo"])],
    }
    assert result["stages"] == ["ingest", "grpo"]
    assert result["notes"] == []
    text = run("HEAD")
    assert "params  grpo.beta: 0.0 → 0.5\n        grpo.new: (absent) → [1]\n" in text
    assert f"code    src/rl.py: {md5('one')[:8]} → {md5('two')[:8]} (grpo)\n" in text


def test_a_param_edited_after_the_run_is_no_cause_and_is_told(repository: Repository) -> None:
    """The results are those of dvc.lock, whatever params.yaml says by now."""
    ran = {"grpo": stage(params={"grpo": {"beta": 0.0}}, deps={"src/rl.py": md5("old")})}
    repository.write("src/rl.py", "old")
    repository.write_results({"grpo": "10"}, params={"grpo": {"beta": 0.0}}, stages=ran)
    repository.commit()
    repository.write("params.yaml", '{"grpo": {"beta": 0.5, "more": 1}, "other": 2}')
    repository.write("src/rl.py", "new")
    result = as_json("HEAD")
    assert result["params"] == result["code"] == []
    assert result["notes"] == [
        "the results of workspace were made before grpo.beta, grpo.more, src/rl.py changed; `dvc repro`",
    ]


def test_flips_show_both_completions(repository: Repository) -> None:
    """A's from the cache, B's from the workspace; model output can't move the cursor or reverse the line."""

    def predictions(second: str) -> str:
        rows = [("q1", "same"), ("q2", second)]
        return jsonl(*({"id": i, "question": f"{i}?", "gold": "4", "completion": text} for i, text in rows))

    path = "results/predictions/grpo.jsonl"
    before, after = predictions("\x1b[2J\u202e[bold]:bee:"), predictions("`````\nx" + "y" * 100_000)
    made = {"evaluate@grpo": stage(outs={path: repository.cache(before)})}
    repository.write_results({"grpo": "10"}, ids=["q1", "q2"], stages=made)
    repository.git("add", "--all", ":!.dvc")
    repository.git("commit", "--quiet", "--message", "a")
    made = {"evaluate@grpo": stage(outs={path: repository.write(path, after)})}
    repository.write_results({"grpo": "11"}, ids=["q1", "q2"], stages=made)

    text = run("HEAD", "--arm", "grpo", "--flips")
    assert (
        "q2: gained\n\nq2?\nRight answer: 4\n\nA, wrong:\n\\u001b[2J\\u202e[bold]:bee:\n\nB, right:\n`````\nxy" in text
    )
    assert "q1:" not in text
    assert "… 98,007 more characters" in text
    assert len(text) < 5_000
    markdown = run("HEAD", "--arm", "grpo", "--flips", "--md")
    assert "\n``````text\n`````\nxy" in markdown
    (flip,) = as_json("HEAD", "--arm", "grpo", "--flips")["flips"]
    assert (flip["id"], flip["gained"], flip["a"]) == ("q2", True, "\x1b[2J\u202e[bold]:bee:")
    assert flip["b"].endswith("yyy")


def test_flips_without_a_cache_are_listed(better: Repository) -> None:
    text = run("HEAD~1", "HEAD", "--arm", "grpo", "--flips")
    assert "The completions of grpo at HEAD~1 are in no cache here; `dvc fetch`" in text
    assert "grpo gained 6 questions: test-00003, test-00004" in text
    assert "grpo lost 0 questions: none" in text
    assert "sft flipped no question." in run("HEAD~1", "HEAD", "--arm", "sft", "--flips")
    with pytest.raises(UserError, match="name it with --arm"):
        run("HEAD", "--flips")


def test_a_state_without_an_entry_in_the_lock_has_no_completions(better: Repository) -> None:
    """A leftover predictions file is not the commit's."""
    better.write("results/predictions/grpo.jsonl", jsonl({"id": "test-00003", "completion": "stray"}))
    assert "stray" not in run("HEAD~1", "HEAD", "--arm", "grpo", "--flips")


# ------------------------------------------------------------------------------------ what can be missing or broken


def test_not_a_git_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="read from git, and there is none to read here"):
        run("HEAD")


def test_no_git(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        run("HEAD")


def test_a_repository_without_a_commit(repository: Repository) -> None:
    with pytest.raises(UserError, match="HEAD is no commit"):
        run("HEAD")


@pytest.mark.parametrize("name", ["mian", "--exec", "HEAD~9", "", "a b"])
def test_an_unknown_revision(name: str, better: Repository) -> None:
    hint = "did you mean main?" if name == "mian" else "git log --oneline --all"
    with pytest.raises(UserError, match="is no commit, branch, tag or experiment") as raised:
        run("--", name)
    assert hint in str(raised.value)


def test_a_commit_without_results(repository: Repository) -> None:
    repository.commit("empty")
    repository.write_results({"sft": "10"})
    repository.commit()
    with pytest.raises(UserError, match=r"^HEAD~1: commit [0-9a-f]{7} has no results/outcomes\.csv"):
        run("HEAD~1")
    repository.git("rm", "-r", "--quiet", "results")
    with pytest.raises(UserError, match=r"^workspace: the workspace has no results/outcomes\.csv"):
        run("HEAD")


def test_a_shallow_clone(better: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better.git("clone", "--quiet", "--depth", "1", f"file://{Path.cwd()}", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    assert as_json("HEAD")["n"] == 8
    with pytest.raises(UserError, match=r"HEAD~1 is not in this clone, which is shallow: .* `git fetch --unshallow`"):
        run("HEAD~1")


def test_a_smaller_test_set_compares_what_is_shared(repository: Repository) -> None:
    repository.write_results({"sft": "1100"}, ids=["a", "b", "c", "d"])
    repository.commit()
    repository.write_results({"sft": "011"}, ids=["d", "b", "x"])
    result = as_json("HEAD")
    (arm,) = result["arms"]
    # b: right and right; d: wrong and wrong, in another order.
    assert (arm["n"], arm["accuracy_a"], arm["accuracy_b"], arm["gained"], arm["lost"]) == (2, 0.5, 0.5, 0, 0)
    assert result["notes"] == [
        "the test sets differ: 4 questions at HEAD, 3 at workspace; compared on the 2 that both have"
    ]


def test_nothing_shared_says_why(repository: Repository) -> None:
    repository.write_results({"sft": "10"}, ids=["a", "b"], params={"data": {"seed": 0}})
    repository.commit()
    repository.write_results({"sft": "10"}, ids=["c", "d"], params={"data": {"seed": 1}})
    why = r"HEAD and workspace share no test question: HEAD has a to b, workspace has c to d \(data\.seed: 0 → 1\)"
    with pytest.raises(UserError, match=why):
        run("HEAD")
    repository.write_results({"grpo": "10"}, ids=["a", "b"])
    with pytest.raises(UserError, match="no arm in both: HEAD has sft, and workspace has grpo"):
        run("HEAD")
    with pytest.raises(UserError, match="arm sfft is not in both HEAD and HEAD; both have: sft"):
        run("HEAD", "HEAD", "--arm", "sfft")


def test_other_questions_in_the_same_rows(repository: Repository) -> None:
    """Ids as cleaning gives them: numbered by row, three questions would be compared with three others."""

    def state(outcomes: str, *questions: str) -> None:
        lines = [json.dumps({"question": q, "answer": "<<1+1=2>>\n#### 2"}).encode() for q in questions]
        ids = [problem.id for problem in clean_lines(lines, split="test", annotation_style="readable").problems]
        made = {"evaluate@sft": stage(deps={TEST_SET: md5(" ".join(questions))})}
        repository.write_results({"sft": outcomes}, ids=ids, stages=made)

    state("100", "One?", "Two?", "Three?")
    repository.commit()
    state("001", "Three?", "Another?", "One?")
    result = as_json("HEAD")
    # One?: right and right; Three?: wrong and wrong. Row by row, one question would be lost and one gained.
    (arm,) = result["arms"]
    assert (arm["n"], arm["accuracy_a"], arm["accuracy_b"], arm["gained"], arm["lost"]) == (2, 0.5, 0.5, 0, 0)
    assert result["notes"] == [
        "the test sets differ: 3 questions at HEAD, 3 at workspace; compared on the 2 that both have"
    ]
    assert [change["name"] for change in result["data"]] == [TEST_SET]
    state("100", "Four?", "Five?", "Six?")
    with pytest.raises(UserError, match=r"share no test question: HEAD has test-[0-9a-f]{10} to test-[0-9a-f]{10}, "):
        run("HEAD")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "needs a header"),
        ("id,sft\n", "needs a header"),
        ("id\nq1\n", "needs a header"),
        ("question,sft\nq1,1\n", "needs a header"),
        ("id,sft\nq1,1\nq2,2\n", "line 3: sft is '2', not 0 or 1"),
        ("id,sft\nq1\n", "line 2: sft is None, not 0 or 1"),
        ("id,sft\nq1,1,0\n", "line 2: more cells than the header"),
        ("id,sft\nq1,1\nq1,0\n", "line 3: id 'q1' is empty or stands twice"),
        ("id,sft\n,1\n", "line 2: id '' is empty or stands twice"),
        ("<<<<<<< HEAD\nid,sft\nq1,1\n", "needs a header"),
        ("id,sft\n<<<<<<< HEAD\nq1,1\n", "line 2: sft is None, not 0 or 1"),
        (f'id,sft\n"{"x" * 200_000}",1\n', "not a CSV file (field larger than field limit"),
    ],
)
def test_a_malformed_outcomes_csv(content: str, says: str, repository: Repository) -> None:
    repository.write_results({"sft": "10"})
    repository.write("results/outcomes.csv", content)
    repository.commit()
    repository.write_results({"sft": "10"})
    with pytest.raises(UserError) as raised:
        run("HEAD")
    assert str(raised.value).startswith(f"HEAD:results/outcomes.csv: {says}")
    assert "`dvc repro report` writes it again" in str(raised.value)


def test_bytes_that_are_no_text(repository: Repository) -> None:
    repository.write_results({"sft": "10"})
    Path("results/outcomes.csv").write_bytes(b"id,sft\n\xff,1\n")
    with pytest.raises(UserError, match=r"^results/outcomes\.csv: not a CSV file"):
        revisions.load("workspace")


@pytest.mark.parametrize("path", ["results/metrics/eval/sft.json", "params.yaml", "dvc.lock"])
def test_another_broken_file_is_named_with_its_commit(path: str, repository: Repository) -> None:
    repository.write_results({"sft": "10"})
    repository.write(path, "{")
    repository.commit()
    with pytest.raises(UserError, match=rf"^HEAD:{path}: not (JSON|YAML)"):
        run("HEAD", "HEAD")


def test_an_experiment_goes_by_its_name(better: Repository) -> None:
    first, second = better.git("rev-parse", "HEAD~1"), better.git("rev-parse", "HEAD")
    better.git("update-ref", f"refs/exps/{first[:2]}/{first[2:]}/gentle", second)
    assert as_json("HEAD~1", "gentle")["commit_b"] == second
    with pytest.raises(UserError, match=r"did you mean gentle\?"):
        run("gentel")


def test_a_project_in_a_folder_of_a_repository(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    repository.write_results({"sft": "10"})
    repository.commit()
    assert as_json("HEAD")["n"] == 2
    assert revisions.read_params_at("HEAD") == {"seed": 0}


def test_a_pipe_in_a_name_stays_in_its_cell() -> None:
    table = formatting.markdown_table([{"arm": "a|b", "n": "1"}])
    assert table == "| arm | n |\n| --- | ---: |\n| a\\|b | 1 |"


def test_a_lone_surrogate_can_be_printed() -> None:
    assert formatting.visible_in_terminal("\ud800 ok").encode() == b"\\ud800 ok"


def test_comparing_imports_neither_jax_nor_pandas_nor_dvc(better: Repository) -> None:
    code = (
        "import sys; sys.argv[:] = ['showwork', 'compare', 'HEAD~1', 'HEAD']\n"
        "from showwork.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'dvc', 'jax', 'pandas', 'scipy.stats', 'statsmodels'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "better" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
