"""Figures. Every function draws one figure and writes it to a file; matplotlib is imported where it is used."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def plot_confusion(counts: pd.DataFrame, *, title: str, path: Path) -> None:
    """Confusion matrix as an image: shade and second line are the share of the true class, first line the clips.

    `counts` has true classes as rows and predicted ones as columns. `path` ends in .png, .svg or .pdf.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    shares = counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0)
    size = 1.6 + 0.9 * len(counts)
    figure, axes = plt.subplots(figsize=(size + 0.8, size), layout="constrained")
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
    figure.savefig(path, dpi=150)
    plt.close(figure)
