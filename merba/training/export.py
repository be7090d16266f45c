"""One checkpoint for new faces from the folds of a finished run: an ensemble of them, or one model of all clips."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from merba.config import fold_settings
from merba.errors import MerbaError
from merba.evaluation.scoring import scores_by_dataset
from merba.files import FOLD_FILES, WEIGHTS, read_parquet
from merba.protocols import EVERYBODY
from merba.training.checkpoint import Checkpoint, join_checkpoints, load_checkpoint
from merba.training.experiments import packed_experiment
from merba.training.fold import train_on_everybody
from merba.training.loading import load_fold
from merba.training.loop import weights_digest

log = logging.getLogger(__name__)
STALE = "run the workflow again, and delete the folds of subjects who are no longer in the sample sheet"


def ensemble_of_folds(folder: Path, model_file: Path | None = None) -> Checkpoint:
    """An ensemble of every fold's model.safetensors under `results/folds/EXPERIMENT`; `model_file` as in `load_checkpoint`.

    Raises MerbaError if there is no fold, if a trained fold's weights are missing, or if the folds were trained with different
    settings or on different clips.
    """
    paths = sorted(folder.glob(f"*/*/{WEIGHTS}"))
    trained = {path.parent for path in folder.glob(f"*/*/{FOLD_FILES['predictions']}")}
    missing = sorted(f"{fold.parent.name}/{fold.name}" for fold in trained - {path.parent for path in paths})
    if missing or not paths:
        what = f"{len(missing)} of {len(trained)} folds have no model.safetensors ({', '.join(missing[:5])})"
        raise MerbaError(
            f"{folder}: {what if missing else 'no fold in it has a model.safetensors'}; train with `keep_weights: true`, "
            "and name the folder of one experiment, such as results/folds/merba"
        )
    # Old folds remain of subjects who are no longer in the sheet, and of runs with other settings or code.
    records = {path.parent: _record(path.parent / FOLD_FILES["record"]) for path in paths}
    alike = {
        "inputs": "on different files",
        "experiment": "with different settings",
        "numbers": "from different seeds",
        "code": "by different code",
    }
    for key, what in alike.items():
        values = {str(record[key]): fold for fold, record in records.items()}
        if len(values) > 1:
            raise MerbaError(f"{' and '.join(map(str, values.values()))} were trained {what}; {STALE}")
    checkpoints = {path: load_checkpoint(path, model_file) for path in paths}
    for path, checkpoint in checkpoints.items():
        record = records[path.parent]
        _refuse_control(path.parent, record["experiment"])
        if weights_digest(checkpoint.members[0].weights) != next(iter(record["seeds"].values()))["weights_sha256"]:
            raise MerbaError(
                f"{path} holds the weights of another training than the {FOLD_FILES['record']} in its folder; {STALE}"
            )
    joined = join_checkpoints(checkpoints)
    return replace(joined, error=_error(records, joined.protocol))


def retrained(config: Mapping[str, Any], folder: Path) -> Checkpoint:
    """Train one model on every clip of the experiment with folds in `results/folds/EXPERIMENT`.

    It is trained like the folds, for the median of the epochs that they chose, with no subject held out. Its error can't be
    measured; the folds' error is the closest estimate. Raises MerbaError if there are no folds, or if settings or clips have
    changed since they were trained.
    """
    name, results = folder.resolve().name, folder.resolve().parents[1]
    experiment, sheet, packs = packed_experiment(config, name, results)
    _refuse_control(folder, experiment)
    settings = fold_settings(experiment)
    everybody = settings | {"protocol": EVERYBODY, "stopping": "none"}
    fold = load_fold(config, everybody, dataset="all", subject_id="all", sheet=sheet, packs=packs)
    records = {path: _record(path) for path in sorted(folder.glob(f"*/*/{FOLD_FILES['record']}"))}
    if not records:
        raise MerbaError(f"{folder}: no trained fold in it; name the folder of one experiment, such as results/folds/merba")
    now = {"experiment": settings, "inputs": fold.inputs, "code": fold.code}
    now["numbers"] = [str(config["seed"] + seed) for seed in settings["seeds"]]
    for path, record in records.items():
        if any(record[key] != value for key, value in now.items()):
            raise MerbaError(f"{path}: this fold was trained with other settings, clips or code; {STALE}")
    epochs = round(median(next(iter(record["seeds"].values()))["epoch"] for record in records.values()))
    log.info("%s: %d epochs, the median of %d folds, on %d clips", name, epochs, len(records), len(fold.clips))
    error = _error((path.parent for path in records), settings["protocol"])
    return replace(train_on_everybody(config, everybody, fold, epochs=epochs), error=error)


def _error(folds: Iterable[Path], protocol: str) -> dict[str, dict[str, float]] | None:
    """The scores of the folds in these folders; None if the protocol isn't leave-one-subject-out."""
    if protocol != "loso":
        return None
    return scores_by_dataset(pd.concat([read_parquet(fold / FOLD_FILES["predictions"]) for fold in folds]))


def _record(path: Path) -> dict[str, Any]:
    """A fold's training as its record has it; `numbers` are the seeds, counted from the configuration's."""
    try:
        record = json.loads(path.read_text())
        return {key: record[key] for key in ("experiment", "inputs", "code", "seeds")} | {"numbers": list(record["seeds"])}
    except (OSError, ValueError, KeyError) as error:
        raise MerbaError(f"{path} can't be read as a fold's record ({error!r}); train this fold again") from error


def _refuse_control(folder: Path, experiment: Mapping[str, Any]) -> None:
    if experiment["control"] != "none":
        raise MerbaError(f"{folder} is a control experiment ({experiment['control']}): its model is not for predictions")
