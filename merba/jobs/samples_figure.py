"""A figure of a few clips of a dataset on their way from frames to flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.apex import UNITS
from merba.preprocessing.figures import plot_samples
from merba.sheet import subject_rows


def run(
    dataset: str,
    subject: str,
    face_settings: Mapping[str, Any],
    curve: str,
    *,
    samples: str,
    faces: str,
    apexes: str,
    flow: str,
    output: str,
    log: str,
) -> None:
    """Draw one clip of each class of a subject, by its safe id, from the stages' files; `curve` is the apex's setting."""
    with job_log(log, f"sample figure of {dataset}"):
        rows = subject_rows(pd.read_parquet(samples), dataset, subject)
        chosen = rows.drop_duplicates("label").index
        with np.load(flow) as file, atomic(Path(output)) as draft:
            arrays = {name: file[name][chosen] for name in ("flow", "head_motion", "problem")}
            plot_samples(
                rows.loc[chosen],
                pd.read_parquet(faces).loc[chosen],
                pd.read_parquet(apexes).loc[chosen],
                arrays | {"channels": file["channels"]},
                face_settings=face_settings,
                unit=UNITS[curve],
                path=draft,
            )
