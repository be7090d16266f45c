"""One fold of an experiment: loading it, training it, and writing what it found."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import merba
from merba.errors import MerbaError
from merba.files import FOLD_FILES, WEIGHTS, atomic, checksum
from merba.models import create_model
from merba.models.fitted import FittedModel
from merba.preprocessing.packs import FlowFormat, load_packs
from merba.protocols import EVERYBODY, Split, honest_name, make_split
from merba.sheet import KEY, class_names, safe_id
from merba.training.checkpoint import STAGES, Checkpoint, Member, describe_model, save_checkpoint
from merba.training.devices import training_device
from merba.training.fitted import AS_IT_IS, fit_fold, fit_model
from merba.training.inputs import FoldData, blank, prepare
from merba.training.loop import FoldResult, TrainingSettings, train_fold, train_without_test
from merba.training.resume import Selection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """One fold before training: all usable clips with their labels as class numbers, flow, split, and its digest.

    The digest is of everything that decides the result: settings, seed, split, labels, content of packs and pretrained weights.
    """

    dataset: str
    subject: str
    clips: pd.DataFrame
    labels: np.ndarray
    classes: list[str]
    flow: np.ndarray
    form: FlowFormat
    split: Split
    inputs: dict[str, str]
    digest: str


def load_fold(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    *,
    dataset: str,
    subject_id: str,
    sheet: pd.DataFrame,
    packs: Sequence[tuple[Path, Path]],
) -> Fold:
    """The fold of `experiment` (from `merba.config.fold_settings`) that tests one subject, by its safe id.

    `sheet` has the labels of all clips, usable or not; `packs` are the (array, index) files of the experiment's datasets.
    Other protocols than loso have a single fold. Raises MerbaError for a subject or a clip that the sheet doesn't have.
    """
    flow, clips, form = load_packs(packs)
    clips = clips.merge(sheet[[*KEY, "label", "split"]], on=KEY, how="left", validate="one_to_one")
    if clips["label"].isna().any():
        unknown = clips[clips["label"].isna()].iloc[0]
        raise MerbaError(
            f"{unknown['dataset']} {unknown['subject']} {unknown['clip']} is packed, but has no label in the sample sheet: "
            "one of the two is of an earlier run; run the workflow again"
        )
    subject = _subject_name(sheet, dataset, subject_id) if experiment["protocol"] == "loso" else subject_id
    classes = class_names(sheet, experiment["datasets"])
    labels = clips["label"].map({name: code for code, name in enumerate(classes)}).to_numpy(np.int64)
    split = make_split(clips, experiment["protocol"], dataset, subject, stopping=experiment["stopping"], seed=config["seed"])
    pretrained = experiment["model"].get("pretrained")
    files = [*(path for pair in packs for path in pair), *([Path(pretrained)] if pretrained else [])]
    inputs = {path.name: checksum(path) for path in files}
    decides = [experiment, config["seed"], classes, labels.tolist(), *(part.tolist() for part in astuple(split)), inputs]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return Fold(dataset, subject, clips, labels, classes, flow, form, split, inputs, digest)


def run_fold(config: Mapping[str, Any], experiment: Mapping[str, Any], fold: Fold, folder: Path, *, progress: Path) -> None:
    """Train a fold, once a seed, and write FOLD_FILES into `folder`; with `keep_weights` the first seed's weights too.

    Trainings that last minutes save their state in the folder `progress`, under the fold's digest, and go on from there
    when they were interrupted; it is emptied at the end.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    if not len(fold.split.test):
        log.warning(
            "%s %s has no usable clip (see results/problems.csv): all others are trained on, and the tables have one fold less",
            fold.dataset,
            fold.subject,
        )
    torch.set_num_threads(config["threads"])
    build, model = _builder(experiment, fold), _outline(experiment, fold)
    settings = _settings(experiment, model)
    if settings.schedule == "cosine" and settings.warmup + settings.cooldown >= settings.epochs:
        log.warning(
            "warmup %d and cooldown %d leave nothing of %d epochs: the rate falls from its peak to its minimum at once",
            settings.warmup,
            settings.cooldown,
            settings.epochs,
        )
    results: dict[int, FoldResult] = {}
    with _device(config, model) as device:
        for seed in experiment["seeds"]:
            labels = fold.labels
            if experiment["control"] == "shuffled_labels":
                labels = shuffle_labels(labels, fold.split, seed=config["seed"] + seed)
            data = _inputs(experiment, fold, labels, model, settings, device)
            if experiment["control"] == "zero_flow":  # the inputs: flow in image units is 127 or so where nothing moves
                data = blank(data)
            resume = progress / f"{fold.digest}-{seed}.pt"
            results[seed] = _result(build, model, data, fold, settings, seed=config["seed"] + seed, resume=resume)
            log.info(
                "%s %s seed %d: epoch %d of %d, %.1f s",
                fold.dataset,
                fold.subject,
                seed,
                results[seed].honest.epoch,
                len(results[seed].history),
                results[seed].seconds,
            )
        device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"

    with suppress(OSError):  # what can't be removed can't be written either, and says so then
        (folder / FOLD_FILES["record"]).unlink()  # it says of what fold the other files are (see `is_finished`)
    if config["keep_weights"]:
        save_checkpoint(
            folder / WEIGHTS, _checkpoint(config, experiment, fold, next(iter(results.values())).weights, data, settings)
        )
    for name, table in _tables(experiment, fold, results).items():
        with atomic(folder / FOLD_FILES[name]) as draft:
            table.to_parquet(draft, index=False) if draft.suffix == ".parquet" else table.to_csv(draft, index=False)
    record = _record(config, experiment, fold, results, data) | {
        "device": device_name,
        "seconds": round(time.perf_counter() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu_started, 3),
        "peak_memory_mb": _peak_memory_mb(),
    }
    with atomic(folder / FOLD_FILES["record"]) as draft:
        draft.write_text(json.dumps(record, indent=2))
    shutil.rmtree(progress, ignore_errors=True)


