"""Ingests problems: data.source → data/raw/{train,test}.jsonl and their provenance.

The parts of the second test set go to data/raw/shifted/NAME.jsonl: those that the generator makes, and the files of
data.second_test_files. The rows of data.basic_maths_files are appended to train. Both whatever the source.
"""

from pathlib import Path

import _path  # noqa: F401
from showwork import config, stage
from showwork.files import write_json
from showwork.sources import generator, raw

RAW = Path("data/raw")
SHIFTED = RAW / "shifted"


def main() -> None:
    data = config.load().data
    paths = {split: RAW / f"{split}.jsonl" for split in ("train", "test")}
    shifted = {}
    match data.source:
        case "generated":
            rows = generator.generate(
                seed=data.seed, train_rows=data.train_rows, test_rows=data.test_rows, shifted_rows=data.shifted_rows,
                difficulty=data.difficulty,
            )  # fmt: skip
            provenance = {split: raw.write_generated(rows.pop(split), path) for split, path in paths.items()}
            shifted = {name: raw.write_generated(rows[name], SHIFTED / f"{name}.jsonl") for name in rows if rows[name]}
        case "jsonl":
            provenance = {"train": raw.copy_jsonl([Path(file) for file in data.train_files], paths["train"])}
            if data.hold_out_rows:
                provenance |= raw.hold_out(paths["train"], paths["test"], rows=data.hold_out_rows)
            else:
                provenance["test"] = raw.copy_jsonl([Path(file) for file in data.test_files], paths["test"])
        case "hub":
            provenance = {
                split: raw.download_hub(data.repo, data.config, data.revision, split, path)
                for split, path in paths.items()
            }
    shifted |= raw.copy_second_test([Path(file) for file in data.second_test_files], SHIFTED)
    if data.basic_maths_files:
        tables = [Path(file) for file in data.basic_maths_files]
        provenance["basic_maths"] = raw.append_basic_maths(tables, paths["train"])
    write_json(RAW / "provenance.json", {"source": data.model_dump(), **provenance, "shifted": shifted})


if __name__ == "__main__":
    stage.run("ingest", main)
