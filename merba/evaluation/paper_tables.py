"""The paper's tables from predictions, with the published rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from merba.config.method_names import method_name
from merba.datasets.tasks import DATASETS_3DB
from merba.evaluation.comparison import paired_difference
from merba.evaluation.metrics import bootstrap_interval, confusion, scores
from merba.evaluation.published import published
from merba.evaluation.runs import Run
from merba.evaluation.scoring import count_subjects
from merba.protocols import shared_subjects
from merba.sheet import KEY

WHOLE = ("year", "row", "seeds", "n", "shared_subjects", "parameters", "flops")
"""Columns of whole numbers, which stay whole numbers if a row has none."""


def table_1(models: Sequence[tuple[str | None, Mapping[str, Any], int]]) -> pd.DataFrame:
    """Table I: blocks, windows, sizes, parameters and FLOPs of models, each given as (name, arguments, classes).

    The column `model` has their names by `method_name`.
    """
    import torch

    from merba.models import create_model
    from merba.models.summary import architecture

    parts = []
    for name, arguments, classes in models:
        with torch.device("meta"):  # shapes only: no memory, no time for random weights
            model = create_model(name, classes, **arguments)
        part = architecture(model, model.input_shape)
        part.insert(0, "model", method_name({"name": name, **arguments}))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def table_4(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table IV: DFME's test sets A and B, one row each; the published rows, then ours."""
    rows = [row for run in ours for row in holdout_rows(run, _rival(run, ours), sheet, data)]
    return _with_published("table_4_dfme", rows, data="dfme", protocol="holdout")


