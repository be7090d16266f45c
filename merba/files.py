"""Writing files so that a half-written one is never mistaken for a complete one, reading tables, and checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from merba.errors import MerbaError

if TYPE_CHECKING:
    import pandas as pd

FOLD_FILES = {
    "predictions": "predictions.parquet",
    "every_epoch": "every_epoch.parquet",
    "history": "history.csv",
    "split": "split.csv",
    "record": "run.json",
}
"""The files in the folder of a trained fold; with `keep_weights` also WEIGHTS."""
WEIGHTS = "model.safetensors"
REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
}
"""Errors that mean: disk full, not allowed to write, or something else already has that path."""
DRAFT = ".draft-"
"""The beginning of unfinished files' names."""
IDLE = 3600.0
"""Seconds; no writer pauses that long between two writes."""


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """An empty file next to `path` to write to; renamed to `path` when the block succeeds, removed when it fails.

    Several processes, also on different machines, can write the same file: each has its own draft. `remove_drafts` removes
    those of killed processes. Raises MerbaError that names `path` if the disk is full or the folder can't be written to.
    """
    path = Path(path)
    # The suffix stays last, because numpy and matplotlib choose the format by it.
    draft = path.with_name(f"{DRAFT}{uuid4().hex[:12]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
        mode = draft.stat().st_mode  # as umask says; some writers use another (safetensors: 600)
        yield draft
        draft.chmod(mode)
        draft.replace(path)
    except Exception as error:
        if (refusal := _refusal(error, draft)) is None:
            raise
        raise MerbaError(
            f"{path} can't be written: {refusal}; free some space, allow writing there or choose another folder, "
            "then run the same command again"
        ) from error
    finally:
        with suppress(OSError):  # a folder that can't be written to has no draft
            draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove the drafts of killed writers below `folder`: those not written to for IDLE seconds.

    Newer ones may belong to a job that is still running, perhaps on another machine.
    """
    latest = time.time() - IDLE
    for draft in folder.rglob(f"{DRAFT}*"):
        with suppress(OSError):  # finished meanwhile, or another user's
            if draft.stat().st_mtime < latest:
                draft.unlink()


def _refusal(error: Exception, draft: Path) -> str | None:
    """Why the file system refuses to write the draft; None if the error is about something else."""
    if isinstance(error, OSError):
        of_another = error.filename is not None and Path(error.filename) not in (draft, *draft.parents)
        return None if of_another or error.errno not in REFUSALS else os.strerror(error.errno)
    # PyTorch and safetensors have errors of their own.
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) or shutil.disk_usage(draft.parent).free < 2**20 else None


def read_parquet(path: Path) -> pd.DataFrame:
    """A table that a stage wrote. Raises MerbaError that names the file if it can't be read."""
    import pandas as pd  # most users of this module read no table

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise MerbaError(f"{path} can't be read ({error}); copy it again, or delete it and run the same command again") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; computed again when its time or size changes."""
    state = Path(path).stat()
    return _checksum(Path(path).resolve(), state.st_mtime_ns, state.st_size)


@cache
def _checksum(path: Path, time_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
