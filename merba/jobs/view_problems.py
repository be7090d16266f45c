"""List the problems of a view's clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.sheet import KEY


def run(indexes: Sequence[str], output: str, *, log: str) -> None:
    """Write the problems of the clips in a view's packs, from the packs' `indexes`."""
    with job_log(log, f"problems of view {Path(output).parent.name}"):
        clips = pd.concat([pd.read_parquet(path) for path in indexes], ignore_index=True)
        with atomic(Path(output)) as draft:
            clips.loc[clips["problem"].notna(), [*KEY, "problem"]].to_csv(draft, index=False)
