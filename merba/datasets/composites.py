"""What the datasets of an experiment must not share, frames and people, and what they must: the task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from merba.datasets.shared_frames import check_subjects_apart
from merba.datasets.tasks import CLASSES, EMOTIONS
from merba.sheet import report_faults

RELEASES = ("smic_hs", "casme2", "samm", "dfme", "casme3")
"""Adapters of a single release: a subject of this name is one person in every copy of it."""
TASKS = {"3db": {*CLASSES} - {*EMOTIONS}, "emotion": {*EMOTIONS} - {*CLASSES}}
"""The classes that only this task has; both have surprise."""


def check_composites(
    sheet: pd.DataFrame, settings: Mapping[str, Mapping[str, Any]], composites: Iterable[Collection[str]]
) -> None:
    """Raise MerbaError if two datasets of an experiment share frames or people, or have classes of different tasks.

    `settings` are those of the datasets, and each of `composites` names an experiment's datasets. For frames, see
    `check_subjects_apart`. Two datasets of one release, such as raw and cropped frames, share people if they share subjects.
    """
    whole = {tuple(sorted(datasets)) for datasets in composites}
    check_subjects_apart(sheet, whole)
    adapters = {dataset: own["adapter"] for dataset, own in settings.items()}
    labels = sheet.groupby("dataset")["label"].agg(set)
    people = sheet.groupby("dataset")["subject"].agg(set)
    pairs = sorted({pair for datasets in whole for pair in combinations(datasets, 2)})
    report_faults([*_different_tasks(pairs, labels), *_same_people(pairs, people, adapters)])


def _different_tasks(pairs: Iterable[tuple[str, str]], labels: Mapping[str, set[str]]) -> Iterator[str]:
    for pair in pairs:
        tasks = [[task for task, classes in TASKS.items() if labels[dataset] & classes] for dataset in pair]
        if sorted(tasks) == [["3db"], ["emotion"]]:
            have = " and ".join(f"{dataset} the classes {', '.join(sorted(labels[dataset]))}" for dataset in pair)
            yield (
                f"an experiment joins {' and '.join(pair)}, of different tasks: {have}; set the same `task` for both, or train "
                "on one at a time"
            )


def _same_people(pairs: Iterable[tuple[str, str]], people: Mapping[str, set[str]], adapters: Mapping[str, str]) -> Iterator[str]:
    for pair in pairs:
        first, second = (adapters.get(dataset) for dataset in pair)
        if first == second in RELEASES and (both := people[pair[0]] & people[pair[1]]):
            yield (
                f"an experiment joins {' and '.join(pair)}, of one release ({first}), and subject {min(both)} is in both, so "
                "that the same person would be trained on and tested; train on one at a time"
            )
