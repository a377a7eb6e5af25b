"""House rules that keep the code readable: size limits, and the direction of imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from showwork import syntax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/showwork"
CODE = sorted(path for folder in (PACKAGE, ROOT / "stages") for path in folder.rglob("*.py"))
SCRIPTS = sorted((PACKAGE / "report/templates").glob("*.*"))
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 300, 60, 8
# Layers, lowest first: a module imports only from its own layer and from lower ones.
FLOORS = (
    ("errors", "names", "syntax"),
    ("files", "records", "progress", "prompts", "arms", "formatting", "shapes"),
    ("reading", "config", "devices"),
    ("sources", "problems", "rewards", "probes", "tokenizer"),
    ("digests",),
    ("stage", "presets"),
    ("models", "tunix_adapter"),
    ("sampling", "batching", "rollout"),
    ("training", "evaluation"),
    ("report",),
    ("commands",),
    ("cli",),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*CODE, *SCRIPTS], ids=name_of)
def test_a_file_has_at_most_so_many_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


def test_a_function_has_at_most_so_many_lines_and_parameters() -> None:
    for path in CODE:
        for node in functions(path):
            assert node.end_lineno is not None
            where = f"{name_of(path)}: {node.name}"
            assert node.end_lineno - node.lineno < MOST_FUNCTION_LINES, where
            named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([a for a in named if a.arg not in ("self", "cls")]) <= MOST_PARAMETERS, where


def test_only_the_adapter_imports_tunix_and_qwix() -> None:
    users = {name_of(path.parent) for path in CODE for name in imports(path) if name.split(".")[0] in ("tunix", "qwix")}
    assert users == {"src/showwork/tunix_adapter"}


def test_imports_go_down() -> None:
    """Except imports for the type checker only."""
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert parts - {"__init__"} == FLOOR_OF.keys()
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in syntax.imports(path):
            package, _, rest = name.partition(".")
            part = rest.partition(".")[0]
            if package == "showwork" and part in FLOOR_OF:
                assert FLOOR_OF[part] <= FLOOR_OF[own], f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_module_has_a_name_that_says_nothing(name: str) -> None:
    assert not [path for path in CODE if path.stem == name]
