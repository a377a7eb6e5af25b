"""Files of arms that params.yaml no longer has: DVC does not remove the outs of a deleted stage."""

from collections.abc import Collection, Iterator
from pathlib import Path

# Folder of results/ → suffix of its files, one per arm.
FOLDERS = {
    "predictions": ".jsonl", "samples": ".jsonl", "plots": ".csv", "metrics/train": ".json", "metrics/eval": ".json",
    "costs": ".json",
}  # fmt: skip
STAGES = ("code", "ingest", "clean", "weights", "tokenizer", "report")  # whose costs are kept too
EVALUATE = "evaluate-"  # of an arm's evaluation in costs


def find(results: Path, arms: Collection[str]) -> Iterator[Path]:
    """The files of arms other than these, by folder and name."""
    for folder, suffix in FOLDERS.items():
        kept = {*arms, *(f"{EVALUATE}{arm}" for arm in arms), *STAGES} if folder == "costs" else {*arms}
        files = (path for path in sorted((results / folder).glob(f"*{suffix}")) if not path.name.startswith("."))
        yield from (path for path in files if path.stem not in kept)
