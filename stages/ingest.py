"""Ingests problems: data.source → data/raw/{train,test}.jsonl and their provenance; generated ones also shifted.

The rows of data.basic_maths_files are appended to train, whatever the source.
"""

from pathlib import Path

import _path  # noqa: F401
from showwork import config, stage
from showwork.files import write_json
from showwork.sources import generator, raw

RAW = Path("data/raw")


def main() -> None:
    data = config.load().data
    paths = {split: RAW / f"{split}.jsonl" for split in ("train", "test")}
    match data.source:
        case "generated":
            rows = generator.generate(
                seed=data.seed, train_rows=data.train_rows, test_rows=data.test_rows, shifted_rows=data.shifted_rows,
                difficulty=data.difficulty,
            )  # fmt: skip
            provenance = {split: raw.write_generated(rows[split], RAW / f"{split}.jsonl") for split in rows}
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
    if data.basic_maths_files:
        tables = [Path(file) for file in data.basic_maths_files]
        provenance["basic_maths"] = raw.append_basic_maths(tables, paths["train"])
    write_json(RAW / "provenance.json", {"source": data.model_dump(), **provenance})


if __name__ == "__main__":
    stage.run("ingest", main)
