"""List the problems and warnings of all clips, and sum up preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.head_warning import head_warning
from merba.preprocessing.packs import preprocessing_summary
from merba.sheet import KEY


def run(indexes: Sequence[str], size: int, head_motion: float, *, problems: str, warnings: str, summary: str, log: str) -> None:
    """Write, from the packs' `indexes`, the clips with problems, those with a `head_warning`, and each dataset's summary.

    `size` is the side of the aligned face in px, `head_motion` the share of it that the head may move without a warning.
    """
    with job_log(log, "problems and head motion of all clips"):
        clips = pd.concat([pd.read_parquet(path) for path in indexes], ignore_index=True)
        clips["warning"] = pd.Series([head_warning(length, size, head_motion) for length in clips["head_motion"]], dtype="str")
        for column, path in (("problem", problems), ("warning", warnings)):
            with atomic(Path(path)) as draft:
                clips.loc[clips[column].notna(), [*KEY, column]].to_csv(draft, index=False)
        with atomic(Path(summary)) as draft:
            preprocessing_summary(clips).to_csv(draft, index=False)
