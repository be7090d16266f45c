"""Whether experiments that are to be compared test some of the same clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from merba.errors import MerbaError
from merba.protocols import TESTS
from merba.sheet import safe_id

Folds = Callable[[str], Sequence[tuple[str, str]]]
"""(dataset, subject's safe id) of each fold of an experiment."""


def check_rivals(experiments: Mapping[str, Mapping[str, Any]], sheet: pd.DataFrame, folds: Folds) -> None:
    """Raise MerbaError for an experiment that shares no tested clip with the one that it is to be compared with."""
    for name, settings in experiments.items():
        rival = experiments.get(settings["against"])
        if rival is None or not set(settings["tables"]) & set(rival["tables"]):
            continue
        mine, theirs = (_tested(experiments[other], sheet, folds(other)) for other in (name, settings["against"]))
        for split, clips in mine.groupby("split") if settings["protocol"] == "holdout" else [("all", mine)]:
            if not clips.index.intersection(theirs.index).size:
                of_split = "" if split == "all" else f" of {split}"
                raise MerbaError(
                    f"experiments.{name}.against: {name} and {settings['against']} test no clip{of_split} in common; compare "
                    "experiments whose `datasets`, `protocol` and `folds` overlap, or remove `against`"
                )


def _tested(settings: Mapping[str, Any], sheet: pd.DataFrame, folds: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The rows of the clips that an experiment tests."""
    rows = sheet[sheet["dataset"].isin(settings["datasets"])]
    if settings["protocol"] == "holdout":
        return rows[rows["split"].isin(TESTS)]
    tested = [f"{dataset}/{subject}" for dataset, subject in folds]
    return rows[(rows["dataset"] + "/" + rows["subject"].map(safe_id)).isin(tested)]
