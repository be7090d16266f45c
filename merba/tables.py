"""The paper's tables from predictions, beside the published rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.metrics import bootstrap_interval, confusion, scores, subject_counts
from merba.sheet import KEY

DATASETS_3DB = ("smic_hs", "casme2", "samm")


def table_1(models: Sequence[tuple[str, Mapping[str, Any], int]]) -> pd.DataFrame:
    """Table I: blocks, windows, sizes, parameters and FLOPs of models, each given as (name, arguments, classes)."""
    import torch

    from merba.models import create_model
    from merba.models.summary import architecture

    parts = []
    for name, arguments, classes in models:
        with torch.device("meta"):  # shapes only: no memory, no time for random weights
            model = create_model(name, classes, **arguments)
        part = architecture(model, model.input_shape)
        part.insert(0, "model", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def result_rows(
    predictions: pd.DataFrame, experiment: Mapping[str, Any], sheet: pd.DataFrame, *, name: str, data: str
) -> pd.DataFrame:
    """One row for each selection rule (the honest one and the oracle) of an experiment.

    `predictions` are those of all its folds. Scores are of counts summed over folds, mean and spread over seeds;
    intervals are by bootstrap over subjects on the first seed. `folds` and `clips` say how many of the sheet's
    are in the scores, so that dropped clips and partial runs show.
    """
    classes = sorted(column.removeprefix("p_") for column in predictions if column.startswith("p_"))
    code = {label: number for number, label in enumerate(classes)}
    composite = sheet[sheet["dataset"].isin(experiment["datasets"])]
    rows = []
    for selection, chosen in predictions.groupby("selection", sort=False):
        row: dict[str, Any] = {
            "method": experiment["method"],
            "backbone": experiment["backbone"],
            "source": "reproduced",
            "data": data,
            "experiment": name,
            "protocol": experiment["protocol"],
            "selection": selection,
            "leaks": selection == "oracle",
            "control": experiment["control"],
            "seeds": chosen["seed"].nunique(),
            "folds": f"{chosen.groupby(KEY[:2]).ngroups}/{composite.groupby(KEY[:2]).ngroups}",
            "clips": f"{chosen.groupby(KEY).ngroups}/{len(composite)}",
        }
        groups = [("combined", chosen), *chosen.groupby("dataset")]
        for group, part in groups:
            row |= _scores(part, code, prefix=f"{group}_", spread=group == "combined")
        rows.append(row)
    return pd.DataFrame(rows)


def _scores(part: pd.DataFrame, code: Mapping[str, int], *, prefix: str, spread: bool) -> dict[str, Any]:
    k = len(code)
    seeds = [(one["true"].map(code).to_numpy(), one["predicted"].map(code).to_numpy(), one) for _, one in part.groupby("seed")]
    each = [scores(confusion(true, predicted, k)) for true, predicted, _ in seeds]
    found = {
        f"{prefix}uf1": np.mean([one.uf1 for one in each]),
        f"{prefix}uar": np.mean([one.uar for one in each]),
        f"{prefix}acc": np.mean([one.acc for one in each]),
        f"{prefix}n": each[0].n,
    }
    if spread:
        true, predicted, one = seeds[0]
        counts = subject_counts(true, predicted, (one["dataset"] + "/" + one["subject"]).tolist(), k)
        uf1, uar = bootstrap_interval(counts)
        found |= {
            f"{prefix}uf1_low": uf1[0],
            f"{prefix}uf1_high": uf1[1],
            f"{prefix}uar_low": uar[0],
            f"{prefix}uar_high": uar[1],
            f"{prefix}uf1_seed_sd": np.std([one.uf1 for one in each], ddof=1) if len(each) > 1 else np.nan,
        }
    return found


def table_5(reproduced: Sequence[pd.DataFrame], published: Path) -> pd.DataFrame:
    """Table V: the published rows, then ours; `source`, `data` and `leaks` say what may be compared with what."""
    paper = pd.read_csv(published).assign(source="published", data="3db", protocol="loso")
    table = pd.concat([paper, *reproduced], ignore_index=True)
    last = [column for column in table if column.startswith(("combined_", *(f"{d}_" for d in DATASETS_3DB)))]
    groups = ("combined", *DATASETS_3DB)
    last.sort(key=lambda column: next(i for i, group in enumerate(groups) if column.startswith(f"{group}_")))
    first = [column for column in table if column not in last]
    table["year"] = table["year"].astype("Int64")
    return table[first + last].round(4)


def confusion_table(predictions: pd.DataFrame, selection: str) -> pd.DataFrame:
    """Counts of true (rows) against predicted classes (columns) under one selection rule, first seed."""
    chosen = predictions[predictions["selection"] == selection]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    classes = sorted(column.removeprefix("p_") for column in predictions if column.startswith("p_"))
    code = {label: number for number, label in enumerate(classes)}
    counts = confusion(chosen["true"].map(code).to_numpy(), chosen["predicted"].map(code).to_numpy(), len(classes))
    return pd.DataFrame(counts, index=pd.Index(classes, name="true"), columns=classes)
