"""Comparing two methods on the same clips: differences with intervals by paired bootstrap, with any file or a shipped one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.errors import MerbaError, did_you_mean
from merba.evaluation.metrics import class_scores, paired_bootstrap, unweighted
from merba.evaluation.scoring import complete_seeds, count_subjects, read_predictions
from merba.sheet import KEY

SHIPPED = Path(__file__).with_name("predictions")
SUFFIX = ".csv.gz"


def shipped_predictions() -> dict[str, Path]:
    """The prediction files that come with the package, by name: of experiments of config/public_flow.yaml."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def named_predictions(name: str) -> pd.DataFrame:
    """The shipped predictions of that name, without unfinished seeds, or those of the file `name`.

    Raises MerbaError that lists the shipped ones, or says what is wrong with the file.
    """
    shipped = shipped_predictions()
    if name in shipped:
        return complete_seeds(read_predictions(shipped[name]))
    if Path(name).exists():
        return read_predictions(Path(name))
    raise MerbaError(
        f"{name!r} is neither a file nor a shipped prediction{did_you_mean(name, shipped)}; shipped are {', '.join(shipped)}"
    )


def paired_difference(mine: pd.DataFrame, theirs: pd.DataFrame, code: Mapping[str, int]) -> dict[str, Any]:
    """How much higher one method scores than another, on the clips that every seed of both predicted; means over seeds.

    Both have columns KEY, seed, true, predicted; `code` numbers the classes. Returns n (clips), subjects; for UF1 and UAR
    the scores (`uf1`, `their_uf1`), the `uf1_difference` and its 95 % interval (`_low`, `_high`) by paired bootstrap over
    subjects, stratified by dataset; and `counts`, `their_counts`: int64 (classes, classes), summed over subjects and seeds.
    """
    mine, theirs = (table.set_index(KEY).sort_index() for table in (mine, theirs))
    common = _complete(mine).intersection(_complete(theirs))
    (counts, datasets), (others, _) = (count_subjects(table.loc[common].reset_index(), code) for table in (mine, theirs))
    difference = {"n": len(common), "subjects": len(datasets)}
    scores, their_scores = ([score.mean() for score in unweighted(table.sum(1))] for table in (counts, others))
    intervals = paired_bootstrap(counts, others, datasets)
    for name, ours, their, (low, high) in zip(("uf1", "uar"), scores, their_scores, intervals, strict=True):
        difference |= {name: float(ours), f"their_{name}": float(their), f"{name}_difference": float(ours - their)}
        difference |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
    return difference | {"counts": counts.sum((0, 1)), "their_counts": others.sum((0, 1))}


def _complete(table: pd.DataFrame) -> pd.MultiIndex:
    """The clips (index KEY) that every seed has."""
    seeds = table.groupby(level=KEY)["seed"].nunique()
    return seeds.index[seeds == table["seed"].nunique()]


def seeds_differ(table: pd.DataFrame) -> str | None:
    """What a table of `read_predictions` loses because its seeds don't have the same clips, for each selection; else None."""
    for _, part in table.groupby("selection"):
        clips = part.set_index(KEY)
        whole, every = len(_complete(clips)), clips.index.nunique()
        if whole < every:
            return f"only {whole} of {every} clips are in each of its seeds {', '.join(sorted(set(part['seed'])))}"
    return None


def clips_alone(mine: pd.DataFrame, theirs: pd.DataFrame) -> tuple[int, list[str]]:
    """The number of clips in a table of `read_predictions`, and the names of those that the other table lacks."""
    clips, others = (pd.MultiIndex.from_frame(table[KEY]).unique() for table in (mine, theirs))
    return len(clips), [" ".join(clip) for clip in clips[~clips.isin(others)]]


def compare(mine: pd.DataFrame, theirs: pd.DataFrame) -> list[dict[str, Any]]:
    """`paired_difference` of two tables of `read_predictions`, for each selection and split of `mine` that `theirs` has as well.

    Honest choices are compared with the other's honest one, oracles with its oracle. Each also has: selection, split, the
    `classes`, and the `recall` and `their_recall` of each. Raises MerbaError if no clip is in both, or if true classes differ.
    """
    _check_truth(mine, theirs)
    classes = sorted(set(mine["true"]) | set(mine["predicted"]) | set(theirs["predicted"]))
    code = {name: number for number, name in enumerate(classes)}
    comparisons = []
    for (selection, split), part in mine.groupby(["selection", "split"], sort=False):
        others = theirs[((theirs["selection"] == "oracle") == (selection == "oracle")) & (theirs["split"] == split)]
        if others["selection"].nunique() > 1:
            several = ", ".join(others["selection"].unique())
            raise MerbaError(f"the file to compare with has rows of several selections ({several}); keep those of one")
        if others.empty:
            continue
        difference = paired_difference(part, others, code)
        recalls = (dict(zip(classes, class_scores(difference[name])[1], strict=True)) for name in ("counts", "their_counts"))
        about = {"selection": selection, "split": split, "classes": classes}
        comparisons.append(about | difference | dict(zip(("recall", "their_recall"), recalls, strict=True)))
    if not comparisons:
        raise MerbaError("the two files have no split and selection in common: an oracle is only compared with an oracle")
    return comparisons


def _check_truth(mine: pd.DataFrame, theirs: pd.DataFrame) -> None:
    for table in (mine, theirs):
        if missing := [column for column in KEY if column not in table]:
            raise MerbaError(f"a comparison clip by clip needs the columns {', '.join(KEY)}; there is no {', '.join(missing)}")
    truths = [table.drop_duplicates(KEY).set_index(KEY)["true"] for table in (mine, theirs)]
    common = truths[0].index.intersection(truths[1].index)
    if common.empty:
        names = " and ".join(" ".join(truth.index[0]) for truth in truths)
        raise MerbaError(f"the two files have no clip in common; their first clips are {names}; use the names of the other file")
    differs = common[np.asarray(truths[0][common] != truths[1][common])]
    if len(differs):
        name, (ours, their) = " ".join(differs[0]), (truth[differs[0]] for truth in truths)
        raise MerbaError(f"{len(differs)} clips have another true class in the other file, such as {name}: {ours}, not {their}")
