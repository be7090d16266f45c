"""One fold of an experiment: training or fitting it, and writing its results."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from merba.errors import MerbaError
from merba.files import FOLD_FILES, WEIGHTS, atomic
from merba.models import create_model, takes_pretrained
from merba.models.fitted import FittedModel
from merba.preprocessing.packs import RELEASED
from merba.protocols import EVERYBODY, Split
from merba.training.checkpoint import STAGES, Checkpoint, Member, describe_model, save_checkpoint
from merba.training.devices import training_device
from merba.training.earlier import earlier_seeds, keep_files, read_record
from merba.training.fitted import fit_fold, fit_model
from merba.training.inputs import FoldData, blank, prepare, prepare_view
from merba.training.loading import Fold, split_rows
from merba.training.loop import FoldResult, train_fold, train_without_test
from merba.training.records import fold_record, made_by, peak_memory_mb, seed_record, seed_tables
from merba.training.settings import TrainingSettings

log = logging.getLogger(__name__)


def run_fold(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    fold: Fold,
    folder: Path,
    *,
    progress: Path,
    kept: Path,
    origin: Mapping[str, Any],
) -> None:
    """Train or fit a fold, once per seed, and write FOLD_FILES into `folder`; with `keep_weights` the first seed's weights too.

    The files are also linked into the folder `kept`; seeds of the same fold that it already has are reused (see
    `earlier_seeds`). Trainings that last minutes save their state in the folder `progress`, under the fold's digest, and
    continue from there after an interruption; it is removed at the end. `origin` says which configuration the results come
    from (see `merba.config.origin_of`).
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    model, seeds = _outline(experiment, fold), experiment["seeds"]
    settings = _settings(experiment, model)
    _warn(fold, settings)
    _drop_other_states(progress, fold.digest)
    torch.set_num_threads(config["threads"])
    with _device(config, model) as device:
        maker = made_by(config, device)
        same = {"digest": fold.digest, **maker}
        earlier = earlier_seeds(kept, seeds, same=same, first=config["seed"], weights=config["keep_weights"])
        missing = [seed for seed in seeds if seed not in earlier.seeds]
        data, results = _train_seeds(config, experiment, fold, model, settings, missing, device, progress)

    tables = earlier.joined(seed_tables(experiment, fold, results) if results else {}, seeds)
    trained = earlier.seeds | {seed: seed_record(result) for seed, result in results.items()}
    record = fold_record(experiment, fold, data) | {
        "seeds": {str(config["seed"] + seed): trained[seed] for seed in seeds},
        "configuration": origin,
        **maker,
        "seconds": round(time.perf_counter() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu_started, 3),
        "peak_memory_mb": peak_memory_mb(),
    }
    first = results.get(seeds[0]) if config["keep_weights"] else None
    checkpoint = _checkpoint(config, experiment, fold, first.weights, data, settings) if first else None
    tables["split"] = split_rows(fold.clips, fold.split)
    _write(folder, kept, tables, record, checkpoint, keep_weights=config["keep_weights"])
    shutil.rmtree(progress, ignore_errors=True)


def _write(
    folder: Path,
    kept: Path,
    tables: Mapping[str, pd.DataFrame],
    record: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    *,
    keep_weights: bool,
) -> None:
    """Write FOLD_FILES and the weights, a new `checkpoint` or that of an earlier run in `kept`; the record last."""
    with suppress(OSError):  # if it can't be removed, writing it fails too and says why
        (folder / FOLD_FILES["record"]).unlink()  # it says which fold the other files belong to (see `is_finished`)
    if not keep_weights:
        (folder / WEIGHTS).unlink(missing_ok=True)  # those of an earlier training
    elif checkpoint:
        save_checkpoint(folder / WEIGHTS, checkpoint)
    elif not (folder / WEIGHTS).exists():
        with atomic(folder / WEIGHTS) as draft:
            shutil.copyfile(kept / WEIGHTS, draft)
    for name, table in tables.items():
        with atomic(folder / FOLD_FILES[name]) as draft:
            table.to_parquet(draft, index=False) if draft.suffix == ".parquet" else table.to_csv(draft, index=False)
    with atomic(folder / FOLD_FILES["record"]) as draft:
        draft.write_text(json.dumps(record, indent=2))
    keep_files(folder, kept)


def _warn(fold: Fold, settings: TrainingSettings) -> None:
    if not len(fold.split.test):
        log.warning(
            "%s %s has no usable clip (see results/problems.csv): it trains on all others, and the tables count one fold fewer",
            fold.dataset,
            fold.subject,
        )
    if settings.schedule == "cosine" and settings.warmup + settings.cooldown >= settings.epochs:
        log.warning(
            "warmup %d and cooldown %d leave none of %d epochs between them: the rate falls from its peak to its minimum at once",
            settings.warmup,
            settings.cooldown,
            settings.epochs,
        )


def _drop_other_states(progress: Path, digest: str) -> None:
    """Remove saved states of other settings, clips or code, which no training will use."""
    for state in progress.glob("*.pt"):
        if not state.name.startswith(digest):
            log.info("%s: dropped, because settings, clips or code have changed since it was saved", state)
            state.unlink()


