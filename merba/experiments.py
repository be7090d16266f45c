"""Experiments: data + protocol + model + training; running one fold and writing what it found."""

from __future__ import annotations

import json
import logging
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import merba
from merba.errors import MerbaError
from merba.files import atomic, checksum
from merba.models import create_model
from merba.packs import load_packs
from merba.protocols import Split, loso_split
from merba.sheet import KEY, class_names, safe_id
from merba.training import FoldResult, Selection, TrainingSettings, choose_device, prepare, train_fold

log = logging.getLogger(__name__)


def run_fold(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    *,
    dataset: str,
    subject_id: str,
    sheet: pd.DataFrame,
    packs: Sequence[tuple[Path, Path]],
    predictions: Path,
    history: Path,
    record: Path,
) -> None:
    """Train the fold that tests one subject, once a seed, and write its predictions, history and record.

    `experiment` comes from `merba.config.experiment_settings`, `packs` are its datasets' (array, index) files.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    device = choose_device(config["device"])
    torch.set_num_threads(config["threads"])
    flow, clips, form = load_packs(packs)
    clips = clips.merge(sheet[[*KEY, "label"]], on=KEY, how="left", validate="one_to_one")
    subject = _subject_name(clips, dataset, subject_id)
    classes = class_names(sheet, experiment["datasets"])
    labels = clips["label"].map({name: code for code, name in enumerate(classes)}).to_numpy(np.int64)
    split = loso_split(clips, dataset, subject, stopping=experiment["stopping"], seed=config["seed"])
    if experiment["control"] == "zero_flow":
        flow = np.zeros_like(flow)

    arguments = {key: value for key, value in experiment["model"].items() if key != "name"}
    settings = TrainingSettings(**experiment["training"])
    results: dict[int, FoldResult] = {}
    for seed in experiment["seeds"]:
        seen = labels
        if experiment["control"] == "shuffled_labels":
            seen = shuffle_labels(labels, split, seed=config["seed"] + seed)

        def build() -> torch.nn.Module:
            return create_model(experiment["model"]["name"], len(classes), **arguments)

        data = prepare(
            flow,
            seen,
            split.train,
            form,
            shape=build().input_shape,
            normalise=settings.normalise,
            device=device,
        )
        results[seed] = train_fold(build, data, split, len(classes), settings, seed=config["seed"] + seed)
        log.info(
            "%s %s seed %d: epoch %d of %d, %.1f s",
            dataset,
            subject,
            seed,
            results[seed].honest.epoch,
            len(results[seed].history),
            results[seed].seconds,
        )

    test = clips.iloc[split.test].reset_index(drop=True)
    with atomic(history) as draft:
        rows = [{"seed": seed, **row} for seed, result in results.items() for row in result.history]
        pd.DataFrame(rows).to_csv(draft, index=False)
    with atomic(record) as draft:
        draft.write_text(
            json.dumps(
                {
                    "experiment": dict(experiment),
                    "dataset": dataset,
                    "subject": subject,
                    "classes": classes,
                    "clips": {part: len(getattr(split, part)) for part in ("train", "validation", "test")},
                    "validation_subjects": _people(clips.iloc[split.validation]),
                    "normalisation": {"mean": data.mean, "std": data.std},
                    "seeds": {
                        str(config["seed"] + seed): {
                            "epoch": result.honest.epoch,
                            "oracle_epoch": result.oracle.epoch,
                            "epochs": len(result.history),
                            "weights_sha256": result.weights_sha256,
                            "training_seconds": round(result.seconds, 3),
                        }
                        for seed, result in results.items()
                    },
                    "inputs": {path.name: checksum(path) for pair in packs for path in pair},
                    "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
                    "threads": config["threads"],
                    "versions": {
                        "merba": merba.__version__,
                        "python": platform.python_version(),
                        "torch": torch.__version__,
                        "numpy": np.__version__,
                    },
                    "seconds": round(time.perf_counter() - started, 3),
                    "cpu_seconds": round(time.process_time() - cpu_started, 3),
                    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                },
                indent=2,
            )
        )
    rows = [
        _prediction_rows(test, seed, selection, chosen, classes)
        for seed, result in results.items()
        for selection, chosen in ((honest_name(experiment), result.honest), ("oracle", result.oracle))
    ]
    with atomic(predictions) as draft:
        pd.concat(rows, ignore_index=True).to_parquet(draft, index=False)


def honest_name(experiment: Mapping[str, Any]) -> str:
    """What the honest selection is called in predictions and tables: `validation` or `last` (epoch)."""
    return "validation" if experiment["stopping"] == "validation" else "last"


def shuffle_labels(labels: np.ndarray, split: Split, *, seed: int) -> np.ndarray:
    """`labels` with those of the training and validation clips permuted; the test clips keep theirs."""
    rest = np.concatenate([split.train, split.validation])
    shuffled = labels.copy()
    shuffled[rest] = np.random.default_rng(seed).permutation(labels[rest])
    return shuffled


def _subject_name(clips: pd.DataFrame, dataset: str, subject_id: str) -> str:
    names = clips.loc[clips["dataset"] == dataset, "subject"].unique()
    for name in names:
        if safe_id(name) == subject_id:
            return name
    raise MerbaError(f"{dataset} {subject_id}: no usable clips to test on; see results/problems.csv")


def _people(clips: pd.DataFrame) -> list[str]:
    return sorted((clips["dataset"] + "/" + clips["subject"]).unique())


def _prediction_rows(test: pd.DataFrame, seed: int, selection: str, chosen: Selection, classes: Sequence[str]) -> pd.DataFrame:
    """The contract's predictions: clip, true, predicted, every class's probability, epoch, selection."""
    rows = test[KEY].assign(
        seed=seed,
        selection=selection,
        epoch=chosen.epoch,
        true=test["label"],
        predicted=[classes[code] for code in chosen.predicted],
    )
    for code, name in enumerate(classes):
        rows[f"p_{name}"] = chosen.probabilities[:, code]
    return rows
