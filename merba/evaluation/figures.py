"""Figures of results: scores with intervals, confusion matrices, subjects, learning curves. Each is drawn to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from merba.figures import BLUE, GREY, ORANGE, pyplot, save

HONEST, LEAKS = BLUE, ORANGE
"""Colours of the two kinds of choice; their markers differ too."""

CURVES = {
    "train_loss": ("training loss", GREY),
    "validation_loss": ("validation loss", HONEST),
    "validation_uf1": ("validation UF1", HONEST),
    "oracle_test_accuracy": ("test accuracy\n(used only for the oracle)", LEAKS),
}


def plot_scores(rows: pd.DataFrame, *, path: Path) -> None:
    """UF1 of each row with its 95 % interval: `label`, `uf1`, `low`, `high` (0..1, NaN if unknown), `leaks` (yes or no).

    Rows with the same label share a line: the honest choice is a dot; the oracle's, which leaks, is an open diamond below it.
    """
    plt = pyplot()
    labels = list(dict.fromkeys(rows["label"]))
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.42 * len(labels)), layout="constrained")
    for leaks, style in ((False, {"marker": "o", "color": HONEST}), (True, {"marker": "D", "color": LEAKS, "mfc": "white"})):
        part = rows[(rows["leaks"] == "yes") == leaks]
        heights = np.array([labels.index(label) for label in part["label"]]) + (0.17 if leaks else -0.17)
        errors = np.array([part["uf1"] - part["low"], part["high"] - part["uf1"]], dtype=float)
        errors = np.nan_to_num(errors).clip(min=0)  # a bootstrap's percentiles need not enclose the estimate
        name = "epoch of best accuracy on the test clips: leaks" if leaks else "honest choice of the epoch"
        if len(part):
            fmt = style.pop("marker")
            axes.errorbar(part["uf1"], heights, xerr=errors, fmt=fmt, capsize=3, label=name, clip_on=False, zorder=3, **style)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    values = rows[["uf1", "low", "high"]].to_numpy(float)
    # A little beyond all values, to the next 0.05.
    ends = np.array([np.floor(20 * np.nanmin(values) - 0.2), np.ceil(20 * np.nanmax(values) + 0.2)]) / 20
    axes.set(xlim=ends.clip(0, 1), xlabel="UF1 and its 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    save(figure, path)


def plot_confusion(counts: pd.DataFrame, *, title: str, path: Path) -> None:
    """Confusion matrix as an image: a cell's first line is its clips; second line and shade are the share of the true class.

    `counts` has true classes as rows and predicted ones as columns. `path` ends in .png, .svg or .pdf.
    """
    shares = counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0)
    size = 1.6 + 0.9 * len(counts)
    figure, axes = pyplot().subplots(figsize=(size + 0.8, size), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, true in enumerate(counts.index):
        for j, predicted in enumerate(counts.columns):
            share = shares.loc[true, predicted]
            text = f"{counts.loc[true, predicted]}\n{share:.0%}" if share == share else "–"
            axes.text(j, i, text, ha="center", va="center", color="white" if share > 0.55 else "black")
    axes.set_xticks(range(len(counts.columns)), counts.columns, rotation=30 if len(counts) > 4 else 0)
    axes.set_yticks(range(len(counts.index)), counts.index)
    axes.set(xlabel="predicted", ylabel="true", title=f"{title} (n = {int(counts.to_numpy().sum())})")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    save(figure, path)


def plot_subjects(subjects: pd.DataFrame, *, title: str, path: Path) -> None:
    """UF1 of every subject by the honest choice and by the oracle, if there is one: the table of `runs.subject_scores`."""
    plt = pyplot()
    subjects = subjects.sort_values(["dataset", "split", "subject"], ignore_index=True)
    figure, axes = plt.subplots(figsize=(max(7.5, 2 + 0.2 * len(subjects)), 3.4), layout="constrained")
    places = subjects.index
    if "oracle" in subjects:
        label = "epoch of best accuracy on this subject: leaks"
        axes.vlines(places, subjects["honest"], subjects["oracle"], color=LEAKS, alpha=0.5, linewidth=1)
        axes.plot(places, subjects["oracle"], "D", color=LEAKS, mfc="white", markersize=4, label=label)
    axes.plot(places, subjects["honest"], "o", color=HONEST, markersize=5, label="honest choice of the epoch")
    axes.set_xticks(places, [f"{row.subject} ({row.n})" for row in subjects.itertuples()], rotation=90, fontsize=7)
    groups = subjects["dataset"] + subjects["split"].map(lambda split: "" if split == "all" else f" {split}")
    for name, members in groups.groupby(groups):
        axes.axvspan(
            members.index[0] - 0.5, members.index[-1] + 0.5, color="black", alpha=0.05 * (name in sorted(set(groups))[::2])
        )
        axes.text(members.index[0] - 0.4, 1.06, name, fontsize=8)
    axes.set(ylim=(-0.05, 1.15), xlim=(-0.5, len(subjects) - 0.5), ylabel="UF1", xlabel="subject (clips)")
    axes.grid(axis="y", alpha=0.3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(figure, path)


def plot_curves(history: pd.DataFrame, *, title: str, path: Path) -> None:
    """Learning curves of all folds, one thin line each, and their median; columns of `merba.evaluation.runs.Run.history`."""
    plt = pyplot()
    known = {name: about for name, about in CURVES.items() if name in history}
    figure, grid = plt.subplots(1, len(known), figsize=(3.3 * len(known), 2.9), squeeze=False, layout="constrained")
    for axes, (name, (label, colour)) in zip(grid[0], known.items(), strict=True):
        for _, fold in history.groupby(["fold", "seed"]):
            axes.plot(fold["epoch"], fold[name], color=colour, alpha=0.25, linewidth=0.6)
        median = history.groupby("epoch")[name].median()
        axes.plot(median.index, median, color=colour, linewidth=2)
        axes.set(xlabel="epoch", ylim=(0, None) if "loss" in name else (-0.03, 1.03))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(label, fontsize=9)
        axes.grid(alpha=0.3)
    folds = history.groupby(["fold", "seed"]).ngroups
    figure.suptitle(
        f"{title}: thin lines are trainings (n = {folds}), the thick line is their median", x=0.01, ha="left", fontsize=10
    )
    save(figure, path)
