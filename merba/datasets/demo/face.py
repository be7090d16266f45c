"""The demo's face: a real photograph, its 68 landmarks, and the smooth movements that its regions can make.

The photograph is NASA's portrait of Eileen Collins (public domain), which scikit-image ships as `astronaut`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

# Pixels of the 512×512 photograph: mean of dlib's 68-point model at 1, 2, 3 and 4 times its size (scatter 0.2 px).
# Right and left are the person's own.
LANDMARKS = np.array([
    # jaw, 0 to 16
    (179.3, 104.1), (179.8, 115.8), (180.8, 126.9), (181.9, 138.4), (184.8, 149.7), (190.9, 160.0),
    (199.8, 168.1), (209.0, 175.6), (220.1, 178.2), (231.9, 176.8), (242.7, 171.1), (252.7, 163.4),
    (260.0, 154.0), (264.8, 143.1), (267.7, 131.4), (270.0, 120.1), (271.8, 108.0),
    # right brow, 17 to 21
    (186.0, 94.2), (191.9, 88.2), (200.2, 87.1), (208.6, 88.8), (216.4, 92.2),
    # left brow, 22 to 26
    (235.9, 93.4), (243.9, 90.8), (252.1, 90.6), (260.1, 92.3), (265.2, 98.8),
    # nose, 27 to 35
    (225.8, 102.2), (225.4, 110.8), (225.2, 118.8), (225.0, 127.2), (214.1, 131.0), (219.1, 132.7),
    (224.2, 134.2), (229.4, 133.0), (234.2, 131.9),
    # right eye, 36 to 41
    (195.0, 101.1), (200.2, 97.8), (206.9, 98.4), (212.2, 103.9), (206.2, 104.2), (199.6, 103.8),
    # left eye, 42 to 47
    (237.4, 105.4), (243.2, 100.2), (249.8, 100.4), (255.1, 104.3), (250.1, 106.5), (243.8, 106.3),
    # outer lips, 48 to 59
    (200.4, 138.8), (208.9, 139.0), (217.8, 139.3), (223.4, 140.8), (229.6, 139.9), (237.6, 140.2),
    (245.8, 140.7), (237.6, 150.8), (229.0, 154.8), (222.1, 155.6), (215.9, 154.6), (207.6, 149.6),
    # inner lips, 60 to 67
    (203.2, 140.4), (217.4, 142.8), (223.0, 144.1), (229.5, 143.2), (242.7, 141.8), (229.0, 149.8),
    (222.8, 150.5), (216.8, 149.5),
])  # fmt: skip
FACE_WIDTH = float(np.ptp(LANDMARKS[:, 0]))
FACE_CENTRE = (LANDMARKS.min(0) + LANDMARKS.max(0)) / 2

# Width of the square that alignment cuts out, in widths of the landmark box: the box and a margin over the forehead.
CROP_WIDTHS = 1.25

SIDES = ("right", "left")

# Landmarks whose mean is the centre of a region, on the right and the left side of the face.
REGIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "inner brow": ((20, 21), (22, 23)),
    "outer brow": ((18, 19), (24, 25)),
    "upper lid": ((37, 38), (43, 44)),
    "lower lid": ((40, 41), (46, 47)),
    "cheek": ((31, 41, 48), (35, 46, 54)),
    "nostril": ((31,), (35,)),
    "upper lip": ((49, 50), (52, 53)),
    "lip corner": ((48, 60), (54, 64)),
    "lower lip": ((58, 59), (55, 56)),
    "chin": ((7, 8), (8, 9)),
    "jaw": ((3, 4, 5), (11, 12, 13)),
}

# What each expression moves, after the action units (AU) of FACS: region → (outward, downward), relative sizes.
# A key (region, side) moves one side only.
Movement = Mapping[str | tuple[str, str], tuple[float, float]]
MOVEMENTS: dict[str, Movement] = {
    # AU 4, 5, 7, 24: brows lowered and drawn together, lids tightened, lips pressed
    "anger": {
        "inner brow": (-0.5, 0.9), "outer brow": (-0.1, 0.5), "lower lid": (0, -0.5),
        "upper lip": (0, 0.4), "lower lip": (0, -0.7), "lip corner": (-0.4, 0),
    },
    # AU 12 and 14 of one side
    "contempt": {("lip corner", "left"): (0.8, -0.8), ("cheek", "left"): (0.2, -0.4)},
    # AU 9, 10: nose wrinkled, upper lip raised
    "disgust": {"nostril": (0, -0.8), "upper lip": (0, -0.9), "inner brow": (-0.2, 0.4), "cheek": (0, -0.4)},
    # AU 1, 2, 4, 5, 20: brows raised and drawn together, lids opened, lips stretched
    "fear": {
        "inner brow": (-0.5, -0.9), "outer brow": (-0.2, -0.5), "upper lid": (0, -0.4), "lower lid": (0, 0.3),
        "lip corner": (0.9, 0.1), "lower lip": (0.3, 0.2),
    },
    # AU 6, 12: lip corners and cheeks raised
    "happiness": {"lip corner": (0.6, -0.8), "cheek": (0.1, -0.5), "lower lid": (0, -0.2)},
    # AU 1, 4, 15: inner brows raised, lip corners lowered
    "sadness": {"inner brow": (-0.4, -0.9), "lip corner": (-0.1, 0.8), "chin": (0, -0.3)},
    # AU 1, 2, 5, 26: brows raised, eyes opened, jaw dropped
    "surprise": {
        "inner brow": (0, -0.9), "outer brow": (0, -0.9), "upper lid": (0, -0.5), "lower lid": (0, 0.4),
        "lower lip": (0, 0.3), "chin": (0, 0.4),
    },
    # AU 4 and 15: what the three-class datasets call negative
    "negative": {"inner brow": (-0.3, 0.9), "outer brow": (0, 0.6), "lip corner": (0.1, 0.9)},
}  # fmt: skip
MOVEMENTS["positive"] = MOVEMENTS["happiness"]


class Bump(NamedTuple):
    """A Gaussian displacement: its centre and peak vector in pixels, its standard deviation in pixels."""

    x: float
    y: float
    u: float
    v: float
    sigma: float


def photograph() -> np.ndarray:
    """The portrait, float32 BGR (512, 512, 3), grey levels."""
    from skimage.data import astronaut

    return cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR).astype(np.float32)


def region_bumps(
    movement: Movement, landmarks: np.ndarray, sigma: float, weights: Mapping[tuple[str, str], float] | None = None
) -> list[Bump]:
    """The bumps of a movement on a face with these landmarks ((68, 2) px), `sigma` px wide.

    Outward and downward follow the face's own axes, from the line between the outer eye corners; `weights` scales
    the parts of the movement, by (region, side).
    """
    across = landmarks[45] - landmarks[36]
    across /= np.hypot(*across)
    down = np.array([-across[1], across[0]])
    bumps = []
    for key, (outward, downward) in movement.items():
        region, sides = (key, SIDES) if isinstance(key, str) else (key[0], (key[1],))
        for side in sides:
            weight = 1.0 if weights is None else weights[region, side]
            centre = landmarks[list(REGIONS[region][SIDES.index(side)])].mean(0)
            vector = weight * (outward * across * (1 if side == "left" else -1) + downward * down)
            bumps.append(Bump(*centre, *vector, sigma))
    return bumps


def field(bumps: list[Bump], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sum of the bumps at points (x, y) px, which broadcast: float64 (2, *shape), u and v in px."""
    total = np.zeros((2, *np.broadcast_shapes(x.shape, y.shape)))
    for bump in bumps:
        across = np.exp(-0.5 * ((x - bump.x) / bump.sigma) ** 2)
        down = np.exp(-0.5 * ((y - bump.y) / bump.sigma) ** 2)
        total += np.multiply.outer((bump.u, bump.v), across * down)
    return total