def table_5(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table V: the composite and each of its datasets by LOSO; the published rows, then ours.

    `source`, `data` and `leaks` (yes or no; for published rows, yes if public code shows it, else unknown) say which rows can
    be compared.
    """
    rows = [row for run in ours for row in loso_rows(run, _rival(run, ours), sheet, data)]
    table = _with_published("table_5_3db", rows, data="3db", protocol="loso")
    groups = ("combined", *DATASETS_3DB)
    scores = [column for column in table if column.startswith(tuple(f"{group}_" for group in groups))]
    scores.sort(key=lambda column: next(i for i, group in enumerate(groups) if column.startswith(f"{group}_")))
    return table[[column for column in table if column not in scores] + scores]


def table_6(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table VI: whether extractors and attention work inside windows or on the whole map (see `ablation_rows`)."""
    rows = []
    for run in ours:
        about = {
            "extractor": run.settings["model"].get("extractor", "local"),
            "self_attention": run.settings["model"].get("attention", "global"),
        }
        rows += [about | row for row in ablation_rows(run, _rival(run, ours), sheet, data)]
    return _with_published("table_6_lgfi", rows, data="dfme", protocol="holdout")


def table_7(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table VII: directions of scanning (see `ablation_rows`); the published rows have parameters and FLOPs of merba_base."""
    from merba.models.summary import direction_costs
    from merba.scan import PRESETS

    rows = []
    for run in ours:
        directions = run.settings["model"].get("directions", "merba")
        about = {"directions": " ".join(PRESETS.get(directions) or [directions]), "directions_known": "stated"}
        rows += [about | row for row in ablation_rows(run, _rival(run, ours), sheet, data)]
    table = _with_published("table_7_scanning", rows, data="dfme", protocol="holdout")
    sets = {row: directions for row, directions in table.loc[table["source"] == "published", "directions"].items()}
    costs = direction_costs(sets, head="dgcm").set_index("set")
    for column in ("parameters", "flops"):
        table.loc[costs.index, column] = costs[column]
        table[column] = table[column].astype("Int64")
    return table


def ablation_rows(run: Run, rival: Run | None, sheet: pd.DataFrame, data: str) -> list[dict[str, Any]]:
    """Rows of Tables VI and VII: for test set B, as in the paper, or by LOSO on the whole composite (test set `all`).

    They have parameters and FLOPs of the model that ran.
    """
    costs = _costs(run)
    if run.settings["protocol"] == "loso":
        return [costs | {"test_set": "all"} | row for row in composite_rows(run, rival, sheet, data)]
    return [costs | row for row in holdout_rows(run, rival, sheet, data) if row["test_set"] == "test_b"]


def _costs(run: Run) -> dict[str, int]:
    arguments = {key: value for key, value in run.settings["model"].items() if key != "pretrained"}
    total = table_1([(arguments.pop("name", None), arguments, len(_classes(run.predictions)))]).iloc[-1]
    return {"parameters": total["parameters"], "flops": total["flops"]}


def holdout_rows(run: Run, rival: Run | None, sheet: pd.DataFrame, data: str) -> list[dict[str, Any]]:
    """One row for each selection rule and test set of an experiment with protocol holdout (see `loso_rows`).

    `shared_subjects` counts test subjects who also have training clips: with any, the test sets' scores are too good.
    """
    composite = sheet[sheet["dataset"].isin(run.settings["datasets"])]
    shared = len(shared_subjects(composite))
    rows = []
    for selection, chosen in run.predictions.groupby("selection", sort=False):
        for test_set, part in chosen.groupby("split"):
            listed = composite[composite["split"] == test_set]
            rows.append(
                _about(run, selection, data)
                | {"test_set": test_set, "shared_subjects": shared, "clips": f"{part.groupby(KEY).ngroups}/{len(listed)}"}
                | _scores(part, prefix="", spread=True)
                | _against(part, rival, selection, test_set)
            )
    return rows


def loso_rows(run: Run, rival: Run | None, sheet: pd.DataFrame, data: str) -> list[dict[str, Any]]:
    """The `composite_rows` of an experiment, their scores with prefix `combined_`, followed by each dataset's scores."""
    rows = composite_rows(run, rival, sheet, data, prefix="combined_")
    for row in rows:
        chosen = run.predictions[run.predictions["selection"] == row["selection"]]
        for dataset, part in chosen.groupby("dataset"):
            row |= _scores(part, prefix=f"{dataset}_", spread=False)
    return rows


def composite_rows(run: Run, rival: Run | None, sheet: pd.DataFrame, data: str, prefix: str = "") -> list[dict[str, Any]]:
    """One row for each selection rule (the honest one and the oracle) of an experiment with protocol loso.

    Scores are from counts summed over folds; they are given as mean and spread over seeds. Intervals of the mean are by
    bootstrap over subjects, stratified by dataset. `folds` and `clips` say how many of the sheet's are in the scores, so that
    dropped clips and partial runs show. `difference` is UF1 minus the rival's, with its interval by paired bootstrap.
    """
    composite = sheet[sheet["dataset"].isin(run.settings["datasets"])]
    rows = []
    for selection, chosen in run.predictions.groupby("selection", sort=False):
        row = _about(run, selection, data) | {
            "folds": f"{chosen.groupby(KEY[:2]).ngroups}/{composite.groupby(KEY[:2]).ngroups}",
            "clips": f"{chosen.groupby(KEY).ngroups}/{len(composite)}",
        }
        rows.append(row | _against(chosen, rival, selection) | _scores(chosen, prefix=prefix, spread=True))
    return rows


def _about(run: Run, selection: str, data: str) -> dict[str, Any]:
    return {
        "method": run.settings["method"],
        "backbone": run.settings["backbone"],
        "source": "reproduced",
        "data": data,
        "experiment": run.name,
        "protocol": run.settings["protocol"],
        "selection": selection,
        "leaks": "yes" if selection == "oracle" else "no",
        "control": run.settings["control"],
        "seeds": run.predictions["seed"].nunique(),
    }


def _rival(run: Run, ours: Sequence[Run]) -> Run | None:
    """The experiment of the same table that `against` compares this one with."""
    return next((other for other in ours if other.name == run.settings["against"]), None)


def _against(part: pd.DataFrame, rival: Run | None, selection: str, test_set: str | None = None) -> dict[str, Any]:
    """Difference in UF1 to the rival on the clips that both predicted: honest to honest choice, oracle to oracle."""
    if rival is None:
        return {}
    theirs = rival.predictions
    theirs = theirs[(theirs["selection"] == "oracle") == (selection == "oracle")]
    if test_set is not None:
        theirs = theirs[theirs["split"] == test_set]
    if part.merge(theirs[KEY], on=KEY).empty:  # all clips that both tested were dropped
        return {"against": rival.name, "against_n": 0}
    difference = paired_difference(part, theirs, _classes(part))
    names = {"n": "against_n"} | {f"uf1_difference{end}": f"difference{end}" for end in ("", "_low", "_high")}
    return {"against": rival.name} | {name: difference[key] for key, name in names.items()}


def _classes(predictions: pd.DataFrame) -> dict[str, int]:
    """Class name → number, from the columns of probabilities."""
    names = sorted(column.removeprefix("p_") for column in predictions if column.startswith("p_"))
    return {name: number for number, name in enumerate(names)}


def _codes(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """True and predicted classes as numbers, and how many classes there are."""
    code = _classes(predictions)
    return predictions["true"].map(code).to_numpy(), predictions["predicted"].map(code).to_numpy(), len(code)


def _scores(part: pd.DataFrame, *, prefix: str, spread: bool) -> dict[str, Any]:
    counts, datasets = count_subjects(part, _classes(part))
    of_seeds = [scores(seed) for seed in counts.sum(1)]
    columns = {
        f"{prefix}uf1": np.mean([score.uf1 for score in of_seeds]),
        f"{prefix}uar": np.mean([score.uar for score in of_seeds]),
        f"{prefix}acc": np.mean([score.acc for score in of_seeds]),
        f"{prefix}n": of_seeds[0].n,
    }
    if spread:
        uf1, uar = bootstrap_interval(counts, datasets)
        columns |= {
            f"{prefix}uf1_low": uf1[0],
            f"{prefix}uf1_high": uf1[1],
            f"{prefix}uar_low": uar[0],
            f"{prefix}uar_high": uar[1],
            f"{prefix}uf1_seed_sd": np.std([score.uf1 for score in of_seeds], ddof=1) if len(of_seeds) > 1 else np.nan,
        }
    return columns


def _with_published(name: str, rows: Sequence[Mapping[str, Any]], **paper: str) -> pd.DataFrame:
    """The published table with `paper`'s columns added, above our rows."""
    table = pd.concat([published(name).assign(source="published", **paper), pd.DataFrame(rows)], ignore_index=True)
    whole = [column for column in table if column in WHOLE or column.endswith("_n")]
    return table.astype(dict.fromkeys(whole, "Int64"))


def confusion_table(predictions: pd.DataFrame, selection: str) -> pd.DataFrame:
    """Counts of true (rows) against predicted classes (columns) under one selection rule, first seed."""
    chosen = predictions[predictions["selection"] == selection]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    names = list(_classes(predictions))
    return pd.DataFrame(confusion(*_codes(chosen)), index=pd.Index(names, name="true"), columns=names)
