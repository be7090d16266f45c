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
