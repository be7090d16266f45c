"""Scan orders: in which sequence the tokens of a window are visited (paper, Section III-C and Table VII)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

PATHS = ("hr", "vr", "hz", "vz")
DIRECTIONS = tuple(path + suffix for path in PATHS for suffix in ("", "_reverse", "_mirror"))

# The directions of the paper and, inside the same window, those of the scans it is compared with. ViM reads the
# raster forwards and backwards, VMamba's cross-scan adds the vertical raster, LocalMamba applies that to windows
# instead of the whole image: inside a window the two are equal. PlainMamba walks continuous (zigzag) paths.
PRESETS: dict[str, tuple[str, ...]] = {
    "merba": ("hr", "vr", "hz", "vz"),
    "vim": ("hr", "hr_reverse"),
    "vmamba": ("hr", "vr", "hr_reverse", "vr_reverse"),
    "localmamba": ("hr", "vr", "hr_reverse", "vr_reverse"),
    "plainmamba": ("hz", "vz", "hz_reverse", "vz_reverse"),
}


def scan_order(direction: str, height: int, width: int) -> np.ndarray:
    """Raster index of the token visited at each step: int64 (height * width,).

    `hr`, `vr`: horizontal and vertical raster; `hz`, `vz`: horizontal and vertical zigzag (every second line
    backwards). All four start at the top-left token. The suffix `_reverse` walks the same path backwards,
    `_mirror` the path of the horizontally mirrored window. Unknown directions and empty maps raise ValueError.
    """
    path, _, variant = direction.partition("_")
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown scan direction {direction!r}; known: {', '.join(DIRECTIONS)}")
    if height < 1 or width < 1:
        raise ValueError(f"a map of {height}×{width} tokens has nothing to scan; both sides must be at least 1")

    raster = np.arange(height * width).reshape(height, width)
    if variant == "mirror":
        raster = raster[:, ::-1]
    lines = (raster.T if path[0] == "v" else raster).copy()
    if path[1] == "z":
        lines[1::2] = lines[1::2, ::-1]
    order = lines.reshape(-1)
    return order[::-1].copy() if variant == "reverse" else order


def window_paths(directions: Sequence[str], height: int, width: int, window: int | None) -> np.ndarray:
    """Paths through the windows of a map: int32 (K directions, windows, length), indices into the map's raster.

    Windows of `window`×`window` tokens do not overlap and are listed in raster order; those at the right and lower
    edge hold only real tokens, and their shorter paths are padded with -1 at the end. `window=None` is one window over
    the whole map. Results are cached; the returned array is a copy.
    """
    return _window_paths(tuple(directions), height, width, window).copy()


@lru_cache(maxsize=256)
def _window_paths(directions: tuple[str, ...], height: int, width: int, window: int | None) -> np.ndarray:
    if not directions:
        raise ValueError(f"no scan direction given; choose from {', '.join(DIRECTIONS)}")
    if window is not None and window < 1:
        raise ValueError(f"a window of {window} tokens has nothing to scan; it must be at least 1, or None")
    rows, columns = min(window or height, height), min(window or width, width)
    raster = np.arange(height * width, dtype=np.int32).reshape(height, width)
    windows = [
        raster[top : top + rows, left : left + columns] for top in range(0, height, rows) for left in range(0, width, columns)
    ]
    paths = np.full((len(directions), len(windows), rows * columns), -1, np.int32)
    for k, direction in enumerate(directions):
        for w, tokens in enumerate(windows):
            paths[k, w, : tokens.size] = tokens.reshape(-1)[scan_order(direction, *tokens.shape)]
    return paths
