"""Flow images of a user's clips, made like the public ones of the MEGC2019 composite, and how far a face moves in them."""

from __future__ import annotations

import numpy as np

from merba.preprocessing.alignment import align, similarity
from merba.preprocessing.flow import strain
from merba.preprocessing.packs import RELEASED, ImageForm


def flow_images(flow: np.ndarray, points: np.ndarray, form: ImageForm) -> np.ndarray:
    """Images, uint8 (n, 3, size, size), of flow (n, 2, H, W) in px of aligned faces with the five `points` (n, 5, 2).

    Channels are u, v and strain. A constant channel is 0.
    """
    cut = np.stack([_cut(*clip, form) for clip in zip(flow, points, strict=True)])
    low, high = cut.min((2, 3), keepdims=True), cut.max((2, 3), keepdims=True)
    return np.rint(255 * (cut - low) / np.maximum(high - low, np.finfo(np.float32).tiny)).astype(np.uint8)


def movement(flow: np.ndarray, points: np.ndarray) -> float:
    """How far a face moves relative to its head, px of the aligned face, from its flow (2, H, W) and five `points` (5, 2).

    The 95th percentile of the length of the flow minus its median, over the crop of RELEASED at its resolution.
    """
    inside = _cut(flow, points, RELEASED)[:2]
    return float(np.quantile(np.hypot(*(inside - np.median(inside, axis=(1, 2), keepdims=True))), 0.95))


def image_transform(points: np.ndarray, form: ImageForm) -> np.ndarray:
    """The 2×3 transform from px of an aligned face with these five points (5, 2) to px of its flow image."""
    return similarity(points, np.array(form.template) * form.size - 0.5)


def _cut(flow: np.ndarray, points: np.ndarray, form: ImageForm) -> np.ndarray:
    """u, v (px of the aligned face, along the image's axes) and strain (px a px) in the image's pixels, (3, size, size)."""
    flow, transform = flow.astype(np.float32), image_transform(points, form)
    turn = transform[:, :2] / np.hypot(*transform[:, 0])
    channels = np.stack([*np.einsum("ij,jyx->iyx", turn, flow), strain(flow)], axis=-1).astype(np.float32)
    return align(channels, transform, form.size, form.resizing).transpose(2, 0, 1)
