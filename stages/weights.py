"""Looks at the published weights that base.weights names: their headers are checked, their contents recorded.

Makes results/weights: weights.json, and a link to each file. DVC follows the links, so that other weights under the
same name rerun what depends on them, and `dvc status` says so. Weights of a hub are known by their name.
"""

import shutil
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from showwork import config, stage
from showwork.files import write_json

OUT = Path("results/weights")
RECORD = "weights.json"


def main() -> None:
    params = config.load()
    shutil.rmtree(OUT, ignore_errors=True)
    write_json(OUT / RECORD, record(params, params.base.weights))


def record(params: config.Params, source: str | None) -> dict[str, Any]:
    """What weights.json says. Links the files, where there are files of this machine."""
    nothing = {"source": source, "revision": None, "sha256": {}}
    if source is None:
        return nothing
    # Imported here: they take longer than the stage without weights.
    from showwork import tokenizer
    from showwork.models import published, weights
    from showwork.models.specs import MODELS

    found = weights.find(source)
    if found is None:
        return nothing
    with published.opened(found) as model:
        model.require(MODELS[params.model.name])
    files = (*weights.WEIGHTS, *tokenizer.FILES)
    known = {"source": source, "revision": found.revision, "sha256": weights.digests(found, files)}
    OUT.mkdir(parents=True)
    for path in weights.paths(found, files):
        (OUT / path.name).symlink_to(path.absolute())
    return known


if __name__ == "__main__":
    stage.run("weights", main)
