"""Train one fold of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.joblog import job_log
from merba.training.devices import keep_compiled
from merba.training.fold import run_fold
from merba.training.loading import load_fold


def run(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    *,
    name: str,
    dataset: str,
    subject: str,
    labels: str,
    arrays: Sequence[str],
    predictions: str,
    origin: Mapping[str, Any],
    log: str,
) -> None:
    """Train the fold of the experiment `name` that tests a subject, by its safe id; its files are written next to `predictions`.

    `origin` says which configuration the results are of (see `merba.config.origin_of`).
    """
    with job_log(log, f"fold {dataset} {subject} of {name}"):
        results = Path(predictions).parents[4]  # the path is results/folds/EXPERIMENT/DATASET/SUBJECT/predictions.parquet
        keep_compiled(results / "compiled")
        sheet, packs = pd.read_parquet(labels), [(Path(array), Path(array).with_suffix(".parquet")) for array in arrays]
        fold = load_fold(config, experiment, dataset=dataset, subject_id=subject, sheet=sheet, packs=packs)
        # Snakemake deletes outputs before a job and after a failed one, so a training keeps its saved state elsewhere.
        progress, kept = (results / place / name / dataset / subject for place in ("progress", "trained"))
        run_fold(config, experiment, fold, Path(predictions).parent, progress=progress, kept=kept, origin=origin)
