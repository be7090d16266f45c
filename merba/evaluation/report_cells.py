"""Tables of the report: results as cells, with intervals below scores and rows marked that leak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import pandas as pd

WORDS = {
    "validation": "on validation subjects",
    "last": "the last",
    "oracle": "on the test clips: leaks",
    "test_a": "A",
    "test_b": "B",
    "all": "all, by LOSO",
}
"""How the report writes values of `selection` and `test_set`."""
NAMES = {
    "smic_hs": "SMIC-HS",
    "casme2": "CASME II",
    "samm": "SAMM",
    "dfme": "DFME",
    "selection": "epoch chosen",
    "seconds": "time, s",
    "peak_memory_mb": "peak memory, MB",
    "head_motion_median": "head motion, px: median",
    "head_motion_p95": "95th percentile",
    "head_motion_largest": "largest",
}
ABOUT = (
    *("row", "method", "experiment", "directions", "extractor", "self_attention", "parameters", "flops", "test_set", "year"),
    *("selection", "leaks", "control", "seeds", "folds", "clips", "note"),
)
"""Columns of a results table before the scores, if any row has them."""
USUAL = {"control": "none", "seeds": 1}
"""Values that are not worth a column if all rows have them."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the value it sorts by (empty if there is none), the small print below, whether it is a number."""

    text: str
    value: str
    small: str = ""
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A table: headings, the groups of columns above them (name, width) if any, rows of cells, and a class for each row."""

    headings: list[str]
    groups: list[tuple[str, int]]
    rows: list[list[Cell]]
    classes: list[str]


@dataclass(frozen=True)
class Column:
    """A column of a results table: its group, its heading, and its cell of a row."""

    group: str
    heading: str
    cell: Callable[[pd.Series], Cell]


def named(name: str) -> str:
    """A dataset's or column's name as the report writes it."""
    return NAMES.get(name, name.replace("_", " "))


def plain_table(rows: pd.DataFrame) -> Table:
    """Any table, unchanged; the numbers of a column have the same number of decimals."""
    decimals = [_decimals(rows[name]) for name in rows]
    cells = [list(map(plain, record, decimals)) for record in rows.itertuples(index=False)]
    return Table([named(str(name)) for name in rows], [], cells, [""] * len(cells))


def score_tables(rows: pd.DataFrame, data: str) -> list[tuple[bool, str, Table]]:
    """A results table in parts that never mix data: (whether the part has rows of this run, which clips, table).

    If this run's `data` is the paper's, the published rows are in the same part.
    """
    parts = []
    for clips, part in rows.groupby("data", sort=False):
        parts.append((bool((part["source"] == "reproduced").any()), str(clips), _score_table(part)))
    return sorted(parts, key=lambda part: part[1] != data)


def _score_table(rows: pd.DataFrame) -> Table:
    columns = _columns(rows.dropna(axis=1, how="all"))
    groups = [(name, len(list(members))) for name, members in groupby(column.group for column in columns)]
    cells = [[column.cell(row) for column in columns] for _, row in rows.iterrows()]
    classes = [
        "leaks" if leaks == "yes" else "ours" if source == "reproduced" else ""
        for leaks, source in zip(rows["leaks"], rows["source"], strict=True)
    ]
    return Table([column.heading for column in columns], groups if len(groups) > 1 else [], cells, classes)


def _columns(rows: pd.DataFrame) -> list[Column]:
    columns = []
    if rows["source"].nunique() > 1:
        columns.append(Column("", "rows of", lambda row: plain("paper" if row["source"] == "published" else "this run")))
    about = [name for name in ABOUT if name in rows and set(rows[name].dropna()) != {USUAL.get(name)}]
    columns += [Column("", named(name), partial(_about, name=name)) for name in about]
    for prefix in (column.removesuffix("uf1") for column in rows if column == "uf1" or column.endswith("_uf1")):
        group = named(prefix.removesuffix("_"))
        # Accuracy is a score only of the DFME tables; their columns have no prefix.
        scores = [score for score in ("uf1", "uar", "acc") if f"{prefix}{score}" in rows and (score != "acc" or not prefix)]
        columns += [Column(group, score.upper(), partial(_score, name=f"{prefix}{score}")) for score in scores]
        if f"{prefix}n" in rows:
            columns.append(Column(group, "n", partial(_about, name=f"{prefix}n")))
    if "difference" in rows:
        columns.append(Column("difference", "ΔUF1", _difference))
    return columns


def _about(row: pd.Series, name: str) -> Cell:
    return plain(WORDS.get(row[name], row[name]) if name in ("selection", "test_set") else row[name])


def _score(row: pd.Series, name: str) -> Cell:
    """A score to four digits, as the CSV has it, with its interval and spread if there are any."""
    if pd.isna(row[name]):
        return plain(None)
    small = ""
    if pd.notna(row.get(f"{name}_low")):
        small = f"{row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f}"
    if pd.notna(row.get(f"{name}_seed_sd")):
        small += f"\n±{row[f'{name}_seed_sd']:.3f} over seeds"
    return Cell(f"{row[name]:.4f}", f"{row[name]:.4f}", small, True)


def _difference(row: pd.Series) -> Cell:
    if pd.isna(row["difference"]):
        return plain(None)
    small = f"to {row['against']}, n = {row['against_n']:.0f}"
    if pd.notna(row.get("difference_low")):
        small = f"{row['difference_low']:+.3f} to {row['difference_high']:+.3f}\n{small}"
    return Cell(f"{row['difference']:+.4f}", f"{row['difference']:.4f}", small, True)


def _decimals(column: pd.Series) -> int:
    """How many decimals the numbers of a column need."""
    if not pd.api.types.is_float_dtype(column):
        return 0
    return max((len(f"{value:g}".partition(".")[2]) for value in column.dropna()), default=0)


def plain(value: Any, decimals: int = 0) -> Cell:
    """A value as text; whole numbers without decimals unless `decimals` is set, thousands separated from five digits on."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return Cell("–", "")
    if isinstance(value, str | bool):
        return Cell(str(value), str(value))
    number = float(value)
    if decimals:
        return Cell(f"{number:.{decimals}f}", f"{number:g}", number=True)
    if number.is_integer():
        return Cell(f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.0f}", f"{number:.0f}", number=True)
    return Cell(f"{number:g}", f"{number:g}", number=True)
