"""Data sources: each writes a JSON Lines file, or appends to it, and returns the provenance.

Provenance is {"files": [{"path", "sha256", "rows", "bytes"}]}; for the hub also repository and revision.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from showwork import files
from showwork.errors import UserError
from showwork.sources import basic_maths

# Names that a file of the second test set may not have: those of other sets, in ids and metrics.
TAKEN = ("train", "val", "test", "families", "numbers")
_USE_JSONL = "set data.source to jsonl in params.yaml, and data.train_files and data.test_files to files of your own"


def copy_jsonl(
    paths: Sequence[Path], destination: Path, *, key: str = "data.train_files or data.test_files"
) -> dict[str, Any]:
    """Concatenates the files, byte for byte, in the order given; adds a missing newline at the end of a file.

    key names the files in params.yaml. Raises UserError, naming the file, if one is missing, a folder, not readable,
    or empty.
    """
    if not paths:
        raise UserError("params.yaml: data.source is jsonl, but no file is named; list at least one, with its path")
    contents = [_read_source(path, key) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        if not content.removeprefix(b"\xef\xbb\xbf").strip():
            raise UserError(f"{path}: the file is empty; it needs one JSON object a line, with question and answer")
    files.write_bytes(destination, b"".join(content + b"\n" * (not content.endswith(b"\n")) for content in contents))
    return {"files": [describe(path, content) for path, content in zip(paths, contents, strict=True)]}


def copy_second_test(paths: Sequence[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """Copies each file to folder/NAME.jsonl; NAME → provenance, in the order given.

    NAME is what the file is called in ids, metrics and the report: its own name in lower case, with _ for all but
    letters and digits. Raises UserError, naming the file, if two have one name, if a name is one of TAKEN, or as
    copy_jsonl does.
    """
    named: dict[str, Path] = {}
    for path in paths:
        name = second_test_name(path)
        if not name or name in TAKEN or name in named:
            why = f"{named[name]} has it too" if name in named else "it says nothing" if not name else "it is taken"
            raise UserError(
                f"{path}: a file of data.second_test_files is reported under its own name, {name!r}, and {why}; "
                "rename the file by what it holds, such as gsm8k_test.jsonl"
            )
        named[name] = path
    return {
        name: copy_jsonl([path], folder / f"{name}.jsonl", key="data.second_test_files") for name, path in named.items()
    }


def second_test_name(path: Path) -> str:
    """The name of a file of the second test set: gsm8k_test for data/source/GSM8K-test.jsonl."""
    return re.sub("[^a-z0-9]+", "_", path.stem.lower()).strip("_")


def append_basic_maths(paths: Sequence[Path], destination: Path) -> dict[str, Any]:
    """Appends the rows of the CSV files, in the order given, to a JSON Lines file.

    Raises UserError, naming the file, if one is missing, a folder, not readable, or not a table of basic maths.
    """
    contents = [_read_source(path, "data.basic_maths_files") for path in paths]
    tables = [basic_maths.to_lines(content, path) for path, content in zip(paths, contents, strict=True)]
    files.write_bytes(destination, destination.read_bytes() + b"".join(itertools.chain.from_iterable(tables)))
    # Rows of the table, not lines of the file: a cell may hold several lines.
    described = [
        {**describe(path, content), "rows": len(table)}
        for path, content, table in zip(paths, contents, tables, strict=True)
    ]
    return {"files": described}


def _read_source(path: Path, key: str) -> bytes:
    way_out = f"correct {key} in params.yaml"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {way_out}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a file; name the files in it: {way_out}") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; run `chmod u+r {path}`, or {way_out}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}); {way_out}") from None


def describe(path: Path, content: bytes) -> dict[str, Any]:
    """Provenance of one file; rows are its lines, blank ones included. sha256 and bytes are those of content."""
    return {
        "path": Path(path).as_posix(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows": content.count(b"\n") + (not content.endswith(b"\n")),
        "bytes": len(content),
    }


def write_generated(rows: Iterable[Mapping[str, str]], destination: Path) -> dict[str, Any]:
    """Writes rows of the embedded generator; path in the provenance is the file's name."""
    files.write_jsonl(destination, rows)
    return {"files": [describe(Path(destination.name), destination.read_bytes())]}


def download_hub(repo: str, config: str, revision: str, split: str, destination: Path) -> dict[str, Any]:
    """Writes the question and answer of every row of a data set of the Hugging Face Hub, at a pinned revision.

    Raises UserError, with the cause, if the hub can't be reached or doesn't have it.
    """
    # Imported here: it takes a second, and the other sources don't need it.
    import datasets

    name = f"{repo} ({config}, {split}) at revision {revision}"
    try:
        dataset = datasets.load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:  # errors of the hub, httpx, fsspec and Arrow have no common base
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{name}: could not be loaded from the Hugging Face Hub ({cause}); {_USE_JSONL}") from error
    missing = [column for column in ("question", "answer") if column not in dataset.column_names]
    if missing:
        raise UserError(f"{name}: has no column {' and '.join(missing)}; it has {', '.join(dataset.column_names)}")
    files.write_jsonl(destination, ({"question": row["question"], "answer": row["answer"]} for row in dataset))
    origin = {"repo": repo, "config": config, "revision": revision, "split": split}
    return {**origin, "files": [describe(Path(destination.name), destination.read_bytes())]}


def hold_out(train: Path, test: Path, *, rows: int) -> dict[str, Any]:
    """Moves the `rows` rows with the smallest hash from the train file to the test file, whatever their order.

    Returns the provenance of test. Raises UserError if no train row would be left.
    """
    lines = train.read_bytes().splitlines(keepends=True)
    if rows >= len(lines):
        raise UserError(f"data.hold_out_rows is {rows}, but the train files have {len(lines)} rows in all")
    chosen = set(sorted(range(len(lines)), key=lambda i: (hashlib.sha256(lines[i]).digest(), i))[:rows])
    parts = {
        test: b"".join(line for i, line in enumerate(lines) if i in chosen),
        train: b"".join(line for i, line in enumerate(lines) if i not in chosen),
    }
    for path, content in parts.items():
        files.write_bytes(path, content)
    return {"test": {"held_out_of": "train", "files": [describe(Path(test.name), parts[test])]}}
