"""Pack the flow of a dataset into one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from merba.joblog import job_log
from merba.preprocessing.packs import pack


def run(subjects: Sequence[str], array: str, index: str, *, log: str) -> None:
    """Join the subjects' files of flow."""
    with job_log(log, f"pack {Path(array).stem}"):
        pack([Path(path) for path in subjects], Path(array), Path(index))
