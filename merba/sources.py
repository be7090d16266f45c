"""The files that clips are read from, as planning sees them: one that is mended must rerun its subject."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from merba.errors import ClipProblem
from merba.frames import frame_names


def file_states(rows: pd.DataFrame) -> list[str]:
    """Names, sizes and times of change of each row's files: its frames from onset to offset, its video or flow image.

    Nothing is opened. A file that is missing has no state, so that one changes when the file comes.
    """
    numbers_of = cache(_numbered)  # the clips of one long video share its folder
    states = []
    for row in rows.itertuples():
        first, last = row.onset if pd.notna(row.onset) else -1, row.offset if pd.notna(row.offset) else float("inf")
        files = numbers_of(row.source).items() if row.kind == "frames" else [(first, row.source)]
        states.append("\n".join(_state(Path(path)) for number, path in files if first <= number <= last))
    return states


def _numbered(folder: str) -> dict[int, str]:
    """Paths of a folder's frames by number; none where it can't be used, which its own job will say."""
    try:
        return {number: f"{folder}/{name}" for number, name in frame_names(Path(folder)).items()}
    except ClipProblem:
        return {}


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"
