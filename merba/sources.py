"""The files that clips are read from, as planning sees them: one that is mended must rerun its subject."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from merba.errors import ClipProblem
from merba.frames import frame_names


def file_state(rows: Iterable[Mapping[str, Any]]) -> str:
    """A short hash of names, sizes and times of change of the files that rows of the sheet are read from.

    Those are the frames from onset to offset (null: from the first, to the last), a video, or a flow image. Nothing is
    opened; a missing file is left out, so that the hash changes when it comes.
    """
    numbered = cache(_numbered)  # the clips of one long video share its folder
    state = hashlib.sha256()
    for row in rows:
        first, last = (end if row[key] is None else row[key] for key, end in (("onset", 0), ("offset", math.inf)))
        files = numbered(row["source"]) if row["kind"] == "frames" else {first: row["source"]}
        for path in (path for number, path in files.items() if first <= number <= last):
            state.update(_state(path).encode())
    return state.hexdigest()[:16]


def _numbered(folder: str) -> dict[int, str]:
    """Paths of a folder's frames by number; none where it can't be used, which its own job will say."""
    try:
        return {number: f"{folder}/{name}" for number, name in frame_names(Path(folder)).items()}
    except ClipProblem:
        return {}


def _state(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for every frame would triple the time
    except OSError:
        return ""
    return f"{path} {found.st_size} {found.st_mtime_ns}\n"
