"""Write the labels of an experiment's clips, and check that the experiment can be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merba.files import atomic
from merba.joblog import job_log
from merba.models import check_experiment, check_model, model_name
from merba.preprocessing.views.settings import ViewSettings
from merba.sheet import from_plain_rows


def run(plain_rows: Sequence[Mapping[str, Any]], experiment: Mapping[str, Any], output: str, *, log: str) -> None:
    """Check the settings of `experiment` (those that decide a fold), and write the plain rows unchanged."""
    with job_log(log, f"labels of {Path(output).stem}"):
        rows = from_plain_rows(plain_rows)
        classes = rows["label"].nunique()
        check_experiment(experiment, classes)
        if "view" in experiment:
            shape = check_model(experiment["model"], classes).input_shape
            ViewSettings(**experiment["view"]).check_model(model_name(experiment["model"]), shape)
        with atomic(Path(output)) as draft:
            rows.to_parquet(draft, index=False)
