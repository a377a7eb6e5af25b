"""Sources of published weights, and the error messages when they can't be fetched."""

import re
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import kagglehub
import pytest
import requests
from huggingface_hub import errors
from kagglehub import exceptions

from showwork import config, presets
from showwork.errors import UserError
from showwork.models import weights
from showwork.models.specs import MODELS, PUBLISHED

HUB, KAGGLE = "hub:google/gemma-3-1b-it", "kaggle:google/gemma-3/transformers/gemma-3-1b-it"


def hub_error(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    return kind("refused", response=httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid")))


def kaggle_error(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return exceptions.KaggleApiHTTPError("refused", response=response)


def raising(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_error(errors.GatedRepoError, 403), "behind a licence: accept it .* `hf auth login` or set HF_TOKEN"),
        (hub_error(errors.RepositoryNotFoundError, 401), "shows no google/gemma-3-1b-it to this machine"),
        (hub_error(errors.RevisionNotFoundError, 404), "no revision abc1234"),
        (httpx.ConnectError("no route"), r"ConnectError\): it needs a network; or fetch the files elsewhere"),
        (errors.LocalEntryNotFoundError("offline"), "LocalEntryNotFoundError.*it needs a network"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_told_with_the_way_out(monkeypatch, error, message):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(error))
    with pytest.raises(UserError, match=message):
        weights.fetch(f"{HUB}@abc1234", weights.WEIGHTS)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (kaggle_error(403), "accept the licence on the model's page, put your API token into ~/.kaggle or set KAGGLE_"),
        (exceptions.UnauthenticatedError(), "put your API token into ~/.kaggle"),
        (kaggle_error(404), "Kaggle has no model google/gemma-3/transformers/gemma-3-1b-it"),
        (requests.ConnectionError("no route"), r"ConnectionError\): it needs a network"),
    ],
)
def test_what_kaggle_refuses_is_told_with_the_way_out(monkeypatch, error, message):
    monkeypatch.setattr(kagglehub, "model_download", raising(error))
    with pytest.raises(UserError, match=message):
        weights.fetch(KAGGLE, weights.WEIGHTS)


def test_the_hub_is_asked_for_the_files_and_the_revision_alone(monkeypatch):
    asked = {}

    def download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return "/cache/snapshots/abc1234def"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = weights.fetch(f"{HUB}@abc1234", ["tokenizer.model"])
    assert found == weights.Source(Path("/cache/snapshots/abc1234def"), "abc1234def")
    assert asked == {"repo": "google/gemma-3-1b-it", "revision": "abc1234", "allow_patterns": ["tokenizer.model"]}


def test_kaggle_is_asked_for_the_handle(monkeypatch):
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: f"/cache/{handle}/2")
    found = weights.fetch(KAGGLE, weights.WEIGHTS)
    assert found == weights.Source(Path("/cache/google/gemma-3/transformers/gemma-3-1b-it/2"), "2")


def test_a_kaggle_variation_in_another_format_is_a_mistake_before_any_network():
    with pytest.raises(UserError, match="not in safetensors; name the variation under `transformers`"):
        weights.fetch("kaggle:google/gemma-3/flax/gemma3-1b-it", weights.WEIGHTS)


def test_a_folder_is_itself_and_a_missing_one_a_mistake(tmp_path):
    assert weights.fetch(f"folder:{tmp_path}", weights.WEIGHTS) == weights.Source(tmp_path, None)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'no'} is no folder")):
        weights.fetch(f"folder:{tmp_path / 'no'}", weights.WEIGHTS)


# ------------------------------------------------------------------------------------------------- params.yaml


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_names_sources_that_params_yaml_takes(name):
    assert name in MODELS
    for place in (PUBLISHED[name].hub, PUBLISHED[name].kaggle):
        assert config.Base(weights=place, drills=None).weights == place


@pytest.mark.parametrize(
    "weights",
    ["folder:../models/my gemma", "gguf:../my gemma.gguf", "package:a-b_c.d", f"{HUB}@abc1234", f"{KAGGLE}/3"],
)
def test_weights_may_name_a_folder_a_revision_or_a_version(weights):
    assert config.Base(weights=weights, drills=None).weights == weights


@pytest.mark.parametrize(
    "weights",
    [
        "google/gemma-3-1b-it", "hub:gemma", "folder:", "kaggle:google/gemma-3", "", "hub:", "gguf:", "package:a/b",
        f"{HUB}@", f"{KAGGLE}/", f"{KAGGLE}/newest", f"{KAGGLE}/1/2",
    ],
)  # fmt: skip
def test_weights_of_another_form_are_a_mistake(weights):
    with pytest.raises(ValueError, match="is none of folder:PATH, gguf:PATH, package:NAME, hub:OWNER/NAME"):
        config.Base(weights=weights, drills=None)


def test_published_weights_are_not_drilled():
    values = presets.load("tiny").base.drills
    assert values is not None
    with pytest.raises(ValueError, match="set drills to null, or weights"):
        config.Base(weights=HUB, drills=values)
