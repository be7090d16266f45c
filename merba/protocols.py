"""Who is trained on and who is tested: leave-one-subject-out, and the held-out training subjects.

A split is a function of the sheet and the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from merba.errors import MerbaError


@dataclass(frozen=True)
class Split:
    """Row positions, int64, of a fold's training, validation and test clips; validation may be empty."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def loso_subjects(sheet: pd.DataFrame, datasets: list[str], most_clips: int | None = None) -> list[tuple[str, str]]:
    """The (dataset, subject) pairs of a composite, one a fold; or only the `most_clips` with most clips.

    A subject is (dataset, subject): ids repeat across datasets.
    """
    sizes = sheet[sheet["dataset"].isin(datasets)].groupby(["dataset", "subject"]).size()
    if most_clips is not None:
        sizes = sizes.sort_values(ascending=False, kind="stable").head(most_clips).sort_index()
    return list(sizes.index)


def loso_split(sheet: pd.DataFrame, dataset: str, subject: str, *, stopping: str, seed: int) -> Split:
    """The fold that tests (dataset, subject) and trains on everybody else in `sheet` (columns dataset, subject, label).

    With `stopping` "validation" a tenth of the training clips, of subjects of their own, is held out (see
    `hold_out_subjects`); with "none" the validation part is empty. Raises MerbaError for a subject without clips,
    or one whose absence leaves nobody to train on.
    """
    is_test = ((sheet["dataset"] == dataset) & (sheet["subject"] == subject)).to_numpy()
    test, rest = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    if not len(test):
        raise MerbaError(f"{dataset} {subject}: no usable clips to test on; see results/problems.csv")
    if not len(rest):
        raise MerbaError(f"{dataset} {subject}: leaving this subject out leaves nobody to train on")
    if stopping == "none":
        return Split(rest, np.empty(0, np.int64), test)
    people = (sheet["dataset"] + "/" + sheet["subject"]).to_numpy(str)[rest]
    train, held_out = hold_out_subjects(sheet["label"].to_numpy(str)[rest], people, seed=seed)
    return Split(rest[train], rest[held_out], test)


def hold_out_subjects(labels: np.ndarray, subjects: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (training, validation): about a tenth of the clips, subject-disjoint, stratified by class.

    With fewer than ten subjects one of them is held out, and with two, half. Raises MerbaError for a single one.
    """
    people = len(np.unique(subjects))
    if people < 2:
        raise MerbaError("validation needs at least two training subjects; use `stopping: none` or add subjects")
    folds = StratifiedGroupKFold(n_splits=min(10, people), shuffle=True, random_state=seed)
    # The splitter warns of a class with fewer clips than folds; a held-out part without that class is what follows.
    train, held_out = next(folds.split(np.zeros(len(labels)), _codes(labels, folds.n_splits), subjects))
    return train, held_out


def _codes(labels: np.ndarray, folds: int) -> np.ndarray:
    """Labels for the splitter, which refuses data in which every class is rarer than its folds: then all are one."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return codes if counts.max() >= folds else np.zeros_like(codes)