def _train_seeds(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    fold: Fold,
    model: torch.nn.Module,
    settings: TrainingSettings,
    seeds: Sequence[int],
    device: torch.device,
    progress: Path,
) -> tuple[FoldData, dict[int, FoldResult]]:
    """The inputs of the fold, and the result of a training for each of `seeds`."""
    build = _builder(experiment, fold, model)
    data = _inputs(experiment, fold, model, settings, device)
    if experiment["control"] == "zero_flow":  # the inputs, because flow in image units is about 127 if nothing moves
        data = blank(data)
    results: dict[int, FoldResult] = {}
    for seed in seeds:
        shown, total = data, config["seed"] + seed
        if experiment["control"] == "shuffled_labels":
            labels = shuffle_labels(fold.labels, fold.split, seed=total)
            shown = replace(data, labels=torch.from_numpy(labels).to(device))
        resume = progress / f"{fold.digest}-{seed}.pt"
        result = _result(build, model, shown, fold, settings, seed=total, resume=resume)
        about = (fold.dataset, fold.subject, seed, result.honest.epoch, len(result.history), result.seconds)
        log.info("%s %s seed %d: epoch %d of %d, %.1f s", *about)
        results[seed] = result
    return data, results


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
    """Train the fold, or fit it if `model` is a FittedModel."""
    if isinstance(model, FittedModel):
        return fit_fold(build, data, fold.split, _owners(fold), len(fold.classes), seed=seed)
    return train_fold(build, data, fold.split, len(fold.classes), settings, seed=seed, resume=resume)


def is_finished(folder: Path, fold: Fold, seeds: Sequence[int], *, weights: bool) -> bool:
    """Whether `folder` holds this fold's results for these seeds and, with `weights`, the weights."""
    record = read_record(folder) or {}
    names = [*FOLD_FILES.values(), *([WEIGHTS] if weights else [])]
    same = record.get("digest") == fold.digest and record["experiment"]["seeds"] == list(seeds)
    return same and all((folder / name).exists() for name in names)


def train_on_everybody(config: Mapping[str, Any], experiment: Mapping[str, Any], fold: Fold, *, epochs: int) -> Checkpoint:
    """Train the experiment's model on all clips of `fold` (protocol EVERYBODY), with its first seed, for `epochs` epochs.

    A fitted model has no epochs.
    """
    torch.set_num_threads(config["threads"])
    model, rows = _outline(experiment, fold), fold.split.train
    build = _builder(experiment, fold, model)
    settings, seed = _settings(experiment, model), config["seed"] + experiment["seeds"][0]
    with _device(config, model) as device:
        data = _inputs(experiment, fold, model, settings, device)
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


def _builder(experiment: Mapping[str, Any], fold: Fold, model: torch.nn.Module) -> Callable[[], torch.nn.Module]:
    arguments = {key: value for key, value in experiment["model"].items() if key != "name"}
    if not takes_pretrained(experiment["model"].get("name"), model):
        arguments.pop("pretrained", None)  # the file of the view's encoder, from which this model doesn't start
    return partial(create_model, experiment["model"].get("name"), len(fold.classes), **arguments)


def _outline(experiment: Mapping[str, Any], fold: Fold) -> torch.nn.Module:
    """The model on the meta device: with shapes, but no values."""
    arguments = {key: value for key, value in experiment["model"].items() if key not in ("name", "pretrained")}
    with torch.device("meta"):
        return create_model(experiment["model"].get("name"), len(fold.classes), **arguments)


def _settings(experiment: Mapping[str, Any], model: torch.nn.Module) -> TrainingSettings:
    """The experiment's settings; a fitted model takes the flow as it is, and has no learning rate."""
    settings = TrainingSettings(**experiment["training"])
    if isinstance(model, FittedModel):
        return replace(settings, schedule="constant", normalise=False, mirror_average=False)
    return settings


def _device(config: Mapping[str, Any], model: torch.nn.Module) -> AbstractContextManager[torch.device]:
    """The device to train on. A fitted model uses the CPU: it is fast there, and the same on every machine."""
    wanted = "cpu" if isinstance(model, FittedModel) else config["device"]
    return training_device(wanted, deterministic=config["deterministic"])


def _owners(fold: Fold) -> np.ndarray:
    """The subject of each clip, "dataset/subject", (n,)."""
    return (fold.clips["dataset"] + "/" + fold.clips["subject"]).to_numpy(str)


def _inputs(
    experiment: Mapping[str, Any],
    fold: Fold,
    model: torch.nn.Module,
    settings: TrainingSettings,
    device: torch.device,
) -> FoldData:
    if "view" in experiment:
        shape, normalise = model.input_shape, settings.normalise
        parts = fold.flow, fold.labels, fold.split.train, fold.form
        return prepare_view(*parts, shape=shape, normalise=normalise, device=device)
    decode = experiment.get("decode", "raw")
    if fold.form.unit == "image" and decode == "raw" and getattr(model, "needs_direction", False):
        raise MerbaError(
            f"{experiment['model']['name']} needs directions, but flow images don't say where zero is: set `decode: signed`"
        )
    return prepare(
        fold.flow,
        fold.labels,
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
    stages = {stage: config[stage] for stage in STAGES}
    images = fold.form.unit == "image"  # ready-made; for new clips, these stages and RELEASED make similar ones
    if images:
        stages["flow"] = stages["flow"] | {"channels": ["u", "v"]}
    left_out = None if experiment["protocol"] == EVERYBODY else (fold.dataset, fold.subject)
    return Checkpoint(
        members=[Member(weights, data.mean, data.std, left_out)],
        model=describe_model(experiment["model"], weights),
        classes=fold.classes,
        form=fold.form,
        data=config["data"],
        protocol=experiment["protocol"],
        clips=fold.clips["dataset"].value_counts(sort=False).to_dict(),
        image=RELEASED if images else None,
        decode=experiment.get("decode", "raw"),
        mirror_average=settings.mirror_average,
        view=experiment.get("view"),
        **stages,
    )
