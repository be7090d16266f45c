"""The paper's Tables II to VII, as they stand beside ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from merba.files import checksum


@cache
def published(name: str) -> pd.DataFrame:
    """The paper's table of that name, such as `table_5_3db`; callers must not change it."""
    return pd.read_csv(_path(name))


def published_digest(name: str) -> str:
    """A short hash of that table's file: what a rule depends on, whose path differs from one installation to the next."""
    return checksum(_path(name))[:16]


def _path(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.csv")
