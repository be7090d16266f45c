"""Find the faces of one subject's clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.faces import faces_of_subject
from merba.sheet import from_plain_rows


def run(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], output: str, *, log: str) -> None:
    """Write `faces_of_subject` of the plain rows of a subject."""
    with job_log(log, f"faces of {rows[0]['dataset']} {rows[0]['subject']}"):
        faces = faces_of_subject(from_plain_rows(rows), settings)
        with atomic(Path(output)) as draft:
            faces.to_parquet(draft, index=False)
