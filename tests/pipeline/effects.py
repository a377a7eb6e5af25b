"""The stages that an edit of each module reruns: docs/effects.md. `python -m tests.pipeline.effects` writes it."""

from pathlib import Path

from showwork import config, digests, presets

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/effects.md"
HEAD = """\
# What an edit reruns

An edit of a comment, a docstring, an annotation, the layout of the code or the words of an error reruns nothing. Any
other edit of a file reruns the stages that import it, and what follows from them. This table is for the arms of the
preset `tiny`; a test writes and checks it (`python -m tests.pipeline.effects`).

| file | reruns |
| --- | --- |
"""
EXEMPT = """
These files rerun nothing, whatever is edited in them:

| file | why |
| --- | --- |
"""


def modules() -> list[str]:
    """Paths of all files of the package and of stages/ that are code or are read by code."""
    folders = [ROOT / "src/showwork", ROOT / "stages"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in files if path.suffix in (".py", ".html", ".css", ".js", ".txt", ".yaml")]
    return sorted(path.relative_to(ROOT).as_posix() for path in shown if path.stat().st_size)


def readers(code: digests.Code, params: config.Params) -> dict[str, dict[str, str]]:
    """Stage or arm → file → digest."""
    found = {name: code.of_stage(name) for name in digests.STAGES}
    return found | {arm.name: code.of_arm(arm) for arm in params.arms.values() if arm.kind != "base"}


def page() -> str:
    params = presets.load("tiny")
    found = readers(digests.Code(ROOT), params)
    lines, exempt = [], []
    for file in modules():
        if digests.is_exempt(ROOT / file, ROOT):
            exempt.append(f"| {file.removeprefix('src/showwork/')} | {reason(file)} |")
            continue
        names = [name for name, files in found.items() if file in files]
        if names:
            lines.append(f"| {file.removeprefix('src/showwork/')} | {words(names, params)} |")
        elif file.startswith("src/showwork/commands") or "presets" in file or file.endswith("cli.py"):
            exempt.append(f"| {file.removeprefix('src/showwork/')} | no stage imports it |")
        else:
            lines.append(f"| {file.removeprefix('src/showwork/')} | – |")
    return HEAD + "\n".join(lines) + "\n" + EXEMPT + "\n".join(exempt) + "\n"


def words(names: list[str], params: config.Params) -> str:
    """Stages by name; arms by kind if all of a kind are included."""
    said = [name for name in digests.STAGES if name in names]
    for kind, title in (("sft", "warm starts"), ("rl", "RL arms"), ("cast", "self-teaching arms")):
        arms = [arm.name for arm in params.arms.values() if arm.kind == kind]
        hit = [arm for arm in arms if arm in names]
        said += [title] if hit == arms else hit
    everything = len(digests.STAGES) + 3
    return "every stage" if len(said) == everything else ", ".join(said)


def reason(file: str) -> str:
    if file == "stages/_path.py":
        return "puts the package beside the stages on the path"
    module = ".".join(Path(file).with_suffix("").parts).removeprefix("src.")
    return next(why for name, why in digests.EXEMPT.items() if f"{module}.".startswith(f"{name}."))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
