"""Writing files so that a half-written one is never taken for a whole one, and checksums of what was read."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from merba.errors import MerbaError

FOLD_FILES = {
    "predictions": "predictions.parquet",
    "every_epoch": "every_epoch.parquet",
    "history": "history.csv",
    "split": "split.csv",
    "record": "run.json",
}
"""What the folder of a trained fold holds; and WEIGHTS, with `keep_weights`."""
WEIGHTS = "model.safetensors"
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a file system says that has no room or must not be written to."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; renamed to `path` when the block succeeds, removed when it fails.

    The drafts that killed processes left of the same file go with it. Raises MerbaError that names `path` where the disk
    is full or the folder can't be written to.
    """
    path = Path(path)
    # The suffix stays last, because numpy and matplotlib choose the format by it.
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
        for left in path.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}", left.name):
                left.unlink(missing_ok=True)
    except Exception as error:
        if (refusal := _refusal(error, path.parent)) is None:
            raise
        raise MerbaError(
            f"{path} can't be written: {refusal}; make room or give leave, and run the same command again"
        ) from error
    finally:
        with suppress(OSError):  # a folder that can't be written to has no draft
            draft.unlink(missing_ok=True)


def _refusal(error: Exception, folder: Path) -> str | None:
    """Why the file system refuses, where that is what the error is about."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in REFUSALS else None
    # PyTorch and safetensors have errors of their own.
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) or shutil.disk_usage(folder).free < 2**20 else None


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
