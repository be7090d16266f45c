"""One checkpoint for new faces from the folds of a leave-one-subject-out run."""

from __future__ import annotations

from pathlib import Path

from merba.checkpoint import Checkpoint, join_checkpoints, load_checkpoint
from merba.errors import MerbaError


def ensemble_of_folds(folder: Path) -> Checkpoint:
    """An ensemble of every fold's model.safetensors under `results/folds/EXPERIMENT`.

    Raises MerbaError where there is none, where a trained fold lacks its weights, or where the folds differ in more than
    weights, normalisation and the subject left out.
    """
    paths = sorted(folder.glob("*/*/model.safetensors"))
    trained = {path.parent for path in folder.glob("*/*/predictions.parquet")}
    missing = sorted(f"{fold.parent.name}/{fold.name}" for fold in trained - {path.parent for path in paths})
    if missing or not paths:
        what = f"{len(missing)} of {len(trained)} folds have no model.safetensors ({', '.join(missing[:5])})"
        raise MerbaError(
            f"{folder}: {what if missing else 'no fold in it has a model.safetensors'}; train with `keep_weights: true`, "
            "and name the folder of one experiment, such as results/folds/merba"
        )
    return join_checkpoints({path: load_checkpoint(path) for path in paths})
