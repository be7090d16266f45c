"""Training whole experiments in one process, from what the workflow's preprocessing packed."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.config import fold_settings, origin_of
from merba.costs import keeps_weights
from merba.errors import MerbaError
from merba.models import check_experiment
from merba.preprocessing.packs import check_packed
from merba.protocols import folds
from merba.sheet import class_names, safe_id
from merba.training.devices import keep_compiled
from merba.training.fold import is_finished, run_fold
from merba.training.loading import load_fold
from merba.training.packed import named_experiment, packed_sheet, packs_of

log = logging.getLogger(__name__)


def train_experiment(
    config: Mapping[str, Any],
    name: str,
    results: Path,
    *,
    origin: str,
    only: Sequence[tuple[str, str]] | None = None,
    done: Collection[tuple[str, int]] = (),
) -> int:
    """Train an experiment's folds, or `only` some (dataset, subject's safe id), one after the other in this process.

    For a machine without Snakemake: reads `results`/samples.parquet and `results`/packed, which the workflow's
    preprocessing wrote, and writes the workflow's files. Finished folds are skipped, and so are trainings among `done`
    (see `merba.evaluation.collect.finished_trainings`), which another machine did. `origin` is the configuration's file.
    Returns how many folds were trained.
    Raises MerbaError, as the workflow's gate does, if clips can't be used and the configuration doesn't drop them, or
    if two subjects have the same flow.
    """
    experiment, sheet, packs = packed_experiment(config, name, results)
    settings, whose = fold_settings(experiment), origin_of(config, origin)
    config = {**config, "keep_weights": keeps_weights(config)}
    check_packed([index for _, index in packs], drop=config["on_problem"] == "drop")
    every = [(dataset, safe_id(subject)) for dataset, subject in folds(sheet, experiment)]
    unknown = [f"{dataset}/{subject}" for dataset, subject in only or [] if (dataset, subject) not in every]
    if unknown:
        names = ", ".join(f"{dataset}/{subject}" for dataset, subject in every)
        raise MerbaError(f"experiment {name} has no fold {', '.join(unknown)}; it has {names}")
    keep_compiled(results / "compiled")
    trained, started = 0, time.monotonic()
    chosen = list(only or every)
    for number, (dataset, subject_id) in enumerate(chosen, start=1):
        fold = load_fold(config, settings, dataset=dataset, subject_id=subject_id, sheet=sheet, packs=packs)
        folder = results / "folds" / name / dataset / subject_id
        wanted = settings | {"seeds": [seed for seed in settings["seeds"] if (fold.digest, seed) not in done]}
        if wanted["seeds"] and not is_finished(folder, fold, wanted["seeds"], weights=config["keep_weights"]):
            progress, kept = (results / place / name / dataset / subject_id for place in ("progress", "trained"))
            run_fold(config, wanted, fold, folder, progress=progress, kept=kept, origin=whose)
            trained += 1
        left = (time.monotonic() - started) / number * (len(chosen) - number)
        log.info("%s: %d of %d folds done, about %.0f s left", name, number, len(chosen), left)
    return trained


def packed_experiment(
    config: Mapping[str, Any], name: str, results: Path
) -> tuple[dict[str, Any], pd.DataFrame, list[tuple[Path, Path]]]:
    """An experiment's settings, the sample sheet, and the (array, index) files of its datasets, from `results`.

    Raises MerbaError if the configuration has no such experiment, its model can't be made, or a file is missing.
    """
    sheet = packed_sheet(results)
    experiment = checked_experiment(config, name, sheet)
    return experiment, sheet, packs_of(experiment, results)


def checked_experiment(config: Mapping[str, Any], name: str, sheet: pd.DataFrame) -> dict[str, Any]:
    """An experiment's settings for the clips of `sheet`. Raises MerbaError if there is none, or its model can't be made."""
    experiment = named_experiment(config, name, sheet)
    check_experiment(experiment, len(class_names(sheet, experiment["datasets"])))
    return experiment
