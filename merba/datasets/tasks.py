"""From annotated emotions to the classes of a task, and the list of the MEGC2019 composite."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from merba.datasets.annotations import report
from merba.datasets.layout import report_missing
from merba.errors import MerbaError, did_you_mean, unknown
from merba.sheet import loose

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
SYNONYMS = {"happy": "happiness", "sad": "sadness", "other": "others"}
DATASETS_3DB = ("smic_hs", "casme2", "samm")
CLASSES = ("negative", "positive", "surprise")
WITHOUT_CLASS = ("repression", "others")
THREE_CLASSES = {
    **dict.fromkeys(("negative", "anger", "contempt", "disgust", "fear", "sadness"), "negative"),
    **dict.fromkeys(("positive", "happiness"), "positive"),
    "surprise": "surprise",
}
# MEGC2019 counts disgust and repression of CASME II as negative, and leaves out its few clips of fear and sadness.
THREE_CLASSES_OF_CASME2 = {
    "disgust": "negative",
    "repression": "negative",
    "happiness": "positive",
    "surprise": "surprise",
}
COMPOSITE = Path(__file__).with_name("megc2019.csv")

log = logging.getLogger(__name__)


def dfme_datasets(config: Mapping[str, Any]) -> list[str]:
    """Names of the configured datasets that Table II counts: those with the adapter dfme. Table III counts the others."""
    return [name for name, settings in config["datasets"].items() if settings["adapter"] == "dfme"]


@cache
def composite(dataset: str | None = None) -> pd.DataFrame:
    """The 442 clips of the MEGC2019 composite, or those of one dataset: dataset, subject, clip, label."""
    listed = pd.read_csv(COMPOSITE, dtype=str)
    return listed if dataset is None else listed[listed["dataset"] == dataset].reset_index(drop=True)


def label_rows(rows: pd.DataFrame, adapter: str, path: Path, task: str, only: str | None, missing: str) -> pd.DataFrame:
    """The rows that belong to a task, with their class in `label`; the number of other rows is logged by emotion.

    task: `3db` (negative, positive, surprise) or `emotion` (the seven). only: `megc2019` keeps exactly the clips of the
    composite, with the list's classes. Raises MerbaError for an unknown emotion, and for listed clips without a row, which
    are only logged if missing is `drop`.
    """
    if only:
        return _listed(rows, adapter, path, only, missing)
    classes = _classes(adapter, task)
    emotions = rows["emotion"].str.casefold().replace(SYNONYMS)
    known = [*EMOTIONS, *CLASSES, *WITHOUT_CLASS]
    strange = rows.index[~emotions.isin(known)]
    report(
        [
            f"row {index} ({rows.at[index, 'subject']} {rows.at[index, 'clip']}): "
            f"emotion {rows.at[index, 'emotion']!r} is unknown{did_you_mean(emotions[index], known)}"
            for index in strange
        ],
        adapter,
        path,
    )
    labels = emotions.map(classes)
    left_out = Counter(emotions[labels.isna()])
    if left_out:
        counts = ", ".join(f"{count} {emotion}" for emotion, count in sorted(left_out.items()))
        log.info("%s: %d clips have no class in task %s: %s", path, left_out.total(), task, counts)
    return rows.assign(label=labels)[labels.notna()]


def true_class(emotion: str, classes: Collection[str]) -> str | None:
    """The one of `classes` that an annotated emotion, or class, belongs to; None if none does. Case doesn't count."""
    known = {name.casefold(): name for name in classes}
    plain = emotion.strip().casefold()
    name = SYNONYMS.get(plain, plain)
    return next((known[key] for key in (plain, name, THREE_CLASSES.get(name)) if key in known), None)


def _classes(adapter: str, task: str) -> dict[str, str]:
    if task == "emotion":
        return {emotion: emotion for emotion in EMOTIONS}
    if task == "3db":
        return THREE_CLASSES_OF_CASME2 if adapter == "casme2" else THREE_CLASSES
    raise MerbaError(f"task of adapter {adapter}: {unknown(task, ('3db', 'emotion'))}")


def _listed(rows: pd.DataFrame, adapter: str, path: Path, only: str, missing: str) -> pd.DataFrame:
    if only != "megc2019" or composite(adapter).empty:
        raise MerbaError(f"only: {only!r} is not available for adapter {adapter}; megc2019 lists smic_hs, casme2 and samm")
    listed = composite(adapter)
    labels = dict(zip(_keys(listed), listed["label"], strict=True))
    keys = _keys(rows)
    absent = listed[~_keys(listed).isin(keys)]
    what = f"{len(absent)} of the {len(labels)} clips of MEGC2019 are not in {path}"
    report_missing(list(absent["subject"] + " " + absent["clip"]), what, adapter, missing, most=len(listed))
    return rows.assign(label=keys.map(labels))[keys.isin(labels)]


def _keys(rows: pd.DataFrame) -> pd.Series:
    return rows["subject"].map(loose) + "/" + rows["clip"].map(loose)
