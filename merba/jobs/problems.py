"""List the problems of all clips, and sum up preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.packs import preprocessing_summary
from merba.sheet import KEY


def run(indexes: Sequence[str], problems: str, summary: str, *, log: str) -> None:
    """Write the problems in the packs' `indexes`, and the summary of each dataset."""
    with job_log(log, "problems and head motion of all clips"):
        clips = pd.concat([pd.read_parquet(path) for path in indexes], ignore_index=True)
        with atomic(Path(problems)) as draft:
            clips.loc[clips["problem"].notna(), [*KEY, "problem"]].to_csv(draft, index=False)
        with atomic(Path(summary)) as draft:
            preprocessing_summary(clips).to_csv(draft, index=False)
