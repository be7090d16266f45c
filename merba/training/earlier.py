"""Seeds of an earlier run in a fold's folder, which need not be trained again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from merba.files import FOLD_FILES, WEIGHTS, read_parquet


@dataclass(frozen=True)
class Earlier:
    """Seeds of an earlier run: each one's entry in the record, and its tables for these seeds only, by name as in FOLD_FILES."""

    seeds: dict[int, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def joined(self, new: Mapping[str, pd.DataFrame], seeds: Sequence[int]) -> dict[str, pd.DataFrame]:
        """These tables and the `new` ones of the other seeds, each in the order of `seeds`."""
        if not self.seeds:
            return dict(new)
        place = {seed: number for number, seed in enumerate(seeds)}
        return {
            name: pd.concat([rows, *([new[name]] if new else [])]).sort_values(
                "seed", key=lambda column: column.map(place), kind="stable", ignore_index=True
            )
            for name, rows in self.tables.items()
        }


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a fold's folder; None if it is missing or damaged."""
    try:
        return json.loads((folder / FOLD_FILES["record"]).read_text())
    except (OSError, ValueError):
        return None


def earlier_seeds(folder: Path, seeds: Sequence[int], *, same: Mapping[str, Any], first: int, weights: bool) -> Earlier:
    """Those of `seeds` that the fold in `folder` was trained with, if nothing else has changed.

    `same` is what its record must say about the fold, versions and device; records count seeds from the configuration's,
    `first`. With `weights`, the first of `seeds` is included only if its weights are there. If the earlier run had exactly these
    seeds, the result is empty: a run that is started again should train them again.
    """
    record = read_record(folder)
    if record is None or any(record.get(key) != value for key, value in same.items()):
        return Earlier()
    trained = {int(seed) - first: about for seed, about in record["seeds"].items()}
    if list(trained) == list(seeds) or not all((folder / name).exists() for name in FOLD_FILES.values()):
        return Earlier()
    kept = {seed: trained[seed] for seed in seeds if seed in trained}
    if weights and (seeds[0] != next(iter(trained)) or not (folder / WEIGHTS).exists()):
        kept.pop(seeds[0], None)
    tables = {
        "history": pd.read_csv(folder / FOLD_FILES["history"], float_precision="round_trip"),
        **{name: read_parquet(folder / FOLD_FILES[name]) for name in ("predictions", "every_epoch")},
    }
    return Earlier(kept, {name: rows[rows["seed"].isin(kept)] for name, rows in tables.items()})


def keep_files(folder: Path, kept: Path) -> None:
    """Link a fold's files into the folder `kept`, where `earlier_seeds` will find them.

    Snakemake deletes those in `folder` before it trains further seeds. Links take no space; if the file system has none, files
    are copied. The record is removed first and added last, because the other files count only with it.
    """
    kept.mkdir(parents=True, exist_ok=True)
    record = FOLD_FILES["record"]
    (kept / record).unlink(missing_ok=True)
    for name in (*(name for name in (*FOLD_FILES.values(), WEIGHTS) if name != record), record):
        (kept / name).unlink(missing_ok=True)
        if (folder / name).exists():
            try:
                (kept / name).hardlink_to(folder / name)
            except OSError:
                shutil.copy2(folder / name, kept / name)
