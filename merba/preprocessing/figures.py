"""Figures. Every function draws one figure and writes it to a file; matplotlib is imported where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    flow: Mapping[str, np.ndarray],
    *,
    face_settings: Mapping[str, Any],
    unit: str,
    path: Path,
) -> None:
    """A line for each clip: onset with landmarks, aligned onset and apex, flow, and the motion curve with its fit.

    The tables are those of `faces_of_subject` and `apexes_of_subject` for `rows`, and `flow` has the arrays `flow`,
    `head_motion` and `problem` of `save_subject` for them, and its `channels`; `unit` is that of the motion curve. A person
    sees at a glance whether preprocessing went right.
    """
    import cv2
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from merba.preprocessing.faces import FaceSettings, align
    from merba.frames import open_clip

    settings = FaceSettings(**face_settings)
    figure, grid = plt.subplots(len(rows), 5, figsize=(13, 2.7 * len(rows)), squeeze=False, layout="constrained")
    titles = ("onset and landmarks", "aligned onset", "aligned apex", "flow onset → apex", "motion curve")
    found = (flow[name] for name in ("flow", "head_motion", "problem"))
    records = zip(rows.itertuples(), faces.to_dict("records"), apexes.to_dict("records"), *found, strict=True)
    for axes, (row, face, apex, values, moved, problem) in zip(grid, records, strict=True):
        axes[0].set_ylabel(f"{row.subject} {row.clip}\n{row.label}")
        for one in axes[:4]:
            one.set(xticks=[], yticks=[])
        if problem:
            axes[0].text(0.5, 0.5, problem, ha="center", va="center", wrap=True, transform=axes[0].transAxes)
            for one in axes[1:]:
                one.set_axis_off()
            continue
        clip = open_clip(row.source, row.kind)
        onset, top = (cv2.cvtColor(clip.read(apex[key]), cv2.COLOR_BGR2RGB) for key in ("onset", "apex"))
        points = np.reshape(face["landmarks"], (68, 2))
        axes[0].imshow(onset)
        axes[0].plot(*points.T, ".", color="yellow", markersize=2)
        transform = np.reshape(face["transform"], (2, 3))
        if face["faces"] > 1:
            axes[0].set_xlabel(f"of {face['faces']} faces the {face['choice']} one")
        for place, image in ((1, onset), (2, top)):
            axes[place].imshow(align(image, transform, settings.size, settings.interpolation))
        _plot_flow(axes[3], dict(zip(flow["channels"], values.astype(np.float32), strict=True)), moved)
        _plot_curve(axes[4], apex, unit)
    for one, title in zip(grid[0], titles, strict=True):
        one.set_title(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_flow(axes, flow: Mapping[str, np.ndarray], moved: float) -> None:
    """u and v as colours, with the wheel that explains them, and arrows; without both, the first channel in shades."""
    name, values = next(iter(flow.items()))
    motion = np.stack([flow["u"], flow["v"]]) if {"u", "v"} <= flow.keys() else None
    lengths = np.abs(values) if motion is None else np.hypot(*motion)
    full = float(np.quantile(lengths, 0.99)) or 1.0
    if motion is not None:
        axes.imshow(flow_colours(motion, full))
        size = motion.shape[1]
        step = max(size // 16, 1)
        y, x = np.mgrid[step // 2 : size : step, step // 2 : size : step]
        axes.quiver(x, y, *motion[:, y, x], angles="xy", scale_units="xy", scale=full / step / 1.5, width=0.004)
        _plot_wheel(axes.inset_axes((0.85, 0.85, 0.15, 0.15)))
        said = f"full colour: {full:.1f} px"
    elif name in ("u", "v"):
        axes.imshow(values, cmap="coolwarm", vmin=-full, vmax=full)
        said = f"{name}: {full:.1f} px in red"
    else:
        axes.imshow(values, cmap="Greys", vmin=0, vmax=full)
        said = f"{name}: {full:.2g} in black"
    axes.set_xlabel(f"{said}; head moved {moved:.1f} px")


def _plot_wheel(axes) -> None:
    """The colour of every direction and length: a point's own, seen from the centre."""
    place = np.mgrid[-1:1:65j, -1:1:65j][::-1]
    inside = np.hypot(*place) <= 1
    axes.imshow(np.dstack([flow_colours(place, 1.0), np.uint8(255 * inside)]))
    axes.set_axis_off()


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
