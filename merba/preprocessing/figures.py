"""A figure of a few clips on their way from frames to flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.figures import BLUE, GREY, ORANGE, flow_colours, pyplot, save


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

    from merba.frames import clip_of
    from merba.preprocessing.faces import FaceSettings, align

    settings = FaceSettings(**face_settings)
    figure, grid = pyplot().subplots(len(rows), 5, figsize=(13, 2.7 * len(rows)), squeeze=False, layout="constrained")
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
        clip = clip_of(row)
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
    save(figure, path)


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
    axes.plot(apex["frames"], apex["curve"], "o", markersize=3, color=GREY, label="motion")
    axes.plot(apex["frames"], apex["fit"], color=BLUE, label="unimodal fit")
    axes.axvline(apex["apex"], color=ORANGE, linestyle="--", label=f"apex {apex['apex']}")
    axes.set(xlabel="frame", ylabel=f"motion, {unit}")
    axes.legend(fontsize=7)
