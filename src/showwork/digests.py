"""Code digests of each stage: one for every module that it imports, of the syntax tree alone.

Editing comments, docstrings, layout, annotations or error messages reruns nothing (showwork.syntax), nor does editing
a module in EXEMPT. The stage `code` writes one file per stage or arm, and dvc.yaml makes each stage depend on its
file. tests/pipeline/test_effects.py checks that every other edit counts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from showwork import syntax
from showwork.arms import Arm
from showwork.config import Params, Rl
from showwork.errors import UserError
from showwork.files import read_json, write_json
from showwork.rewards import module_of

PACKAGE = "showwork"
FOLDER = Path("code")
# Module or package → why editing it changes no out of a stage.
EXEMPT = {
    "showwork.config": "decides which params are accepted; the values that reach a stage are its params in dvc.yaml",
    "showwork.digests": "decides what reruns, and nothing that is made",
    "showwork.errors": "one class, for messages",
    "showwork.names": "did you mean, in messages",
    "showwork.progress": "the progress bar",
    "showwork.syntax": "as showwork.digests",
    "showwork.stage": "runs a stage: messages, costs, the scratch folder, the cache of compiled programs",
}
# Exempt, but its imports count: showwork.arms merges an arm's section with the shared one.
FOLLOWED = "showwork.config"
# Stages with a script of their own in stages/; an arm's script is that of its kind.
STAGES = ("ingest", "clean", "weights", "tokenizer", "base", "evaluate", "report")


def write(params: Params, root: Path = Path()) -> None:
    """Writes code/NAME.json for each stage and arm, and removes all others."""
    code = Code(root)
    found = {name: code.of_stage(name) for name in STAGES} | {
        arm.name: code.of_arm(arm) for arm in params.arms.values() if arm.kind != "base"
    }
    for path in (root / FOLDER).glob("*.json"):
        if path.stem not in found:
            path.unlink()
    for name, digests in found.items():
        write_json(root / FOLDER / f"{name}.json", digests)


def check(name: str, params: Params, root: Path = Path()) -> None:
    """Raises UserError if the code no longer matches code/NAME.json: dvc.lock would record other code than runs."""
    path = root / FOLDER / f"{name}.json"
    if not path.is_file():
        return  # DVC did not start the stage
    arm = params.arms.get(name)
    recorded = read_json(path)
    found = Code(root).of_arm(arm) if arm and arm.kind != "base" else Code(root).of_stage(name)
    changed = sorted(file for file in {**recorded, **found} if recorded.get(file) != found.get(file))
    if changed:
        raise UserError(
            f"{changed[0]} changed since the stage `code` ran, so dvc.lock would not record the code that runs; "
            "run `dvc repro` again"
        )


class Code:
    """The code of a project, each file read once."""

    def __init__(self, root: Path):
        self._root = root
        self._imported: dict[Path, set[Path]] = {}
        self._digests: dict[Path, str] = {}

    def of_stage(self, name: str) -> dict[str, str]:
        """Path → digest of a stage's script and of everything that it imports from the package."""
        return self.of_files([self._root / "stages" / f"{name}.py"])

    def of_arm(self, arm: Arm) -> dict[str, str]:
        """The same for the stage that trains the arm, with the modules of the rewards that it uses."""
        files = [self._root / "stages" / f"{arm.kind}.py"]
        if isinstance(arm.settings, Rl):
            for module in {module_of(reward) for reward in arm.settings.rewards}:
                files += _module_files(module, self._root)
        return self.of_files(files)

    def of_files(self, files: Sequence[Path]) -> dict[str, str]:
        """Path → digest of these files and of all project files that they import, at any depth, sorted by path."""
        waiting, found = list(files), set(files)
        while waiting:
            new = self.imported(waiting.pop()) - found
            found |= new
            waiting += new
        counted = [path for path in found if self.digest(path) and not is_exempt(path, self._root)]
        beside = {other for folder in {path.parent for path in counted} for other in _data_files(folder)}
        named = {path.relative_to(self._root).as_posix(): path for path in {*counted, *beside}}
        return {name: self.digest(named[name]) for name in sorted(named)}

    def forget(self, path: Path) -> None:
        """Drops a file from the cache."""
        self._imported.pop(path, None)
        self._digests.pop(path, None)

    def digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = syntax.digest(path)
        return self._digests[path]

    def imported(self, path: Path) -> set[Path]:
        """Files of the package and of rewards/ that one file imports, inside functions too."""
        if path not in self._imported and is_exempt(path, self._root) and not _is_of(path, FOLLOWED, self._root):
            self._imported[path] = set()
        if path not in self._imported:
            ours = [name for name in syntax.imports(path) if name.split(".")[0] in (PACKAGE, "rewards")]
            self._imported[path] = {file for name in ours for file in _module_files(name, self._root)}
        return self._imported[path]


def is_exempt(path: Path, root: Path) -> bool:
    return path.name == "_path.py" or any(_is_of(path, name, root) for name in EXEMPT)


def _is_of(path: Path, name: str, root: Path) -> bool:
    """Whether a file is this module, or in this package."""
    module = ".".join(path.relative_to(root).with_suffix("").parts).removeprefix("src.")
    return f"{module}.".startswith(f"{name}.")


def _module_files(name: str, root: Path) -> list[Path]:
    """The file of a module, with the __init__.py files of the packages around it."""
    parts = name.split(".")
    top = root / "src" if parts[0] == PACKAGE else root
    target = top.joinpath(*parts)
    around = [top.joinpath(*parts[:i]) / "__init__.py" for i in range(1, len(parts) + 1)]
    return [file for file in (target.with_suffix(".py"), *around) if file.is_file()]


def _data_files(folder: Path) -> Iterator[Path]:
    """Files of a package that are not code, such as the report's templates."""
    if folder.name == "stages" or not (folder / "__init__.py").is_file():
        return
    for place in (folder, *(f for f in folder.iterdir() if f.is_dir() and not (f / "__init__.py").exists())):
        if place.name != "__pycache__":
            yield from (file for file in place.iterdir() if file.is_file() and file.suffix not in (".py", ".typed"))