def _result(
    build: Callable[[], torch.nn.Module],
    model: torch.nn.Module,
    data: FoldData,
    fold: Fold,
    settings: TrainingSettings,
    *,
    seed: int,
    resume: Path,
) -> FoldResult:
    """What training the fold gives, or fitting it, by the kind of `model`."""
    if isinstance(model, FittedModel):
        return fit_fold(build, data, fold.split, _owners(fold), len(fold.classes), seed=seed)
    return train_fold(build, data, fold.split, len(fold.classes), settings, seed=seed, resume=resume)


def _tables(experiment: Mapping[str, Any], fold: Fold, results: Mapping[int, FoldResult]) -> dict[str, pd.DataFrame]:
    """The tables among FOLD_FILES."""
    history = [{"seed": seed, **row} for seed, result in results.items() for row in result.history]
    test = fold.clips.iloc[fold.split.test].reset_index(drop=True)
    predictions = [
        _prediction_rows(test, seed, selection, chosen, fold.classes)
        for seed, result in results.items()
        for selection, chosen in ((honest_name(experiment), result.honest), ("oracle", result.oracle))
    ]
    return {
        "history": pd.DataFrame(history),
        "split": _split_rows(fold),
        "every_epoch": _every_epoch_rows(fold, results),
        "predictions": pd.concat(predictions, ignore_index=True),
    }


