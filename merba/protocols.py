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
    """The (dataset, subject) pairs that name an experiment's folds; holdout has one fold, named after its first dataset.

    `experiment` comes from `merba.config.experiment_settings`. Raises MerbaError if the protocol is holdout and a dataset has
    no training or no test split.
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
    """The name of the honest choice of epoch in predictions and tables: `validation` or `last`."""
    return "validation" if experiment["stopping"] == "validation" else "last"


def make_split(clips: pd.DataFrame, protocol: str, dataset: str, subject: str, *, stopping: str, seed: int) -> Split:
    """The split of one fold of `folds`: see `loso_split` and `holdout_split`; with EVERYBODY all clips are trained on."""
    if protocol == EVERYBODY:
        return Split(np.arange(len(clips)), np.empty(0, np.int64), np.empty(0, np.int64))
    if protocol == "loso":
        return loso_split(clips, dataset, subject, stopping=stopping, seed=seed)
    return holdout_split(clips, stopping=stopping, seed=seed)


def loso_subjects(sheet: pd.DataFrame, datasets: list[str], most_clips: int | None = None) -> list[tuple[str, str]]:
    """The (dataset, subject) pairs of a composite, one per fold; with `most_clips`, only that many, those with the most clips.

    A subject is (dataset, subject), because ids repeat across datasets.
    """
    sizes = sheet[sheet["dataset"].isin(datasets)].groupby(["dataset", "subject"]).size()
    if most_clips is not None:
        sizes = sizes.sort_values(ascending=False, kind="stable").head(most_clips).sort_index()
    return list(sizes.index)


def loso_split(sheet: pd.DataFrame, dataset: str, subject: str, *, stopping: str, seed: int) -> Split:
    """The fold that tests (dataset, subject) and trains on all others in `sheet` (columns dataset, subject, label).

    With `stopping` "validation", about a tenth of the training clips is held out, by subject (see `hold_out_subjects`); with
    "none", the validation part is empty. The test part is empty if the subject has no usable clip. Raises MerbaError if there
    is no other subject to train on.
    """
    is_test = ((sheet["dataset"] == dataset) & (sheet["subject"] == subject)).to_numpy()
    test, rest = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    if not len(rest):
        raise MerbaError(f"{dataset} {subject}: without this subject there is no one to train on")
    # Each fold holds out the next part in turn. The first part would mostly be the same people, because the splitter assigns
    # the largest and most uneven subjects first.
    number = loso_subjects(sheet, sorted(sheet["dataset"].unique())).index((dataset, subject)) if len(test) else 0
    return _with_validation(sheet, rest, test, stopping=stopping, seed=seed, part=number)


def holdout_split(sheet: pd.DataFrame, *, stopping: str, seed: int) -> Split:
    """Train on the clips of split `train` and test on those of `test_a` and `test_b` (column split), as DFME is divided.

    Raises MerbaError if there are no clips to train on or to test.
    """
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
    """The subjects ("dataset/subject") with clips both of split `train` and of a test split; there should be none."""
    people = sheet["dataset"] + "/" + sheet["subject"]
    return sorted(set(people[sheet["split"] == "train"]) & set(people[sheet["split"].isin(TESTS)]))


def _with_validation(sheet: pd.DataFrame, rest: np.ndarray, test: np.ndarray, *, stopping: str, seed: int, part: int) -> Split:
    """The split that trains on rows `rest`; with `stopping` "validation", about a tenth of them is held out."""
    if stopping == "none":
        return Split(rest, np.empty(0, np.int64), test)
    people = (sheet["dataset"] + "/" + sheet["subject"]).to_numpy(str)[rest]
    train, held_out = hold_out_subjects(sheet["label"].to_numpy(str)[rest], people, seed=seed, part=part)
    return Split(rest[train], rest[held_out], test)


def hold_out_subjects(labels: np.ndarray, subjects: np.ndarray, *, seed: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (training, validation): about a tenth of the clips, subject-disjoint, stratified by class.

    `part` is the number of the part, modulo the number of parts: ten, or fewer with fewer subjects. Raises MerbaError for a
    single subject.
    """
    if len(np.unique(subjects)) < 2:
        raise MerbaError("validation needs at least two training subjects; use `stopping: none` or add subjects")
    parts = subject_parts(labels, subjects, 10, seed=seed)
    return parts[part % len(parts)]


def subject_parts(labels: np.ndarray, subjects: np.ndarray, count: int, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of (the others, a part) for each of `count` parts of the clips: subject-disjoint, stratified by class.

    There are fewer parts if there are fewer subjects. At least two subjects are needed.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes half a second, and planning doesn't need it

    folds = StratifiedGroupKFold(n_splits=min(count, len(np.unique(subjects))), shuffle=True, random_state=seed)
    # The splitter warns if a class has fewer clips than folds; then some held-out parts lack that class.
    every = folds.split(np.zeros(len(labels)), _codes(labels, folds.n_splits), subjects)
    return [(others, part) for others, part in every if len(part)]  # with few subjects, a part can be empty


def _codes(labels: np.ndarray, folds: int) -> np.ndarray:
    """Integer labels for the splitter; all 0 if every class has fewer clips than folds, which it refuses."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return codes if counts.max() >= folds else np.zeros_like(codes)
