"""A figure of a view: the frames of a few clips, as a model sees them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from merba.figures import flow_colours, pyplot, save
from merba.preprocessing.packs import ClipFlow
from merba.preprocessing.views.settings import CHANNELS, ViewSettings


def plot_view(rows: pd.DataFrame, clips: Iterable[ClipFlow], view: ViewSettings, path: Path) -> None:
    """One row of panels per clip of `rows`, its frames in order of time; `clips` are their views, of grey levels or flow.

    Flow is shown in colours: hue is the direction, and full colour is the clip's 99th percentile of length.
    """
    channels = CHANNELS[view.keep]
    columns = view.length * (1 + (view.keep == "grey_flow"))
    side = max(1.1, 4 / columns)
    figure, grid = pyplot().subplots(
        len(rows), columns, figsize=(side * columns, (side + 0.25) * len(rows)), squeeze=False, layout="constrained"
    )
    for axes, row, clip in zip(grid, rows.itertuples(), clips, strict=True):
        axes[0].set_ylabel(f"{row.subject} {row.clip}\n{row.label}", fontsize=7)
        for panel in axes:
            panel.set(xticks=[], yticks=[])
        if clip.problem:
            axes[0].text(0, 0.5, clip.problem, va="center", fontsize=7, transform=axes[0].transAxes)
            continue
        frames = clip.flow.astype(np.float32)
        if "grey" in channels:
            for panel, frame in zip(axes, frames[:, 0], strict=False):
                panel.imshow(frame, cmap="grey", vmin=0, vmax=255)
        if "u" in channels:
            flow = frames[:, -2:]
            longest = float(np.quantile(np.hypot(*flow.swapaxes(0, 1)), 0.99)) or 1.0
            for panel, frame in zip(axes[-view.length :], flow, strict=True):
                panel.imshow(flow_colours(frame, longest))
            axes[-1].set_xlabel(f"full colour: {longest:.1f} px", fontsize=7)
    for number, panel in enumerate(grid[0][: view.length], start=1):
        panel.set_title(str(number), fontsize=7)
    save(figure, path)
