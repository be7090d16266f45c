"""The packed inputs of an experiment, and the splits of all its folds. Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.config import experiment_settings, pack_folder, runnable_experiments, usual_experiments
from merba.errors import MerbaError
from merba.files import atomic, read_parquet
from merba.preprocessing.packs import check_packed
from merba.protocols import folds, make_split
from merba.sheet import safe_id
from merba.training.loading import load_clips, split_rows


def packed_sheet(results: Path) -> pd.DataFrame:
    """The sample sheet of a folder of results. Raises MerbaError if it is missing."""
    return read_parquet(_packed(results / "samples.parquet", "packed"))


def named_experiment(config: Mapping[str, Any], name: str, sheet: pd.DataFrame) -> dict[str, Any]:
    """An experiment's settings for the clips of `sheet`; MerbaError if the configuration has no experiment of this name."""
    if name not in config["experiments"]:
        raise MerbaError(f"the configuration has no experiment {name!r}; it has {', '.join(config['experiments'])}")
    return experiment_settings(config, name, sheet["dataset"].unique())


def packs_of(experiment: Mapping[str, Any], results: Path) -> list[tuple[Path, Path]]:
    """The (array, index) files of an experiment's datasets. Raises MerbaError if one is missing."""
    folder = results / pack_folder(experiment)
    target = f"packed_{experiment['view']['name']}" if "view" in experiment else "packed"
    return [
        (_packed(folder / f"{dataset}.npy", target), _packed(folder / f"{dataset}.parquet", target))
        for dataset in experiment["datasets"]
    ]


def write_splits(config: Mapping[str, Any], results: Path, only: str | None = None) -> list[Path]:
    """Write `results`/splits/NAME.csv, the `split_table` of the experiment `only`, or of each one that a plain run trains.

    Returns the files. Raises MerbaError if there is no such experiment, if a file is missing, or if clips have problems and
    `on_problem` is not `drop`.
    """
    sheet, written = packed_sheet(results), []
    for name in [only] if only else usual_experiments(config, runnable_experiments(config, sheet["dataset"].unique())[0]):
        experiment = named_experiment(config, name, sheet)
        packs = packs_of(experiment, results)
        check_packed([index for _, index in packs], drop=config["on_problem"] == "drop")
        table = split_table(experiment, sheet, packs, seed=config["seed"])
        written.append(results / "splits" / f"{name}.csv")
        with atomic(written[-1]) as draft:
            table.to_csv(draft, index=False)
    return written


def split_table(
    experiment: Mapping[str, Any], sheet: pd.DataFrame, packs: Sequence[tuple[Path, Path]], *, seed: int
) -> pd.DataFrame:
    """The splits of all folds of a `named_experiment`: one row per fold and usable clip.

    Columns: fold (DATASET/SUBJECT, its folder in results/folds/EXPERIMENT), dataset, subject, clip, part (train, validation,
    test or none, as in the fold's split.csv), label, and row, the clip's index in its dataset's array. If a subject has no
    usable clip, its fold is left out.
    """
    _, clips, _ = load_clips(sheet, packs)
    tables = []
    for dataset, subject in folds(sheet, experiment):
        split = make_split(clips, experiment["protocol"], dataset, subject, stopping=experiment["stopping"], seed=seed)
        if len(split.test):
            rows = split_rows(clips, split).assign(label=clips["label"], row=clips["row"])
            rows.insert(0, "fold", f"{dataset}/{safe_id(subject)}")
            tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def _packed(path: Path, target: str) -> Path:
    if not path.exists():
        raise MerbaError(
            f"{path} is missing: run the preprocessing of this configuration first (`snakemake --cores 4 {target} --configfile "
            "CONFIG`), or copy it here"
        )
    return path
