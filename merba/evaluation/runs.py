"""The results of a run as tables: its folds, their learning curves, each subject's scores, the time of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from merba.evaluation.metrics import confusion, unweighted
from merba.files import FOLD_FILES


@dataclass(frozen=True)
class Run:
    """A finished experiment: its name, settings (`merba.config.experiment_settings`) and the folders of its folds."""

    name: str
    settings: dict[str, Any]
    folders: Sequence[Path]

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """All folds' predictions, in one table."""
        return pd.concat([pd.read_parquet(folder / FOLD_FILES["predictions"]) for folder in self.folders], ignore_index=True)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Each fold's run.json: settings, clips, seeds, versions, device, seconds."""
        return [json.loads((folder / FOLD_FILES["record"]).read_text()) for folder in self.folders]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Every epoch of every fold: the columns of history.csv, and `fold` (dataset/subject)."""
        parts = [
            pd.read_csv(folder / FOLD_FILES["history"]).assign(fold=f"{folder.parent.name}/{folder.name}")
            for folder in self.folders
        ]
        return pd.concat(parts, ignore_index=True)


def runs_of(experiments: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """The runs of experiments as a rule's parameters have them: by name, `settings` and the files of `predictions`."""
    return [
        Run(name, experiment["settings"], [Path(path).parent for path in experiment["predictions"]])
        for name, experiment in experiments.items()
    ]


def fold_table(run: Run) -> pd.DataFrame:
    """One row per fold and seed: clips of each part, the chosen epoch, the number of epochs, correct predictions, the cost.

    `right` counts the test clips that the honest choice predicted right, `oracle_right` those of the oracle, which leaks
    (missing if there is none).
    `seconds` and `peak_memory_mb` are those of the fold's job, for all its seeds together.
    """
    rows = []
    for folder, record in zip(run.folders, run.records, strict=True):
        predictions = pd.read_parquet(folder / FOLD_FILES["predictions"])
        hits = (predictions["true"] == predictions["predicted"]).groupby(
            [predictions["seed"], predictions["selection"] == "oracle"]
        )
        right = hits.sum()
        for seed, (total, training) in zip(record["experiment"]["seeds"], record["seeds"].items(), strict=True):
            rows.append(
                {"dataset": record["dataset"], "subject": record["subject"]}
                | record["clips"]
                | {
                    "seed": int(total),
                    "epoch": training["epoch"],
                    "epochs": training["epochs"],
                    "right": int(right.get((seed, False), 0)),  # a subject may have no usable clip
                    "oracle_right": int(right.get((seed, True), 0)) if "oracle_epoch" in training else None,
                    "seconds": round(record["seconds"], 1),
                    "peak_memory_mb": record["peak_memory_mb"],
                }
            )
    return pd.DataFrame(rows)


def subject_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """UF1 of each subject's own clips, over the classes that they have, on the first seed.

    Columns: dataset, split, subject, n, honest, and oracle if there is one (0..1).
    """
    first = predictions[predictions["seed"] == predictions["seed"].min()]
    classes = {name: code for code, name in enumerate(sorted(set(first["true"]) | set(first["predicted"])))}
    rows = []
    for key, clips in first.groupby(["dataset", "split", "subject"]):
        row = dict(zip(("dataset", "split", "subject"), key, strict=True))
        for name, part in clips.groupby(clips["selection"] == "oracle"):
            counts = confusion(part["true"].map(classes), part["predicted"].map(classes), len(classes))
            row |= {"n": len(part), "oracle" if name else "honest": float(unweighted(counts)[0])}
        rows.append(row)
    return pd.DataFrame(rows)


def stage_times(files: Sequence[Path], runs: Sequence[Run]) -> pd.DataFrame:
    """How long the jobs of each stage took: trainings by their records, others by Snakemake's benchmark `files` that exist.

    Columns: stage, jobs, total, median, longest (s), longest_job. Jobs run in parallel, so `total` is the work of a stage,
    not the time that a person waited. Stage and job come from a file's path, `times/STAGE/JOB.tsv` or `times/STAGE.tsv`.
    """
    rows = [
        {"stage": "fold", "job": f"{run.name} {record['dataset']} {record['subject']}", "seconds": record["seconds"]}
        for run in runs
        for record in run.records
    ]
    for path in filter(Path.exists, files):
        stage, *job = path.with_suffix("").parts[path.parts.index("times") + 1 :]
        rows.append({"stage": stage, "job": " ".join(job), "seconds": pd.read_csv(path, sep="\t")["s"].iloc[-1]})
    jobs = pd.DataFrame(rows, columns=["stage", "job", "seconds"])
    stages = jobs.groupby("stage")["seconds"].agg(jobs="size", total="sum", median="median", longest="max")
    longest = jobs.loc[jobs.groupby("stage")["seconds"].idxmax()].set_index("stage")["job"]
    return stages.assign(longest_job=longest).sort_values("total", ascending=False).reset_index()
