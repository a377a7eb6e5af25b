"""Which modules of the package a script imports, directly or through others, read from the source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "showwork"


def closure(script: Path) -> set[Path]:
    """Files of the package, relative to the root; empty __init__.py files are no code and left out."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        for path in imported(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return {path.relative_to(ROOT) for path in found if path.read_text("utf-8").strip()}


def imported(path: Path) -> set[Path]:
    """Package files that one file imports, imports inside functions included."""
    files: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            files |= module_files(name)
    return files


def module_files(name: str) -> set[Path]:
    """The file of a module, with the __init__.py files of the packages around it."""
    parts = name.split(".")
    if parts[0] != "showwork":
        return set()
    target = PACKAGE.joinpath(*parts[1:])
    files = {
        target.with_suffix(".py"),
        *(PACKAGE.joinpath(*parts[1:i]) / "__init__.py" for i in range(1, len(parts) + 1)),
    }
    return {file for file in files if file.is_file()}
