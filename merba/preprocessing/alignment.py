"""Aligned faces: the similarity transform from frame to aligned face, and pixels read under it."""

from __future__ import annotations

import math

import cv2
import numpy as np

# Eye centres, nose tip and mouth corners in a crop of side 1: proportions of the five-point template of ArcFace
# (Deng et al., CVPR 2019), which face recognition aligns to, moved up by 5 % so that the chin is not cut off.
TEMPLATE = (
    np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) / 112
) - [0, 0.05]
CENTRE = np.array([0.5, 0.5])


def five_points(points: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners (5, 2) of 68 landmarks (68, 2); image left first."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 2×3 similarity transform (rotation, scale, shift) that maps points (n, 2) closest to `target` (n, 2).

    Least squares in closed form: Umeyama, IEEE TPAMI 13(4), 1991, for the plane; no reflection.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    # In complex numbers the transform is one factor: z ↦ f z, with f = Σ conj(a) b / Σ |a|².
    za, zb = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    factor = np.vdot(za, zb) / np.vdot(za, za).real
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.hstack([linear, (target.mean(0) - linear @ source.mean(0))[:, None]])


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The 2×3 transform that applies `first` (2, 3), then `second` (2, 3)."""
    return np.hstack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]])


def alignment_transform(points: np.ndarray, size: int, margin: float) -> np.ndarray:
    """The 2×3 transform from frame px to px of the aligned face (size × size), from 68 landmarks (68, 2).

    `margin` widens the template's crop on each side, by this share of its width.
    """
    template = (TEMPLATE - CENTRE) / (1 + 2 * margin) + CENTRE
    # Pixel centres are at whole numbers: the crop spans −0.5 … size − 0.5.
    return similarity(five_points(points), template * size - 0.5)


def align(image: np.ndarray, transform: np.ndarray, size: int, interpolation: str = "area") -> np.ndarray:
    """The aligned face (size, size[, 3]) of a frame under a 2×3 transform from frame px to aligned px.

    `linear` and `cubic` read the frame at each aligned pixel's centre. `area` reads it linearly at points at least as
    close as the frame's own pixels and averages them: a face that is shrunk then has less noise, and no texture finer than
    its pixels, which would seem to move by itself.
    """
    fineness = 1
    if interpolation == "area":
        fineness = max(1, math.ceil(1 / np.hypot(*transform[:, 0])))
    fine = transform * fineness
    fine[:, 2] += (fineness - 1) / 2
    read = cv2.INTER_CUBIC if interpolation == "cubic" else cv2.INTER_LINEAR
    side = size * fineness
    warped = cv2.warpAffine(image, fine, (side, side), flags=read, borderMode=cv2.BORDER_REPLICATE)
    return warped if fineness == 1 else cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
