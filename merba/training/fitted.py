"""Fitting one fold: methods with a solver instead of epochs, with settings that are chosen on the training subjects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merba.errors import MerbaError
from merba.evaluation.metrics import confusion, unweighted
from merba.models.fitted import FittedModel
from merba.protocols import Split, subject_parts
from merba.training.inputs import FoldData
from merba.training.loop import FoldResult, class_counts, classified, in_thread, predict, weights_digest
from merba.training.resume import Selection

log = logging.getLogger(__name__)

INNER_PARTS = 5
"""Parts of the training subjects, each of which is predicted from the others to choose among a method's settings."""


def fit_fold(
    build: Callable[[], FittedModel], data: FoldData, split: Split, subjects: np.ndarray, classes: int, *, seed: int
) -> FoldResult:
    """Fit the model of `build` on `split.train` and predict `split.test`, as `train_fold` does, but in one epoch, with no oracle.

    `subjects` (n,) has the subject of each clip.
    """
    started = time.perf_counter()
    model, chosen = fit_model(build, data, split.train, subjects, seed=seed)
    predicted, probabilities = np.empty(0, np.int64), np.empty((0, classes), np.float32)
    if len(split.test):
        predicted, probabilities = classified(predict(model, data, split.test, mirror_average=False))
    weights = model.state_dict()
    return FoldResult(
        Selection(1, predicted, probabilities),
        None,
        [{"epoch": 1}],
        predicted[None],
        weights,
        in_thread(weights_digest, weights),
        time.perf_counter() - started,
        chosen,
    )


def fit_model(
    build: Callable[[], FittedModel], data: FoldData, rows: np.ndarray, subjects: np.ndarray, *, seed: int
) -> tuple[FittedModel, dict[str, Any]]:
    """The model of `build`, fitted only to the clips `rows`, and what was chosen: `settings`, and `inner_uf1` of each candidate.

    Raises MerbaError if there are settings to choose, but only one subject to choose them on.
    """
    model = build().eval()
    class_counts(data.labels[torch.from_numpy(rows)], model.num_classes)
    features = model.features(data.inputs)
    settings, chosen = model.candidates[0], {}
    if len(model.candidates) > 1:
        scores = _inner_scores(model, features, data.labels, rows, subjects[rows], seed)
        settings = model.candidates[int(np.argmax(scores))]
        tried = [{**candidate, "uf1": round(score, 4)} for candidate, score in zip(model.candidates, scores, strict=True)]
        chosen = {"settings": dict(settings), "inner_uf1": tried}
        log.info("chosen on training subjects: %s", chosen["settings"])
    model.fit(features, data.labels, torch.from_numpy(rows), **settings)
    return model, chosen


def _inner_scores(
    model: FittedModel, features: Tensor, labels: Tensor, rows: np.ndarray, subjects: np.ndarray, seed: int
) -> list[float]:
    """UF1 of each candidate on the clips `rows`, of `subjects` (m,), each clip predicted from other subjects."""
    if len(np.unique(subjects)) < 2:
        raise MerbaError(
            f"{', '.join(model.candidates[0])} is chosen by cross-validation over training subjects, but there is only one; "
            "add subjects"
        )
    true = labels.numpy()[rows]
    parts = subject_parts(true, subjects, INNER_PARTS, seed=seed)
    scores = []
    for settings in model.candidates:
        predicted = np.empty_like(true)
        for others, part in parts:
            model.fit(features, labels, torch.from_numpy(rows[others]), **settings)
            predicted[part] = model.decide(features[torch.from_numpy(rows[part])]).argmax(1).numpy()
        scores.append(float(unweighted(confusion(true, predicted, model.num_classes))[0]))
    return scores
