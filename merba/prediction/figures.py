"""Pictures of predictions: one of each clip, and one of a search for candidate intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from pathlib import Path

import numpy as np

from merba.figures import BLUE, GREY, ORANGE, flow_colours, pyplot, save
from merba.prediction.predict import Prediction
from merba.prediction.spotting import LEAST, Search
from merba.training.checkpoint import Checkpoint


def plot_prediction(prediction: Prediction, checkpoint: Checkpoint, path: Path) -> None:
    """Onset, apex, flow, occlusion saliency and class probabilities of a prediction made with `explain`, and its warnings.

    `checkpoint` made it; its training data and error are under the title. `path` ends in .png, .svg or .pdf.
    """
    figure, panels = pyplot().subplots(1, 5, figsize=(15, 4.4))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.8, bottom=0.2, wspace=0.06)
    for panel, image, name in zip(panels, prediction.images, ("onset", "apex"), strict=False):
        panel.imshow(image)
        panel.set_title(f"{name}, frame {getattr(prediction, name)}{_at(prediction, name)}")
    _plot_flow(panels[2], prediction)
    for panel in panels[:4]:
        panel.set(xticks=[], yticks=[])
    if prediction.saliency is None:
        for panel in panels[3:]:
            panel.set_axis_off()
    else:
        _plot_saliency(figure, panels[3], prediction)
        _plot_probabilities(panels[4], prediction)
    what = prediction.clip
    if prediction.score is not None:
        where = f"frames {prediction.onset} to {prediction.offset}{_at(prediction, 'onset', 'offset')}"
        what += f", candidate in {where} with score {prediction.score:.2f} px"
    figure.suptitle(f"{what}: {prediction.predicted}", fontweight="bold")
    about = f"trained on {checkpoint.trained_on} · {checkpoint.measured}"
    figure.text(0.5, 0.9, about, ha="center", color="#444444")
    # Under onset and apex, which they are about.
    warnings = "\n".join(textwrap.fill(warning, 70) for warning in prediction.warnings)
    figure.text(0.015, 0.17, warnings, va="top", color=ORANGE)
    save(figure, path)


def _at(prediction: Prediction, *keys: str) -> str:
    """When frames are shown, such as " (2.38–2.54 s)"; empty if unknown."""
    seconds = [f"{prediction.seconds[key]:.2f}" for key in keys if key in prediction.seconds]
    return f" ({'–'.join(seconds)} s)" if seconds else ""


def _plot_flow(axes, prediction: Prediction) -> None:
    """Draw flow in colours, with a key, and as arrows, for readers who can't see the colours."""
    from matplotlib.patches import Circle

    motion = prediction.flow[:2].astype(np.float32)
    size = motion.shape[-1]
    longest = float(np.quantile(np.hypot(*motion), 0.99)) or 1.0
    axes.imshow(flow_colours(motion, longest))
    step = size // 16
    y, x = np.mgrid[step // 2 : size : step, step // 2 : size : step]
    axes.quiver(x, y, *motion[:, y, x], angles="xy", scale_units="xy", scale=longest / step / 1.5, width=0.004)
    axes.set_title("flow onset → apex")
    # The same colours on a disc; its rim is the longest flow.
    key = axes.inset_axes((0.0, -0.24, 0.2, 0.2))
    wheel = key.imshow(flow_colours(np.mgrid[-1:1:81j, -1:1:81j][::-1], 1.0), extent=(-1, 1, 1, -1))
    wheel.set_clip_path(Circle((0, 0), 1, transform=key.transData))
    key.set_axis_off()
    said = f"full colour: {longest:.1f} px\nof a face {size} px wide"
    axes.text(0.24, -0.14, said, va="center", transform=axes.transAxes)


def _plot_saliency(figure, axes, prediction: Prediction) -> None:
    """Draw saliency on the onset face, in two colours that colour-blind people can tell apart."""
    size, saliency = prediction.images.shape[1], prediction.saliency
    strongest = max(float(np.abs(saliency).max()), 1e-3)
    axes.imshow(prediction.images[0].mean(-1), cmap="gray", vmin=-150, vmax=255)
    shown = axes.imshow(
        saliency,
        cmap="PuOr_r",
        vmin=-strongest,
        vmax=strongest,
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        alpha=0.85 * np.abs(saliency) / strongest,
    )
    axes.set_title("occlusion saliency on the flow")
    bar = figure.colorbar(shown, cax=axes.inset_axes((0.0, -0.08, 1.0, 0.04)), orientation="horizontal")
    bar.ax.locator_params(nbins=5)
    bar.set_label(f"fall of the log-odds of “{prediction.predicted}”\nwithout the flow there")


def _plot_probabilities(axes, prediction: Prediction) -> None:
    names, values = list(prediction.probabilities), list(prediction.probabilities.values())
    colours = [BLUE if name == prediction.predicted else GREY for name in names]
    bars = axes.barh(range(len(names)), values, height=0.5, color=colours)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
    axes.set(xlim=(0, 1.2), xticks=[0, 0.5, 1], xlabel="probability", title="classes")
    axes.set_box_aspect(1)
    # Names are inside, over their bars, because the panel is only as wide as the pictures.
    axes.set_yticks([])
    for place, name in enumerate(names):
        axes.text(0.0, place - 0.3, name, va="bottom")
    axes.set_ylim(len(names) - 0.5, -0.9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def plot_search(search: Search, *, moving: Collection[int], title: str, path: Path) -> None:
    """Every window's score by its first frame, candidates shaded; which windows return, and which show no face.

    Candidates in which the head moves more than an expression does are hatched: those with an onset in `moving`.
    """
    from matplotlib.ticker import MaxNLocator

    faceless = [window.first for window in search.windows if np.isnan(window.score)]
    figure, axes = pyplot().subplots(figsize=(11, 3), layout="constrained")
    for candidate in search.candidates:
        moves = candidate.onset in moving
        label, hatch = ("candidate interval,\nbut the head moves", "///") if moves else ("candidate interval", None)
        if label in axes.get_legend_handles_labels()[1]:
            label = None
        axes.axvspan(candidate.onset, candidate.offset, color=ORANGE, alpha=0.3, linewidth=0, hatch=hatch, label=label)
    for returns, colour, label in ((True, BLUE, "window in which the\nmotion returns"), (False, GREY, "other window")):
        chosen = [(window.first, window.score) for window in search.windows if window.returns == returns]
        axes.plot(*zip(*chosen, strict=True) if chosen else ((), ()), "o", markersize=4, color=colour, label=label)
    axes.axhline(LEAST, color=GREY, linestyle="--", linewidth=1)
    axes.text(0.002, LEAST, f"{LEAST} px", va="bottom", transform=axes.get_yaxis_transform(), color="#555555")
    if faceless:
        axes.plot(faceless, [0.0] * len(faceless), "x", color="black", label="no face")
    firsts, times = zip(*((window.first, window.time) for window in search.windows), strict=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda frame, _: f"{frame:.0f}\n{np.interp(frame, firsts, times):.1f} s")
    axes.set(
        xlabel="first frame of the window",
        ylabel="score (returning motion), px",
        title=f"{title}: candidates, to be checked by a person",
    )
    axes.set_ylim(bottom=-0.02)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
