"""Writing files so that a half-written one is never taken for a whole one, and checksums of what was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLD_FILES = {
    "predictions": "predictions.parquet",
    "every_epoch": "every_epoch.parquet",
    "history": "history.csv",
    "split": "split.csv",
    "record": "run.json",
}
"""What the folder of a trained fold holds; and WEIGHTS, with `keep_weights`."""
WEIGHTS = "model.safetensors"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; renamed to `path` when the block succeeds, removed when it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, because numpy and matplotlib choose the format by it.
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
