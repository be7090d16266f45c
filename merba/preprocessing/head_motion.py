"""The motion of the whole head between two aligned frames: its length, and the similarity transform that removes it.

One transform per clip aligns every frame in the same way, and so keeps this motion. It is measured by dense flow where
expressions move a face least: around the bridge of the nose and the corners of the eyes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from merba.preprocessing.alignment import similarity

STABLE = (27, 28, 29, 30, 36, 39, 42, 45)
"""iBUG landmarks of the bridge of the nose and the corners of the eyes."""
RADIUS = 0.05
"""Radius of the stable region around each of them, as a share of the aligned face."""
AROUND = 16
"""Width, px, of the margin of dense flow around that region; if it moves more than half as far, the whole face is used."""


class HeadMotion(NamedTuple):
    """Motion of the stable region from onset to apex.

    `back`: the 2×3 similarity transform that takes points of the aligned apex back to where the head was at the onset.
    `length`: the mean distance, px of the aligned face, by which it moves the region's points, so that turns count as well.
    """

    length: float
    back: np.ndarray


def disc_mask(points: np.ndarray, landmarks: Sequence[int], radius: float, size: int) -> np.ndarray:
    """Discs of `radius` · size around some of 68 landmarks (68, 2), px, as bool (size, size)."""
    mask = np.zeros((size, size), np.uint8)
    for x, y in points[list(landmarks)]:
        cv2.circle(mask, (round(x), round(y)), round(radius * size), 1, -1)
    return mask.astype(bool)


def head_motion(onset: np.ndarray, apex: np.ndarray, points: np.ndarray) -> HeadMotion:
    """The head's motion between two aligned grey faces, uint8 (size, size), with the onset's landmarks (68, 2)."""
    region = disc_mask(points, STABLE, RADIUS, onset.shape[0])
    y, x = np.nonzero(region)
    near = np.s_[max(y.min() - AROUND, 0) : y.max() + AROUND + 1, max(x.min() - AROUND, 0) : x.max() + AROUND + 1]
    if np.hypot(*np.median(_flow(onset, apex, 2)[region], axis=0)) > AROUND / 2:
        near = np.s_[:, :]
    # Full resolution has half the preset's error. It takes three times as long on the whole face as near the region.
    moved = _flow(onset[near], apex[near], 0)[region[near]].astype(np.float64)
    places = np.stack([x, y], axis=1)
    back = similarity(places + moved, places)
    shift = (places + moved) @ back[:, :2].T + back[:, 2] - (places + moved)
    return HeadMotion(float(np.hypot(*shift.T).mean()), back)


def _flow(first: np.ndarray, second: np.ndarray, finest: int) -> np.ndarray:
    """Dense flow (H, W, 2), px; the finest scale has the images halved `finest` times."""
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    solver.setFinestScale(finest)
    return solver.calc(np.ascontiguousarray(first), np.ascontiguousarray(second), None)
