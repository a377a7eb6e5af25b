"""Reruns follow effects: an edit that can change what a stage makes reruns it, and no other edit does."""

import ast
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from showwork import config, digests, presets, rewards, syntax
from showwork.errors import UserError
from tests.pipeline import effects
from tests.pipeline.effects import ROOT

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PARAMS = presets.load("tiny")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, to edit."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src/showwork", "stages", "rewards"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


class Reworded(ast.NodeTransformer):
    """The same code with docstrings, annotations and error messages replaced."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.body = [line for line in node.body if not is_text(line)]
        node.body.insert(0, ast.Expr(ast.Constant("Other words.")))
        node.returns = ast.Constant("other")
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node  # its arguments take no annotation

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = ast.Constant("other")
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) and node.exc.func.id == "UserError":
            node.exc.args = [ast.Constant("other words")]
        return node


def is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def reworded(source: str) -> str:
    """The code written again from its tree, which drops comments and layout."""
    tree = Reworded().visit(ast.parse(source))
    tree.body = [ast.Expr(ast.Constant("Another docstring.")), *[line for line in tree.body if not is_text(line)]]
    return "# A comment.\n" + ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def test_every_module_reruns_what_imports_it_and_its_words_rerun_nothing(project: Path) -> None:
    code = digests.Code(project)
    before = effects.readers(code, PARAMS)
    assert any(len(files) > 20 for files in before.values())
    for file in effects.modules():
        path = project / file
        source, edit = path.read_text("utf-8"), "\n"
        if path.suffix == ".py":
            edit = "\n_changed = 1\n"
            path.write_text(reworded(source), "utf-8")
            code.forget(path)
            assert effects.readers(code, PARAMS) == before, f"other words in {file} rerun something"
            if not syntax.digest(path):
                path.write_text(source, "utf-8")
                continue  # only a docstring: anything added is new code
        path.write_text(source + edit, "utf-8")
        code.forget(path)
        after = effects.readers(code, PARAMS)
        path.write_text(source, "utf-8")
        code.forget(path)
        rerun = {name for name, files in after.items() if files != before[name]}
        assert rerun == {name for name, files in before.items() if file in files}, f"an edit of {file}"
        assert not (rerun and digests.is_exempt(path, project)), f"{file} is exempt"


def test_the_page_is_up_to_date() -> None:
    said = "`python -m tests.pipeline.effects` writes docs/effects.md"
    assert effects.PAGE.read_text("utf-8") == effects.page(), said


def test_every_exempt_module_is_there_and_says_why() -> None:
    for name, why in digests.EXEMPT.items():
        path = ROOT / "src" / Path(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file()
        assert len(why) > 10


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("src/showwork/tunix_adapter/groups.py", {"grpo", "trajectory", "dsa_cast"}),
        ("src/showwork/rewards/trajectory.py", {"trajectory"}),
        ("src/showwork/rewards/dual_stream.py", {"dsa_cast"}),
        ("src/showwork/report/templates/page.html", {"report"}),
        ("src/showwork/sources/generator.py", {"ingest"}),
        ("src/showwork/training/cast.py", {"cast"}),
        ("src/showwork/progress.py", set()),
        ("src/showwork/config/sections.py", set()),
        ("src/showwork/errors.py", set()),
    ],
)
def test_what_some_files_rerun(file: str, names: set[str]) -> None:
    found = effects.readers(digests.Code(ROOT), PARAMS)
    assert (ROOT / file).is_file()
    assert {name for name, files in found.items() if file in files} == names


def test_each_stage_depends_on_its_code_and_on_no_module() -> None:
    for name, stage in PIPELINE.items():
        if name == "code":
            continue
        deps = stage.get("do", stage)["deps"]
        own = f"code/{'${key}' if name in ('sft', 'rl', 'cast') else name.partition('_')[0]}.json"
        assert deps[0] == own
        assert not any(dep.startswith(("src", "stages")) for dep in deps)


def test_the_report_hangs_on_every_param_but_live() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert set(PIPELINE["report"]["params"]) == params.keys() - {"live"}


# ------------------------------------------------------------------------------------------------- single edits

BEFORE = '''
"""Words."""
import os
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from a import b
LIMIT: int = 3
class A:
    """Words."""
    x: int
    """Words."""
    y: float = 1.0
def f(a: int, *, b: str = "b") -> str:
    """Words."""
    c: list[int] = [1]  # words
    if not a:
        raise UserError(f"words {a}")
    return f"{a:>{b}} words"
'''


@pytest.mark.parametrize(
    ("old", "new", "is_effect"),
    [
        ('"""Words."""', "'''Other.'''", False),
        ("  # words", "", False),
        ("LIMIT: int", "LIMIT", False),
        ("a: int, *, b: str", "a, *, b", False),
        ("-> str", "-> None", False),
        ("c: list[int] = [1]", "c = [1]", False),
        ('f"words {a}"', '"others"', False),
        ("from a import b", "from c import d", False),
        ('"b"', "'b'", False),
        ("not a:", "(not\n            a):", False),
        ("LIMIT: int = 3", "LIMIT: int = 4", True),
        ("x: int", "z: int", True),
        ("y: float = 1.0", "y: float = 1", True),
        ('b: str = "b"', 'b: str = "c"', True),
        ("[1]", "[1, 1]", True),
        ("not a", "a", True),
        ("UserError(", "ValueError(", True),
        ('words"\n', 'word"\n', True),
        (":>{b}", ":<{b}", True),
        ("import os", "import sys", True),
        ("*, b", "b", True),
    ],
)
def test_an_edit_counts_where_it_changes_what_the_code_does(
    old: str, new: str, is_effect: bool, tmp_path: Path
) -> None:
    assert old in BEFORE
    files = [tmp_path / "before.py", tmp_path / "after.py"]
    for path, text in zip(files, (BEFORE, BEFORE.replace(old, new)), strict=True):
        path.write_text(text, "utf-8")
    assert (syntax.digest(files[0]) != syntax.digest(files[1])) is is_effect


def test_a_file_of_words_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "words.py"
    path.write_text('"""Words."""\n# more\n')
    assert syntax.digest(path) == ""


def test_imports_inside_functions_count(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("def f():\n    from showwork.problems import splits\n")
    assert syntax.imports(path) == {"showwork.problems", "showwork.problems.splits"}


# -------------------------------------------------------------------------------------------- rewards of one's own


def test_an_own_reward_reruns_the_arms_that_use_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    own, helper = project / "rewards/mine.py", project / "rewards/shared.py"
    own.write_text(
        "from rewards.shared import ZERO\nfrom showwork.rewards import reward\n\n\n"
        "@reward(low=0.0, high=1.0)\ndef brief(completions, problems):\n    return [ZERO for _ in completions]\n"
    )
    helper.write_text("ZERO = 0.0\n")
    params = presets.load("tiny", {"rl": {"arms": {"grpo": {"rewards": {"answer": 1.0, "mine.brief": 0.1}}}}})
    try:
        before = effects.readers(digests.Code(project), params)
        for path in (own, helper):
            path.write_text(path.read_text() + "\nMORE = 1\n")
            after = effects.readers(digests.Code(project), params)
            assert {name for name in after if after[name] != before[name]} == {"grpo"}
            before = after
    finally:
        own.unlink()
        helper.unlink()
    assert rewards.own(project / "rewards") == {}


# --------------------------------------------------------------------------------------------- what ran is recorded


def test_code_that_changed_since_it_was_recorded_stops_the_stage(project: Path) -> None:
    digests.write(PARAMS, project)
    digests.check("grpo", PARAMS, project)
    digests.check("report", PARAMS, project)
    path = project / "src/showwork/reading/answers.py"
    source = path.read_text("utf-8")
    path.write_text(source + "\nMORE = 1\n", "utf-8")
    try:
        with pytest.raises(UserError, match=r"src/showwork/reading/answers\.py changed since the stage `code` ran"):
            digests.check("grpo", PARAMS, project)
        digests.check("ingest", config.load(ROOT / "params.yaml"), project / "nowhere")
    finally:
        path.write_text(source, "utf-8")


def test_the_files_of_arms_that_are_gone_are_removed(project: Path) -> None:
    digests.write(PARAMS, project)
    names = {path.stem for path in (project / "code").glob("*.json")}
    assert names == {*digests.STAGES, *list(PARAMS.arms)[1:]}
    digests.write(presets.load("grpo_demo_gemma3_1b"), project)
    assert {path.stem for path in (project / "code").glob("*.json")} == {*digests.STAGES, "grpo"}
