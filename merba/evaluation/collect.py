"""Finished folds in files to commit: predictions, and a CSV of folds with digests, by which another machine can continue."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.errors import MerbaError
from merba.files import FOLD_FILES, atomic
from merba.sheet import KEY

KEPT = ("epoch", "oracle_epoch", "epochs", "weights_sha256")
"""The fields of each seed's entry in run.json that are kept."""


def collect(experiment: str, results: Path, *, folds: Path, predictions: Path) -> int:
    """Add an experiment's finished folds in `results` to the CSV `folds`, and their rows to the CSV `predictions`.

    `folds` has one row per fold and seed: experiment, dataset, subject, seed, digest, clips of each part, epochs, CPU seconds
    of the training, hash of the weights. `predictions` (.csv, or .csv.gz) has the columns of a fold's predictions,
    probabilities to four digits. Rows of the same folds are replaced, others stay: runs in separate folders can add to the same
    files. Returns the number of folds; raises MerbaError if there are none, or if they are of different code or settings.
    """
    records, rows = [], []
    for path, record in _alike(sorted((results / "folds" / experiment).glob(f"*/*/{FOLD_FILES['record']}"))):
        rows.append(pd.read_parquet(path.with_name(FOLD_FILES["predictions"])))
        for seed, entry in zip(record["experiment"]["seeds"], record["seeds"].values(), strict=True):
            about = {"experiment": experiment, "dataset": record["dataset"], "subject": record["subject"], "seed": seed}
            share = entry["training_seconds"] / sum(training["training_seconds"] for training in record["seeds"].values())
            cost = {"digest": record["digest"], **record["clips"], "cpu_seconds": round(share * record["cpu_seconds"], 3)}
            records.append(about | cost | {name: entry[name] for name in KEPT if name in entry})
    if not rows:
        raise MerbaError(
            f"{results / 'folds' / experiment} has no finished fold; set `--results` to the folder that contains `folds`"
        )
    _add(folds, pd.DataFrame(records), ["experiment", *KEY[:2], "seed"])
    _add(predictions, pd.concat(rows).round(4), [*KEY[:2], "seed"])
    return len(rows)


def _alike(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """The files run.json with their contents. Raises MerbaError if folds are of different code or settings, apart from seeds."""
    records = [(path, json.loads(path.read_text())) for path in paths]
    made = [json.dumps([record["code"], record["experiment"] | {"seeds": None}], sort_keys=True) for _, record in records]
    if len(numbers := Counter(made)) > 1:
        (_, most), *_, (rare, _) = numbers.most_common()
        raise MerbaError(
            f"{paths[made.index(rare)].parent} was made by other code or with other settings than {most} of the {len(paths)} "
            "folds beside it: finish `merba train`, or move the folder away"
        )
    return records


def finished_trainings(folds: Path, experiment: str) -> set[tuple[str, int]]:
    """The (fold's digest, seed) of an experiment's trainings in a CSV of `collect`. Raises MerbaError for another file."""
    table = _text(folds)
    if missing := {"experiment", "seed", "digest"} - set(table):
        raise MerbaError(f"{folds}: there is no column {', '.join(sorted(missing))}; give a file that `merba collect` wrote")
    rows = table[table["experiment"] == experiment]
    return {(digest, int(seed)) for digest, seed in zip(rows["digest"], rows["seed"], strict=True)}


def _add(path: Path, rows: pd.DataFrame, key: list[str]) -> None:
    """Write `rows` to the file, together with its old rows that have another `key`; sorted by `key`."""
    rows = rows.astype(object).where(rows.notna(), "").astype(str)
    if path.exists():
        old = _text(path)
        old = old[~pd.MultiIndex.from_frame(old[key]).isin(pd.MultiIndex.from_frame(rows[key]))]
        rows = pd.concat([old, rows]).fillna("")
    text = rows.sort_values(key, kind="stable").to_csv(index=False).encode()
    with atomic(path) as draft:  # equal rows give equal files: no time in the header
        draft.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _text(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise MerbaError(f"{path} can't be read as CSV: {error}") from error
