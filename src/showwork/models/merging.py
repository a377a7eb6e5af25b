"""Export of a trained model: its adapter merged, in the dtype that was asked for, and what rounding to it changed."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import ml_dtypes
import numpy as np

from showwork.models import adapters, checkpoints, hf_config, layout, tensors

_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def write(source: Path, folder: Path, *, dtype: str, start: Path | None) -> float | None:
    """Writes the model folder `source` to `folder` with merged weights of this dtype, a tensor at a time.

    The adapter stays beside them. Returns the share of the update, which is what training has added to the weights of
    the folder `start`, that rounding to the dtype loses: 1 - <rounded update, update> / <update, update>. None without
    a start, or where nothing was added.
    """
    header = checkpoints.read_header(source)
    shapes = {name: p.shape for name, p in layout.places(header.spec, vocabulary=header.vocabulary).items()}
    kept = total = 0.0
    with ExitStack() as opened:
        read, read_start = (
            adapters.merged(opened.enter_context(tensors.Tensors(path)).__getitem__, path) if path else None
            for path in (source, start)
        )
        assert read is not None

        def rounded(name: str) -> np.ndarray:
            nonlocal kept, total
            weight = read(name)
            found = weight.astype(_DTYPES[dtype])
            if read_start is not None:
                before = read_start(name).astype(np.float32)
                update = (weight.astype(np.float32) - before).ravel()
                kept += float(np.dot((found.astype(np.float32) - before).ravel(), update))
                total += float(np.dot(update, update))
            return found

        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.iterdir()):
            is_written = path.name == hf_config.FILE or path.name.startswith("model")
            if path.is_dir():
                shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
            elif not is_written:
                shutil.copyfile(path, folder / path.name)
        tensors.write(folder, shapes, rounded, dtype=dtype)
    hf_config.write(folder, header.spec, vocabulary=header.vocabulary, dtype=dtype)
    return 1 - kept / total if total else None
