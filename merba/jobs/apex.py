"""Find the apexes of one subject's clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.apex import apexes_of_subject
from merba.sheet import from_plain_rows


def run(
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    face_settings: Mapping[str, Any],
    *,
    faces: str,
    output: str,
    log: str,
) -> None:
    """Write `apexes_of_subject` for the plain rows of a subject; its faces are in the file `faces`."""
    with job_log(log, f"apexes of {rows[0]['dataset']} {rows[0]['subject']}"):
        apexes = apexes_of_subject(from_plain_rows(rows), pd.read_parquet(faces), settings, face_settings)
        with atomic(Path(output)) as draft:
            apexes.to_parquet(draft, index=False)
