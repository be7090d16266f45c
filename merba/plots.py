"""Figures. Every function draws one figure and writes it to a file; matplotlib is imported where it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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


def flow_colours(flow: np.ndarray, longest: float) -> np.ndarray:
    """A flow (2, H, W) as RGB uint8 (H, W, 3): hue is the direction, saturation the length up to `longest` px."""
    from matplotlib.colors import hsv_to_rgb

    u, v = flow.astype(np.float32)
    hue = np.arctan2(v, u) / (2 * np.pi) % 1
    saturation = np.clip(np.hypot(u, v) / longest, 0, 1)
    return np.uint8(255 * hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], -1)))


def plot_samples(
    rows: pd.DataFrame,
    faces: pd.DataFrame,
    apexes: pd.DataFrame,
    flow: np.ndarray,
    head_motion: np.ndarray,
    *,
    size: int,
    unit: str,
    path: Path,
) -> None:
    """A line for each clip: onset with landmarks, aligned onset and apex, flow, and the motion curve with its fit.

    The tables are those of `faces_of_subject` and `apexes_of_subject` for `rows`, `flow` (n, C, H, W) begins with
    u and v in px, `head_motion` (n,) is in px, `size` is the side of the aligned face, `unit` that of the motion curve. A
    person sees at a glance whether preprocessing went right.
    """
    import cv2
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from merba.faces import align
    from merba.frames import open_clip

    figure, grid = plt.subplots(len(rows), 5, figsize=(13, 2.7 * len(rows)), squeeze=False, layout="constrained")
    titles = ("onset and landmarks", "aligned onset", "aligned apex", "flow onset → apex", "motion curve")
    records = zip(rows.itertuples(), faces.to_dict("records"), apexes.to_dict("records"), flow, head_motion, strict=True)
    for axes, (row, face, apex, (u, v, *_), moved) in zip(grid, records, strict=True):
        axes[0].set_ylabel(f"{row.subject} {row.clip}\n{row.label}")
        for one in axes[:4]:
            one.set(xticks=[], yticks=[])
        problem = next((one["problem"] for one in (face, apex) if pd.notna(one["problem"])), None)
        if problem:
            axes[0].text(0.5, 0.5, problem, ha="center", va="center", wrap=True, transform=axes[0].transAxes)
            continue
        clip = open_clip(row.source, row.kind)
        onset, top = (cv2.cvtColor(clip.read(apex[key]), cv2.COLOR_BGR2RGB) for key in ("onset", "apex"))
        points = np.reshape(face["landmarks"], (68, 2))
        axes[0].imshow(onset)
        axes[0].plot(*points.T, ".", color="yellow", markersize=2)
        transform = np.reshape(face["transform"], (2, 3))
        axes[1].imshow(align(onset, transform, size))
        axes[2].imshow(align(top, transform, size))
        motion = np.stack([u, v]).astype(np.float32)
        longest = float(np.quantile(np.hypot(*motion), 0.99)) or 1.0
        axes[3].imshow(flow_colours(motion, longest))
        step = size // 16
        y, x = np.mgrid[step // 2 : size : step, step // 2 : size : step]
        axes[3].quiver(x, y, *motion[:, y, x], angles="xy", scale_units="xy", scale=longest / step / 1.5, width=0.004)
        axes[3].set_xlabel(f"full colour: {longest:.1f} px; head moved {moved:.1f} px")
        _plot_curve(axes[4], apex, unit)
    for one, title in zip(grid[0], titles, strict=True):
        one.set_title(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_curve(axes, apex, unit: str) -> None:
    if apex["source"] == "annotation":
        axes.text(0.5, 0.5, f"apex {apex['apex']} is annotated", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.plot(apex["frames"], apex["curve"], "o", markersize=3, color="#777777", label="motion")
    axes.plot(apex["frames"], apex["fit"], color="#0072b2", label="unimodal fit")
    axes.axvline(apex["apex"], color="#d55e00", linestyle="--", label=f"apex {apex['apex']}")
    axes.set(xlabel="frame", ylabel=f"motion, {unit}")
    axes.legend(fontsize=7)
