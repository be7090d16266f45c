"""The confusion matrix of an experiment, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.evaluation.figures import plot_confusion
from merba.evaluation.paper_tables import confusion_table
from merba.files import atomic
from merba.joblog import job_log
from merba.protocols import honest_name


def run(
    predictions: Sequence[str],
    experiment: Mapping[str, Any],
    split: str | None,
    data: str,
    *,
    matrix: str,
    table: str,
    figure: str,
    log: str,
) -> None:
    """Write the matrix of an experiment's predictions, or of those of one test set (`split`)."""
    with job_log(log, f"confusion matrix {matrix}"):
        rows = pd.concat([pd.read_parquet(path) for path in predictions], ignore_index=True)
        if split is not None:
            rows = rows[rows["split"] == split]
        counts = confusion_table(rows, honest_name(experiment))
        with atomic(Path(table)) as draft:
            counts.to_csv(draft)
        about = [experiment["method"], *([split.replace("_", " ")] if split else []), f"data: {data}"]
        with atomic(Path(figure)) as draft:
            plot_confusion(counts, title=", ".join(about), path=draft)
