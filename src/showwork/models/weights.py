"""Published weights, from a local folder, the Hugging Face Hub or Kaggle."""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from showwork.errors import UserError

WEIGHTS = ("config.json", "*.safetensors", "model.safetensors.index.json")
_OR_A_FOLDER = "or fetch the files elsewhere and set base.weights to folder:PATH in params.yaml"


class Source(NamedTuple):
    """A folder of files, and their commit or version; None for a local folder."""

    folder: Path
    revision: str | None


def fetch(weights: str, files: Sequence[str]) -> Source:
    """The files of these names or patterns, downloaded unless they are cached.

    weights is folder:PATH, hub:OWNER/NAME[@REVISION] or kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]. Raises
    UserError that says what to do where a licence, a token, the network or the model is missing.
    """
    kind, _, name = weights.partition(":")
    match kind:
        case "folder":
            return _find_folder(Path(name))
        case "hub":
            return _fetch_from_hub(name, files)
        case "kaggle":
            return _fetch_from_kaggle(name)
    raise ValueError(weights)


def _find_folder(folder: Path) -> Source:
    if not folder.is_dir():
        raise UserError(f"params.yaml: base.weights: {folder} is no folder")
    return Source(folder, None)


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
