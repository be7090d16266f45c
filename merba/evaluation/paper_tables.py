"""The paper's tables from predictions, beside the published rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from merba.datasets.tasks import DATASETS_3DB
from merba.evaluation.metrics import bootstrap_interval, confusion, paired_bootstrap, scores, subject_counts, unweighted
from merba.evaluation.published import published
from merba.evaluation.runs import Run
from merba.protocols import shared_subjects
from merba.sheet import KEY


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


def table_4(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table IV: DFME's test sets A and B, a row each; the published rows, then ours."""
    rows = [row for one in ours for row in holdout_rows(one, _rival(one, ours), sheet, data)]
    return _beside("table_4_dfme", rows, data="dfme", protocol="holdout")


def table_5(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table V: the composite and each of its datasets by LOSO; the published rows, then ours.

    `source`, `data` and `leaks` say what may be compared with what.
    """
    rows = [row for one in ours for row in loso_rows(one, _rival(one, ours), sheet, data)]
    table = _beside("table_5_3db", rows, data="3db", protocol="loso")
    groups = ("combined", *DATASETS_3DB)
    scores = [column for column in table if column.startswith(tuple(f"{group}_" for group in groups))]
    scores.sort(key=lambda column: next(i for i, group in enumerate(groups) if column.startswith(f"{group}_")))
    return table[[column for column in table if column not in scores] + scores]


def table_6(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table VI: whether extractors and attention look into windows or over the whole map, on test B."""
    rows = []
    for one in ours:
        about = {
            "extractor": one.settings["model"].get("extractor", "local"),
            "self_attention": one.settings["model"].get("attention", "global"),
        }
        rows += [about | row for row in holdout_rows(one, _rival(one, ours), sheet, data) if row["test_set"] == "test_b"]
    return _beside("table_6_lgfi", rows, data="dfme", protocol="holdout")


def table_7(ours: Sequence[Run], sheet: pd.DataFrame, data: str) -> pd.DataFrame:
    """Table VII: directions of scanning on test B, with each set's parameters and FLOPs (of merba_base where published)."""
    from merba.models.summary import direction_costs
    from merba.scan import PRESETS

    rows = []
    for one in ours:
        model = dict(one.settings["model"])
        directions = model.pop("directions", "merba")
        directions = " ".join(PRESETS.get(directions) or [directions])
        model.pop("pretrained", None)
        classes = sum(column.startswith("p_") for column in one.predictions)
        cost = direction_costs({one.name: directions}, model.pop("name"), classes, **model).iloc[0]
        about = {"directions": directions, "directions_known": "stated", **cost[["parameters", "flops"]]}
        rows += [about | row for row in holdout_rows(one, _rival(one, ours), sheet, data) if row["test_set"] == "test_b"]
    table = _beside("table_7_scanning", rows, data="dfme", protocol="holdout")
    sets = {row: directions for row, directions in table.loc[table["source"] == "published", "directions"].items()}
    costs = direction_costs(sets, head="dgcm").set_index("set")
    for column in ("parameters", "flops"):
        table.loc[costs.index, column] = costs[column]
        table[column] = table[column].astype("Int64")
    return table


def holdout_rows(one: Run, rival: Run | None, sheet: pd.DataFrame, data: str) -> list[dict[str, Any]]:
    """A row for each selection rule and test set of an experiment with protocol holdout (see `loso_rows`).

    `shared_subjects` counts those who have training clips as well: with any, the test sets' scores are too good.
    """
    composite = sheet[sheet["dataset"].isin(one.settings["datasets"])]
    shared = len(shared_subjects(composite))
    rows = []
    for selection, chosen in one.predictions.groupby("selection", sort=False):
        for test_set, part in chosen.groupby("split"):
            listed = composite[composite["split"] == test_set]
            rows.append(
                _about(one, selection, data)
                | {"test_set": test_set, "shared_subjects": shared, "clips": f"{part.groupby(KEY).ngroups}/{len(listed)}"}
                | _scores(part, prefix="", spread=True)
                | _against(part, rival, selection, test_set)
            )
    return rows


def loso_rows(one: Run, rival: Run | None, sheet: pd.DataFrame, data: str) -> list[dict[str, Any]]:
    """A row for each selection rule (the honest one and the oracle) of an experiment with protocol loso.

    Scores are of counts summed over folds, mean and spread over seeds; intervals, of that mean, are by bootstrap over
    subjects. `folds` and `clips` say how many of the sheet's are in the scores, so that dropped clips and partial runs
    show. `difference` is UF1 less that of the rival, with its interval by paired bootstrap.
    """
    composite = sheet[sheet["dataset"].isin(one.settings["datasets"])]
    rows = []
    for selection, chosen in one.predictions.groupby("selection", sort=False):
        row = _about(one, selection, data) | {
            "folds": f"{chosen.groupby(KEY[:2]).ngroups}/{composite.groupby(KEY[:2]).ngroups}",
            "clips": f"{chosen.groupby(KEY).ngroups}/{len(composite)}",
        }
        row |= _against(chosen, rival, selection)
        for group, part in [("combined", chosen), *chosen.groupby("dataset")]:
            row |= _scores(part, prefix=f"{group}_", spread=group == "combined")
        rows.append(row)
    return rows


def _about(one: Run, selection: str, data: str) -> dict[str, Any]:
    return {
        "method": one.settings["method"],
        "backbone": one.settings["backbone"],
        "source": "reproduced",
        "data": data,
        "experiment": one.name,
        "protocol": one.settings["protocol"],
        "selection": selection,
        "leaks": selection == "oracle",
        "control": one.settings["control"],
        "seeds": one.predictions["seed"].nunique(),
    }


def _rival(one: Run, ours: Sequence[Run]) -> Run | None:
    """The experiment of the same table with which `against` wants this one compared."""
    return next((other for other in ours if other.name == one.settings["against"]), None)


def _against(part: pd.DataFrame, rival: Run | None, selection: str, test_set: str | None = None) -> dict[str, Any]:
    """Difference in UF1 to the rival on the clips that both predicted: honest to honest choice, oracle to oracle."""
    if rival is None:
        return {}
    theirs = rival.predictions
    theirs = theirs[(theirs["selection"] == "oracle") == (selection == "oracle")]
    if test_set is not None:
        theirs = theirs[theirs["split"] == test_set]
    mine, theirs = (one.set_index(KEY).sort_index() for one in (part, theirs))
    common = mine.index.unique().intersection(theirs.index.unique())
    mine, theirs = (_subject_counts(one.loc[common].reset_index()) for one in (mine, theirs))
    uf1, their_uf1 = (unweighted(one.sum(1))[0].mean() for one in (mine, theirs))
    low, high = paired_bootstrap(mine, theirs)[0]
    return {
        "against": rival.name,
        "against_n": len(common),
        "difference": float(uf1 - their_uf1),
        "difference_low": low,
        "difference_high": high,
    }


def _classes(predictions: pd.DataFrame) -> dict[str, int]:
    """Class name → number, from the columns of probabilities."""
    names = sorted(column.removeprefix("p_") for column in predictions if column.startswith("p_"))
    return {name: number for number, name in enumerate(names)}


def _codes(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """True and predicted classes as numbers, and how many classes there are."""
    code = _classes(predictions)
    return predictions["true"].map(code).to_numpy(), predictions["predicted"].map(code).to_numpy(), len(code)


def _subject_counts(predictions: pd.DataFrame) -> np.ndarray:
    """Confusion counts, int64 (seeds, subjects, classes, classes)."""
    counts = []
    for _, one in predictions.groupby("seed"):
        true, predicted, classes = _codes(one)
        counts.append(subject_counts(true, predicted, (one["dataset"] + "/" + one["subject"]).tolist(), classes))
    return np.stack(counts)


def _scores(part: pd.DataFrame, *, prefix: str, spread: bool) -> dict[str, Any]:
    counts = _subject_counts(part)
    each = [scores(one) for one in counts.sum(1)]
    found = {
        f"{prefix}uf1": np.mean([one.uf1 for one in each]),
        f"{prefix}uar": np.mean([one.uar for one in each]),
        f"{prefix}acc": np.mean([one.acc for one in each]),
        f"{prefix}n": each[0].n,
    }
    if spread:
        uf1, uar = bootstrap_interval(counts)
        found |= {
            f"{prefix}uf1_low": uf1[0],
            f"{prefix}uf1_high": uf1[1],
            f"{prefix}uar_low": uar[0],
            f"{prefix}uar_high": uar[1],
            f"{prefix}uf1_seed_sd": np.std([one.uf1 for one in each], ddof=1) if len(each) > 1 else np.nan,
        }
    return found


def _beside(name: str, rows: Sequence[Mapping[str, Any]], **paper: str) -> pd.DataFrame:
    """The published table with `paper`'s columns added, above our rows; scores to four digits."""
    table = pd.concat([published(name).assign(source="published", **paper), pd.DataFrame(rows)], ignore_index=True)
    whole = [column for column in table if column in ("year", "row", "seeds", "n", "shared_subjects") or column.endswith("_n")]
    return table.astype(dict.fromkeys(whole, "Int64")).round(4)


def confusion_table(predictions: pd.DataFrame, selection: str) -> pd.DataFrame:
    """Counts of true (rows) against predicted classes (columns) under one selection rule, first seed."""
    chosen = predictions[predictions["selection"] == selection]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    names = list(_classes(predictions))
    return pd.DataFrame(confusion(*_codes(chosen)), index=pd.Index(names, name="true"), columns=names)
