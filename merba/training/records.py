"""What a fold writes: tables of its clips and epochs, and the record of what was trained, on which data and machine."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

import merba
from merba.protocols import honest_name
from merba.sheet import KEY
from merba.training.inputs import FoldData
from merba.training.loading import Fold
from merba.training.loop import FoldResult
from merba.training.resume import Selection


def seed_tables(experiment: Mapping[str, Any], fold: Fold, results: Mapping[int, FoldResult]) -> dict[str, pd.DataFrame]:
    """The tables among FOLD_FILES that have rows of each seed: history, every_epoch, predictions."""
    history = [{"seed": seed, **row} for seed, result in results.items() for row in result.history]
    test = fold.clips.iloc[fold.split.test].reset_index(drop=True)
    predictions = [
        _prediction_rows(test, seed, selection, chosen, fold.classes)
        for seed, result in results.items()
        for selection, chosen in ((honest_name(experiment), result.honest), ("oracle", result.oracle))
        if chosen is not None
    ]
    return {
        "history": pd.DataFrame(history),
        "every_epoch": _every_epoch_rows(fold, results),
        "predictions": pd.concat(predictions, ignore_index=True),
    }


def seed_record(result: FoldResult) -> dict[str, Any]:
    """The record's entry of one training."""
    about = {
        "epoch": result.honest.epoch,
        **({"oracle_epoch": result.oracle.epoch} if result.oracle else {}),
        "epochs": len(result.history),
        "weights_sha256": result.weights_sha256,
        "training_seconds": round(result.seconds, 3),
    }
    return about | ({"chosen": result.chosen} if result.chosen else {})


def fold_record(experiment: Mapping[str, Any], fold: Fold, data: FoldData) -> dict[str, Any]:
    """What was trained, and on what."""
    return {
        "digest": fold.digest,
        "experiment": dict(experiment),
        "dataset": fold.dataset,
        "subject": fold.subject,
        "classes": fold.classes,
        "clips": {part: len(getattr(fold.split, part)) for part in ("train", "validation", "test")},
        "validation_subjects": _people(fold.clips.iloc[fold.split.validation]),
        "normalisation": {"mean": data.mean, "std": data.std},
        "inputs": fold.inputs,
        "code": fold.code,
    }


def made_by(config: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What a result may depend on besides the fold; a fold never mixes results that differ in this."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": config["threads"],
        "versions": {
            "merba": merba.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def peak_memory_mb() -> int:
    """The most memory that this process has held, MB."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest // (1024**2 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kB


def _every_epoch_rows(fold: Fold, results: Mapping[int, FoldResult]) -> pd.DataFrame:
    """Predicted class of every test clip after every epoch."""
    test = fold.clips.iloc[fold.split.test][KEY]
    classes = np.array(fold.classes, dtype=object)
    parts = []
    for seed, result in results.items():
        epochs = len(result.every_epoch)
        part = pd.concat([test] * epochs, ignore_index=True)
        part["seed"], part["epoch"] = seed, np.repeat(np.arange(1, epochs + 1), len(test))
        part["predicted"] = pd.Series(classes[result.every_epoch.ravel()], dtype="str")  # also if there are none
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _prediction_rows(test: pd.DataFrame, seed: int, selection: str, chosen: Selection, classes: Sequence[str]) -> pd.DataFrame:
    """A seed's rows of the predictions: clip, true, predicted, every class's probability, epoch, selection."""
    rows = test[[*KEY, "split"]].assign(
        seed=seed,
        selection=selection,
        epoch=chosen.epoch,
        true=test["label"],
        predicted=pd.Series([classes[code] for code in chosen.predicted], dtype="str"),  # also if there are none
    )
    for code, name in enumerate(classes):
        rows[f"p_{name}"] = chosen.probabilities[:, code]
    return rows


def _people(clips: pd.DataFrame) -> list[str]:
    return sorted((clips["dataset"] + "/" + clips["subject"]).unique())
