"""The paper's Tables II to VII, shown next to ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd


@cache
def published(name: str) -> pd.DataFrame:
    """The paper's table of that name, such as `table_5_3db`; callers must not change it."""
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"))
