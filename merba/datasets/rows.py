"""Rows of the sample sheet, as every adapter and the demo's plan return them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from merba.sheet import COLUMNS

NUMBERS = {"onset": "Int64", "apex": "Int64", "offset": "Int64", "fps": "float64"}


def sample_rows(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The rows as a sample sheet, sorted by dataset, subject and clip.

    A key that a row lacks is null there (apex, fps, …); emotion and split default to "" and "all".
    """
    sheet = pd.DataFrame([{"emotion": "", "split": "all"} | dict(row) for row in rows], columns=list(COLUMNS))
    sheet = sheet.astype({column: NUMBERS.get(column, "str") for column in COLUMNS})
    return sheet.sort_values(["dataset", "subject", "clip"], ignore_index=True)