def _record(
    config: Mapping[str, Any], experiment: Mapping[str, Any], fold: Fold, results: Mapping[int, FoldResult], data: FoldData
) -> dict[str, Any]:
    """What was trained, on what, and by which versions."""
    return {
        "digest": fold.digest,
        "experiment": dict(experiment),
        "dataset": fold.dataset,
        "subject": fold.subject,
        "classes": fold.classes,
        "clips": {part: len(getattr(fold.split, part)) for part in ("train", "validation", "test")},
        "validation_subjects": _people(fold.clips.iloc[fold.split.validation]),
        "normalisation": {"mean": data.mean, "std": data.std},
        "seeds": {
            str(config["seed"] + seed): {
                "epoch": result.honest.epoch,
                "oracle_epoch": result.oracle.epoch,
                "epochs": len(result.history),
                "weights_sha256": result.weights_sha256,
                "training_seconds": round(result.seconds, 3),
            }
            | ({"chosen": result.chosen} if result.chosen else {})
            for seed, result in results.items()
        },
        "inputs": fold.inputs,
        "threads": config["threads"],
        "versions": {
            "merba": merba.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _peak_memory_mb() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest // (1024**2 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kB


def is_finished(folder: Path, fold: Fold, *, weights: bool) -> bool:
    """Whether `folder` holds this fold's results, of the same settings and inputs, and the `weights` where they are wanted."""
    try:
        record = json.loads((folder / FOLD_FILES["record"]).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    names = [*FOLD_FILES.values(), *([WEIGHTS] if weights else [])]
    return record.get("digest") == fold.digest and all((folder / name).exists() for name in names)


def train_on_everybody(config: Mapping[str, Any], experiment: Mapping[str, Any], fold: Fold, *, epochs: int) -> Checkpoint:
    """A model of all clips of `fold` (of the protocol EVERYBODY), of the experiment's first seed, after so many epochs.

    One that is fitted, not trained, has no epochs.
    """
    torch.set_num_threads(config["threads"])
    build, rows = _builder(experiment, fold), fold.split.train
    model = _outline(experiment, fold)
    settings, seed = _settings(experiment, model), config["seed"] + experiment["seeds"][0]
    with _device(config, model) as device:
        data = _inputs(experiment, fold, fold.labels, model, settings, device)
        if isinstance(model, FittedModel):
            weights = fit_model(build, data, rows, _owners(fold), seed=seed)[0].state_dict()
        else:
            weights = train_without_test(build, data, rows, len(fold.classes), settings, epochs=epochs, seed=seed)
    return _checkpoint(config, experiment, fold, weights, data, settings)


def shuffle_labels(labels: np.ndarray, split: Split, *, seed: int) -> np.ndarray:
    """`labels` with those of the training and validation clips permuted; the test clips keep theirs."""
    rest = np.concatenate([split.train, split.validation])
    shuffled = labels.copy()
    shuffled[rest] = np.random.default_rng(seed).permutation(labels[rest])
    return shuffled


def _subject_name(sheet: pd.DataFrame, dataset: str, subject_id: str) -> str:
    for name in sheet.loc[sheet["dataset"] == dataset, "subject"].unique():
        if safe_id(name) == subject_id:
            return name
    raise MerbaError(f"the sample sheet has no subject {subject_id} in {dataset}")


def _builder(experiment: Mapping[str, Any], fold: Fold) -> Callable[[], torch.nn.Module]:
    arguments = {key: value for key, value in experiment["model"].items() if key != "name"}
    return partial(create_model, experiment["model"]["name"], len(fold.classes), **arguments)


def _outline(experiment: Mapping[str, Any], fold: Fold) -> torch.nn.Module:
    """The model without its numbers: says in no time what input it wants."""
    arguments = {key: value for key, value in experiment["model"].items() if key not in ("name", "pretrained")}
    with torch.device("meta"):
        return create_model(experiment["model"]["name"], len(fold.classes), **arguments)


def _settings(experiment: Mapping[str, Any], model: torch.nn.Module) -> TrainingSettings:
    return AS_IT_IS if isinstance(model, FittedModel) else TrainingSettings(**experiment["training"])


def _device(config: Mapping[str, Any], model: torch.nn.Module) -> AbstractContextManager[torch.device]:
    """What is fitted needs no GPU, and is the same everywhere without one."""
    wanted = "cpu" if isinstance(model, FittedModel) else config["device"]
    return training_device(wanted, deterministic=config["deterministic"])


def _owners(fold: Fold) -> np.ndarray:
    """Whose each clip is, "dataset/subject" (n,)."""
    return (fold.clips["dataset"] + "/" + fold.clips["subject"]).to_numpy(str)


def _inputs(
    experiment: Mapping[str, Any],
    fold: Fold,
    labels: np.ndarray,
    model: torch.nn.Module,
    settings: TrainingSettings,
    device: torch.device,
) -> FoldData:
    decode = experiment.get("decode", "raw")
    if fold.form.unit == "image" and decode == "raw" and getattr(model, "needs_direction", False):
        raise MerbaError(
            f"{experiment['model']['name']} reads directions, and flow images don't say where zero is: set `decode: signed`"
        )
    return prepare(
        fold.flow,
        labels,
        fold.split.train,
        fold.form,
        shape=model.input_shape,
        normalise=settings.normalise,
        device=device,
        decode=decode,
        arrange=getattr(model, "arrange", None),
        points=np.stack(fold.clips["points"]).reshape(-1, 5, 2),
    )


def _checkpoint(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    fold: Fold,
    weights: Mapping[str, Tensor],
    data: FoldData,
    settings: TrainingSettings,
) -> Checkpoint:
    # Ready-made flow has no preprocessing of ours that a checkpoint could name.
    ours = fold.form.unit == "px"
    left_out = None if experiment["protocol"] == EVERYBODY else (fold.dataset, fold.subject)
    return Checkpoint(
        members=[Member(weights, data.mean, data.std, left_out)],
        model=describe_model(experiment["model"], weights),
        classes=fold.classes,
        form=fold.form,
        data=config["data"],
        protocol=experiment["protocol"],
        decode=experiment.get("decode", "raw"),
        mirror_average=settings.mirror_average,
        **({stage: config[stage] for stage in STAGES} if ours else {}),
    )


def _split_rows(fold: Fold) -> pd.DataFrame:
    """Each clip's part in the fold: train, validation, test, or none of them."""
    rows = fold.clips[KEY].assign(part="none")
    for part in ("train", "validation", "test"):
        rows.iloc[getattr(fold.split, part), rows.columns.get_loc("part")] = part
    return rows


def _every_epoch_rows(fold: Fold, results: Mapping[int, FoldResult]) -> pd.DataFrame:
    """Predicted class of every test clip after every epoch."""
    test = fold.clips.iloc[fold.split.test][KEY]
    classes = np.array(fold.classes, dtype=object)
    parts = []
    for seed, result in results.items():
        epochs = len(result.every_epoch)
        part = pd.concat([test] * epochs, ignore_index=True)
        part["seed"], part["epoch"] = seed, np.repeat(np.arange(1, epochs + 1), len(test))
        part["predicted"] = pd.Series(classes[result.every_epoch.ravel()], dtype="str")  # also where there are none
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _people(clips: pd.DataFrame) -> list[str]:
    return sorted((clips["dataset"] + "/" + clips["subject"]).unique())


def _prediction_rows(test: pd.DataFrame, seed: int, selection: str, chosen: Selection, classes: Sequence[str]) -> pd.DataFrame:
    """The contract's predictions: clip, true, predicted, every class's probability, epoch, selection."""
    rows = test[[*KEY, "split"]].assign(
        seed=seed,
        selection=selection,
        epoch=chosen.epoch,
        true=test["label"],
        predicted=pd.Series([classes[code] for code in chosen.predicted], dtype="str"),  # also where there are none
    )
    for code, name in enumerate(classes):
        rows[f"p_{name}"] = chosen.probabilities[:, code]
    return rows
