"""A figure of a view's frames of a few clips of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.views.clips import shown_view, views_of_clips
from merba.preprocessing.views.figures import plot_view
from merba.preprocessing.views.settings import ViewSettings
from merba.sheet import subject_rows


def run(
    dataset: str,
    subject: str,
    view: Mapping[str, Any],
    face_settings: Mapping[str, Any],
    flow_settings: Mapping[str, Any] | None,
    *,
    samples: str,
    faces: str,
    apexes: str,
    output: str,
    log: str,
) -> None:
    """Draw the view of one clip per class of a subject (a safe id), made again from the frames."""
    with job_log(log, f"figure of view {view['name']} of {dataset}"):
        rows, settings = subject_rows(pd.read_parquet(samples), dataset, subject), shown_view(ViewSettings(**view))
        chosen = rows.drop_duplicates("label").index
        tables = (pd.read_parquet(path).loc[chosen] for path in (faces, apexes))
        clips = views_of_clips(rows.loc[chosen], *tables, settings, face_settings, flow_settings=flow_settings)
        with atomic(Path(output)) as draft:
            plot_view(rows.loc[chosen], clips, settings, draft)
