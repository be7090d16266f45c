"""Scoring of prediction files, from merba or elsewhere, as MEGC2019 does it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from merba.datasets.cells import read_sheets
from merba.errors import MerbaError, did_you_mean
from merba.evaluation.metrics import bootstrap_interval, scores, subject_counts, unweighted

NEEDED = ("subject", "true", "predicted")
NAMES = (*NEEDED, "dataset", "clip", "split", "selection", "seed")


def read_predictions(path: Path) -> pd.DataFrame:
    """Predictions of a CSV (also .csv.gz) or Parquet file: one row per clip, all columns text.

    It needs columns subject, true and predicted (class names or numbers); dataset, clip, split,
    selection and seed are used if present. Spaces around a name and the case of a selection don't count, and 1.0 is the class 1.
    Raises MerbaError that names file and column, or a clip that is listed twice.
    """
    table = _cells(Path(path))
    written = list(map(str, table.columns))
    table.columns = _plain([written])
    for column in NAMES:
        alike = [repr(name) for name, plain in zip(written, table.columns, strict=True) if plain == column]
        if len(alike) > 1:
            raise MerbaError(f"{path}: column {column!r} appears twice, as {' and '.join(alike)}; delete or rename one of them")
    for column in NEEDED:
        if column not in table:
            raise MerbaError(
                f"{path}: there is no column {column!r}{did_you_mean(column, table.columns)}; it needs "
                f"{', '.join(NEEDED)} and may have dataset, clip, split, selection, seed; it has {', '.join(table.columns)}"
            )
    if table.empty:
        raise MerbaError(f"{path}: it has no rows")
    empty = {name: _empty(table[name]) for name in NAMES if name in table}
    if len(rows := empty["true"]):
        raise MerbaError(
            f"{path}: {len(rows)} of {len(table)} rows have no true class, the first is row {rows[0]}; a score compares the "
            "predicted with the true class: fill in the column `true`, or delete these rows"
        )
    for column, rows in empty.items():
        for row in rows[:1]:
            raise MerbaError(f"{path}: row {row} has no {column}")
    for column, usual in {"dataset": "all", "split": "all", "selection": "", "seed": "0"}.items():
        table[column] = table.get(column, usual)
    for column in (name for name in NAMES if name in table):
        table[column] = table[column].astype(str).str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    table["selection"] = table["selection"].str.casefold()  # otherwise "Oracle" would pass for an honest choice
    if "clip" in table:
        keys = ["selection", "seed", "dataset", "subject", "clip"]
        for row in table.index[table.duplicated(keys)][:1]:
            name = " ".join(table.loc[row, keys[2:]])
            raise MerbaError(f"{path}: row {row} repeats clip {name}; remove one, or add a column `seed` that differs")
    return table


def _empty(column: pd.Series) -> pd.Index:
    return column.index[column.isna() | (column.astype(str).str.strip() == "")]


def _cells(path: Path) -> pd.DataFrame:
    """The file's table, unchanged; its index is the row number that a spreadsheet shows."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            return table.set_axis(range(2, len(table) + 2))
        content = path.read_bytes()
        sheets = read_sheets(".csv", gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MerbaError(f"{path}: can't be read as {path.suffix or 'CSV'}: {reason}") from error
    # The right delimiter is the one that gives the header the most known columns.
    sheet = max(sheets, key=lambda sheet: (len({*_plain(sheet.cells)} & {*NAMES}), len(_plain(sheet.cells))))
    if sheet.broken:
        raise MerbaError(f"{path}: {sheet.broken}")
    if not sheet.cells:
        raise MerbaError(f"{path}: it is empty")
    header, *rows = sheet.cells
    rows = {number: row for number, row in enumerate(rows, start=2) if any(row)}
    for number, row in rows.items():
        if len(row) != len(header):
            raise MerbaError(f"{path}: row {number} has {len(row)} fields, the header {len(header)}; correct one of them")
    return pd.DataFrame.from_dict(rows, orient="index", columns=header)


def _plain(cells: list[list[str]]) -> list[str]:
    """The names of the columns, without spaces around them and without case."""
    return [name.strip().casefold() for name in (cells[0] if cells else [])]


def count_subjects(predictions: pd.DataFrame, code: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """Confusion counts, int64 (seeds, subjects, classes, classes), and each subject's dataset.

    `predictions` has the columns dataset, subject, seed, true and predicted, the same subjects for each seed; `code` numbers the
    classes.
    """
    rows = predictions.assign(name=predictions["dataset"] + "/" + predictions["subject"])
    counts = [
        subject_counts(part["true"].map(code), part["predicted"].map(code), part["name"], len(code))
        for _, part in rows.groupby("seed")
    ]
    return np.stack(counts), rows.drop_duplicates("name").sort_values("name")["dataset"].tolist()


def score_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Scores of `read_predictions`'s table: a row for all and one for each dataset, for each selection, seed and split.

    Columns: selection, seed, split (DFME's test_a and test_b, or "all"), clips ("all" or the dataset), n, subjects, uf1,
    uar, acc (0..1) and 95 % intervals of UF1 and UAR by bootstrap over subjects, stratified by dataset. A class that no clip of
    a group truly has is left out of its means.
    """
    classes = sorted(set(predictions["true"]) | set(predictions["predicted"]))
    code = {name: number for number, name in enumerate(classes)}
    rows = []
    for (selection, seed, split), chosen in predictions.groupby(["selection", "seed", "split"], sort=False):
        groups = list(chosen.groupby("dataset")) if chosen["dataset"].nunique() > 1 else []
        for name, part in [("all", chosen), *groups]:
            (counts,), datasets = count_subjects(part, code)
            score, (uf1, uar) = scores(counts.sum(0)), bootstrap_interval(counts, datasets)
            rows.append(
                {
                    "selection": selection,
                    "seed": seed,
                    "split": split,
                    "clips": name,
                    "n": score.n,
                    "subjects": len(counts),
                    "uf1": score.uf1,
                    "uf1_low": uf1[0],
                    "uf1_high": uf1[1],
                    "uar": score.uar,
                    "uar_low": uar[0],
                    "uar_high": uar[1],
                    "acc": score.acc,
                }
            )
    return pd.DataFrame(rows)


def complete_seeds(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds that have honest predictions of the most clips; unfinished seeds are left out."""
    clips = predictions[predictions["selection"] != "oracle"].groupby("seed").size()
    return predictions[predictions["seed"].isin(clips.index[clips == clips.max()])]


def scores_by_dataset(predictions: pd.DataFrame) -> dict[str, dict[str, float]]:
    """UF1 and UAR of honest predictions (oracles are left out) for a model card: of `all` clips, and of each dataset.

    `predictions` is as in `count_subjects`, with `selection`; scores are means over the seeds that have all clips. Each has n,
    subjects, uf1 and uar.
    """
    honest = complete_seeds(predictions[predictions["selection"] != "oracle"])
    code = {name: number for number, name in enumerate(sorted(set(honest["true"]) | set(honest["predicted"])))}
    scores = {}
    for name, part in [("all", honest), *honest.groupby("dataset")]:
        counts, datasets = count_subjects(part, code)
        uf1, uar = (float(score.mean()) for score in unweighted(counts.sum(1)))
        scores[name] = {"n": int(counts[0].sum()), "subjects": len(datasets), "uf1": uf1, "uar": uar}
    return scores
