"""Counts of clips: the sample sheet next to the paper's Tables II and III, with every difference marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from merba.datasets.tasks import DATASETS_3DB, dfme_datasets
from merba.evaluation.published import published
from merba.sheet import KEY


def sheet_summary(sheet: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset: subjects, clips, without_apex (clips whose apex is to be detected), fps and classes (text)."""
    rows = []
    for dataset, clips in sheet.groupby("dataset"):
        classes = clips["label"].value_counts().sort_index()
        rows.append(
            {
                "dataset": dataset,
                "subjects": clips["subject"].nunique(),
                "clips": len(clips),
                "without_apex": int((clips["apex"].isna() & (clips["kind"] != "flow")).sum()),
                "fps": ", ".join(f"{fps:g}" for fps in sorted(clips["fps"].dropna().unique())) or "unknown",
                "classes": ", ".join(f"{count} {label}" for label, count in classes.items()),
            }
        )
    return pd.DataFrame(rows)


def paper_tables(sheet: pd.DataFrame, config: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """`table_2`, `table_3` or both, by title, depending on the sheet's datasets.

    Empty for the demo and for datasets that aren't the paper's.
    """
    if config["data"] == "demo":
        return {}
    is_dfme = sheet["dataset"].isin(dfme_datasets(config))
    tables = {}
    if is_dfme.any():
        tables["Table II, clips by split and class"] = table_2(sheet[is_dfme], config["data"])
    if sheet["dataset"].isin(DATASETS_3DB).any():
        tables["Table III, clips by class and dataset"] = table_3(sheet[~is_dfme], config["data"])
    return tables


def table_2(sheet: pd.DataFrame, data: str, problems: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table II: clips of DFME by split and class, above the published counts; `differs` names what differs.

    `problems` (dataset, subject, clip) adds the column `unusable`: how many of a split's clips are among them.
    """
    paper = published("table_2_dfme_counts").set_index("split")
    counted = _counts(sheet["split"], sheet["label"], paper.index, paper.columns[:-1], total="total")
    if problems is not None:
        unusable = sheet.merge(problems[KEY], on=KEY)["split"].value_counts()
        counted["unusable"] = unusable.reindex(counted.index, fill_value=0)
    return _above_published(counted, paper, data, "dfme")


def table_3(sheet: pd.DataFrame, data: str, problems: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table III: clips by class and dataset, above the published counts of the same datasets; `differs` names what differs.

    The sum over datasets, `combined`, is compared if they are the paper's three. Other datasets have no published rows.
    `problems` (dataset, subject, clip) adds the row `unusable`: how many of a dataset's clips are among them.
    """
    datasets = set(sheet["dataset"])
    ran = [name for name in DATASETS_3DB if name in datasets]
    paper = published("table_3_3db_counts").set_index("class")
    paper = paper[[*ran, *(["combined"] if datasets == set(DATASETS_3DB) else [])]] if ran else paper.iloc[:0, :0]
    counted = _counts(sheet["label"], sheet["dataset"], paper.index.drop("total", errors="ignore"), ran, total="combined")
    counted.loc["total"] = counted.sum()
    if problems is not None:
        unusable = sheet.merge(problems[KEY], on=KEY)["dataset"].value_counts().reindex(counted.columns, fill_value=0)
        counted.loc["unusable"] = unusable.where(counted.columns != "combined", unusable.sum())
    return _above_published(counted, paper, data, "3db")


def _counts(rows: pd.Series, columns: pd.Series, index: Iterable[str], names: Iterable[str], *, total: str) -> pd.DataFrame:
    """A cross table: first the paper's rows (`index`) and columns (`names`) in its order, then others; a column of sums last."""
    counts = pd.crosstab(rows, columns).reindex(index=_ordered(index, rows), columns=_ordered(names, columns), fill_value=0)
    return counts.assign(**{total: counts.sum(axis=1)})


def _ordered(known: Iterable[str], given: Iterable[str]) -> list[str]:
    return [*known, *sorted(set(given) - set(known))]


def _above_published(counted: pd.DataFrame, paper: pd.DataFrame, data: str, paper_data: str) -> pd.DataFrame:
    """Counted rows above published ones, told apart by `source` and `data`."""
    differs = [
        "; ".join(
            f"{column} {counted.at[row, column]}, not {paper.at[row, column]}"
            for column in paper.columns
            if row in paper.index and counted.at[row, column] != paper.at[row, column]
        )
        for row in counted.index
    ]
    ours = counted.rename_axis(index=paper.index.name, columns=None).assign(source="counted", data=data, differs=differs)
    table = pd.concat([ours.reset_index(), paper.assign(source="published", data=paper_data, differs="").reset_index()])
    numbers = [column for column in table if pd.api.types.is_numeric_dtype(table[column])]
    return table.astype(dict.fromkeys(numbers, "Int64"))


def side_by_side(table: pd.DataFrame) -> str:
    """A table of `table_2` or `table_3` as text: our counts, followed by `≠` and the paper's if they differ."""
    numbers = table.drop(columns=["source", "data", "differs"]).set_index(table.columns[0])
    ours, paper = (numbers[table["source"].to_numpy() == source] for source in ("counted", "published"))
    cells = ours.astype(str)
    for row in paper.index.intersection(ours.index):
        for column in paper.columns[paper.notna().any()]:
            if ours.at[row, column] != paper.at[row, column]:
                cells.loc[row, column] = f"{ours.at[row, column]} ≠ {paper.at[row, column]}"
    return cells.reset_index().to_string(index=False)
