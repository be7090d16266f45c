"""What every figure shares: how matplotlib is set up, the palette, saving, and flow as colours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"
"""From Okabe and Ito's palette, which colour-blind people can tell apart."""
EAST_ASIAN = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei",
    "PingFang SC", "Hiragino Sans GB", "Heiti TC", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo",
)  # fmt: skip
"""Fonts of Linux, Windows and macOS with Chinese, Japanese or Korean characters, which names of clips may have."""


def pyplot():
    """matplotlib.pyplot, set up to draw only to files. Text in SVG stays text, and equal figures give equal files."""
    import matplotlib
    from matplotlib.font_manager import get_font_names

    installed = get_font_names()
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns of fonts without bold characters
    matplotlib.use("agg")
    matplotlib.rcParams.update(
        {
            # DejaVu Sans comes with matplotlib, so figures are the same everywhere. The others have the characters that it lacks.
            "font.family": ["DejaVu Sans", *(font for font in EAST_ASIAN if font in installed)],
            "text.parse_math": False,  # names of clips may have dollar signs
            "svg.fonttype": "none",
            "svg.hashsalt": "merba",
        }
    )
    from matplotlib import pyplot

    return pyplot


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, which ends in .png, .svg or .pdf, and close it."""
    figure.savefig(path, dpi=DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot().close(figure)


def flow_colours(flow: np.ndarray, longest: float) -> np.ndarray:
    """A flow (2, H, W) as RGB uint8 (H, W, 3): hue is the direction, saturation the length up to `longest` px."""
    from matplotlib.colors import hsv_to_rgb

    u, v = flow.astype(np.float32)
    hue = np.arctan2(v, u) / (2 * np.pi) % 1
    saturation = np.clip(np.hypot(u, v) / longest, 0, 1)
    return np.uint8(255 * hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], -1)))
