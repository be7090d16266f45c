"""Which subjects train and which test: leave-one-subject-out, DFME's own splits, all subjects, and held-out training subjects.

A split depends only on the sheet and the seed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from merba.errors import MerbaError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Row positions, int64, of a fold's training, validation and test clips; validation may be empty."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


HOLDOUT = "holdout"
"""The name used instead of a subject in the only fold of an experiment with protocol holdout."""
TESTS = ("test_a", "test_b")
EVERYBODY = "everybody"
"""The protocol of a model for new faces: trained on every clip, tested on none. No experiment has it."""


def folds(sheet: pd.DataFrame, experiment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The (dataset, subject) pairs that name an experiment's folds; holdout has one, of its first dataset.

    `experiment` comes from `merba.config.experiment_settings`. Raises MerbaError where holdout meets a dataset without
    a training or a test split.
    """
    if experiment["protocol"] == "loso":
        most = None if experiment["folds"] == "all" else experiment["folds"]["most_clips"]
        return loso_subjects(sheet, experiment["datasets"], most)
    for dataset in experiment["datasets"]:
        splits = set(sheet.loc[sheet["dataset"] == dataset, "split"])
        if "train" not in splits or not splits & set(TESTS):
            raise MerbaError(
                f"protocol holdout needs clips of split train and of test_a or test_b; dataset {dataset} has "
                f"{', '.join(sorted(splits))}: use `protocol: loso`, or an adapter that knows the splits (dfme)"
            )
    return [(experiment["datasets"][0], HOLDOUT)]


def honest_name(experiment: Mapping[str, Any]) -> str:
    """What the honest selection is called in predictions and tables: `validation` or `last` (epoch)."""
    return "validation" if experiment["stopping"] == "validation" else "last"


def make_split(clips: pd.DataFrame, protocol: str, dataset: str, subject: str, *, stopping: str, seed: int) -> Split:
    """The split of one fold of `folds`: see `loso_split` and `holdout_split`; with EVERYBODY all clips are trained on."""
    if protocol == EVERYBODY:
        return Split(np.arange(len(clips)), np.empty(0, np.int64), np.empty(0, np.int64))
    if protocol == "loso":
        return loso_split(clips, dataset, subject, stopping=stopping, seed=seed)
    return holdout_split(clips, stopping=stopping, seed=seed)


def loso_subjects(sheet: pd.DataFrame, datasets: list[str], most_clips: int | None = None) -> list[tuple[str, str]]:
    """The (dataset, subject) pairs of a composite, one a fold; or only the `most_clips` with most clips.

    A subject is (dataset, subject): ids repeat across datasets.
    """
    sizes = sheet[sheet["dataset"].isin(datasets)].groupby(["dataset", "subject"]).size()
    if most_clips is not None:
        sizes = sizes.sort_values(ascending=False, kind="stable").head(most_clips).sort_index()
    return list(sizes.index)


def loso_split(sheet: pd.DataFrame, dataset: str, subject: str, *, stopping: str, seed: int) -> Split:
    """The fold that tests (dataset, subject) and trains on all others in `sheet` (columns dataset, subject, label).

    With `stopping` "validation" a tenth of the training clips, of subjects of their own, is held out (see
    `hold_out_subjects`); with "none" the validation part is empty, and so is the test part of a subject none of whose clips
    are usable. Raises MerbaError for a subject without whom there is no one to train on.
    """
    is_test = ((sheet["dataset"] == dataset) & (sheet["subject"] == subject)).to_numpy()
    test, rest = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    if not len(rest):
        raise MerbaError(f"{dataset} {subject}: without this subject there is no one to train on")
    # From fold to fold the parts take turns. The first part would mostly be the same people, because the splitter assigns
    # the largest and most uneven subjects first.
    number = loso_subjects(sheet, sorted(sheet["dataset"].unique())).index((dataset, subject)) if len(test) else 0
    return _with_validation(sheet, rest, test, stopping=stopping, seed=seed, part=number)


def holdout_split(sheet: pd.DataFrame, *, stopping: str, seed: int) -> Split:
    """Train on the clips of split `train` and test on those of `test_a` and `test_b` (column split), as DFME is divided."""
    train, test = (np.flatnonzero(sheet["split"].isin(names)) for names in (["train"], TESTS))
    if not len(train) or not len(test):
        raise MerbaError(f"holdout: {len(train)} usable training and {len(test)} test clips; see results/problems.csv")
    if both := shared_subjects(sheet):
        log.warning(
            "%d subjects are in both the training and the test part (%s): unless these are different people with the same "
            "name, the test scores are too good",
            len(both),
            ", ".join(both[:5]),
        )
    return _with_validation(sheet, train, test, stopping=stopping, seed=seed, part=0)


def shared_subjects(sheet: pd.DataFrame) -> list[str]:
    """The subjects, "dataset/subject", with clips of split `train` and of a test split, whom DFME's division should not have."""
    people = sheet["dataset"] + "/" + sheet["subject"]
    return sorted(set(people[sheet["split"] == "train"]) & set(people[sheet["split"].isin(TESTS)]))


def _with_validation(sheet: pd.DataFrame, rest: np.ndarray, test: np.ndarray, *, stopping: str, seed: int, part: int) -> Split:
    """Rows `rest` to train on, less, with `stopping` "validation", a tenth of them."""
    if stopping == "none":
        return Split(rest, np.empty(0, np.int64), test)
    people = (sheet["dataset"] + "/" + sheet["subject"]).to_numpy(str)[rest]
    train, held_out = hold_out_subjects(sheet["label"].to_numpy(str)[rest], people, seed=seed, part=part)
    return Split(rest[train], rest[held_out], test)


def hold_out_subjects(labels: np.ndarray, subjects: np.ndarray, *, seed: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (training, validation): about a tenth of the clips, subject-disjoint, stratified by class.

    `part` says which of the ten, counted round and round. With fewer than ten subjects one of them is held out, or a few,
    and with two, half. Raises MerbaError for a single one.
    """
    if len(np.unique(subjects)) < 2:
        raise MerbaError("validation needs at least two training subjects; use `stopping: none` or add subjects")
    parts = subject_parts(labels, subjects, 10, seed=seed)
    return parts[part % len(parts)]


def subject_parts(labels: np.ndarray, subjects: np.ndarray, count: int, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of (the others, a part) for each of `count` parts of the clips: subject-disjoint, stratified by class.

    There are fewer where there are fewer subjects, of whom there must be two.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # half a second that planning a workflow does not need

    folds = StratifiedGroupKFold(n_splits=min(count, len(np.unique(subjects))), shuffle=True, random_state=seed)
    # The splitter warns of a class with fewer clips than folds; a held-out part without that class is what follows.
    every = folds.split(np.zeros(len(labels)), _codes(labels, folds.n_splits), subjects)
    return [(others, part) for others, part in every if len(part)]  # few subjects can leave a part empty


def _codes(labels: np.ndarray, folds: int) -> np.ndarray:
    """Labels for the splitter, which refuses data in which every class is rarer than its folds: then all are one."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return codes if counts.max() >= folds else np.zeros_like(codes)
