"""How far detected apexes are from annotated ones, in frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from merba.errors import MerbaError
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject
from merba.sheet import KEY

BINS = (-20, -10, -5, -2, 3, 6, 11, 21)
"""Edges of the histogram, frames: its middle bin is −2 to 2, within which a detection counts as right."""


def apex_differences(sheet: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Detect the apex of every clip that has an annotated one, as if it had none: one row per clip, in sheet order.

    Columns: dataset, subject, clip, annotated and detected (frame numbers), difference (detected − annotated, frames),
    problem (null if there is none). Raises MerbaError if the sheet has no annotated apex.
    """
    annotated = sheet[sheet["apex"].notna()]
    if annotated.empty:
        raise MerbaError("no clip of the sheet has an annotated apex to compare detected ones with")
    parts = []
    for _, rows in annotated.groupby(KEY[:2], sort=False):
        rows = rows.reset_index(drop=True)
        blind = rows.assign(apex=pd.array([pd.NA] * len(rows), "Int64"))
        faces = faces_of_subject(blind, config["faces"])
        apexes = apexes_of_subject(blind, faces, config["apex"], config["faces"])
        detected = {"detected": apexes["apex"], "difference": apexes["apex"] - rows["apex"], "problem": apexes["problem"]}
        parts.append(rows[KEY].assign(annotated=rows["apex"], **detected))
    return pd.concat(parts, ignore_index=True)


def difference_summary(differences: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset and one for all: n, median, mean_absolute (frames), within_2 (share), problems."""
    groups = [*differences.groupby("dataset"), ("all", differences)]
    rows = []
    for name, clips in groups:
        known = clips["difference"].dropna().astype(float)
        rows.append(
            {
                "dataset": name,
                "n": len(known),
                "median": known.median(),
                "mean_absolute": known.abs().mean(),
                "within_2": (known.abs() <= 2).mean(),
                "problems": int(clips["problem"].notna().sum()),
            }
        )
    return pd.DataFrame(rows)


def histogram(differences: pd.Series, width: int = 40) -> str:
    """Counts of differences in frames as lines of text; the longest bar has `width` characters."""
    known = differences.dropna().to_numpy(float)
    counts = np.histogram(known, [-np.inf, *BINS, np.inf])[0]
    names = [f"< {BINS[0]}", *(f"{low} to {high - 1}" for low, high in zip(BINS, BINS[1:], strict=False)), f"≥ {BINS[-1]}"]
    longest = max(counts.max(), 1)
    return "\n".join(f"{name:>11} {'#' * round(width * n / longest):{width}} {n}" for name, n in zip(names, counts, strict=True))
