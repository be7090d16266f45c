"""Grey textures and images that move by known shifts."""

import cv2
import numpy as np


def texture(size, seed=0):
    """Smooth noise (H, W), uint8, as rough as skin."""
    noise = np.random.default_rng(seed).normal(size=size)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 20, 230, cv2.NORM_MINMAX).astype(np.uint8)


def moved(image, dx, dy):
    """The image (H, W[, 3]), moved right and down by so many px."""
    matrix = np.float32([[1, 0, dx], [0, 1, dy]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


FEW = {"epsilon": 1e-6, "scales": 3, "warps": 2, "inner_iterations": 5, "outer_iterations": 2}
"""Flow settings with a fixed number of iterations, so that rounding can't decide when they stop."""
CHANGES = [
    {}, {"tau": 0.1}, {"lambda_": 0.05}, {"theta": 0.5}, {"scales": 1}, {"warps": 1}, {"epsilon": 0.1},
    {"inner_iterations": 2}, {"outer_iterations": 1}, {"scale_step": 0.5}, {"median": 1}, {"median": 3},
]  # fmt: skip
"""Each parameter of TV-L1 changed, and none."""
