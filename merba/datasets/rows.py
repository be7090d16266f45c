"""Rows of the sample sheet, as every adapter and the demo's plan return them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from merba.sheet import COLUMNS

NUMBERS = {"onset": "Int64", "apex": "Int64", "offset": "Int64", "fps": "float64"}


def sample_rows(rows: pd.DataFrame | Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The rows as a sample sheet, sorted by dataset, subject and clip.

    A column that they lack is null (apex, fps, …); emotion and split default to "" and "all".
    """
    given = pd.DataFrame(rows)
    defaults = {column: value for column, value in (("emotion", ""), ("split", "all")) if column not in given}
    sheet = given.assign(**defaults).reindex(columns=list(COLUMNS))
    sheet = sheet.astype({column: NUMBERS.get(column, "str") for column in COLUMNS})
    return sheet.sort_values(["dataset", "subject", "clip"], ignore_index=True)
