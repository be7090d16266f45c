"""Following one face through a video: it is detected now and then, and tracked in between."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from merba.preprocessing.detectors import Detector, Face
from merba.preprocessing.faces import chosen_face, credible_faces


class FaceTracker:
    """Landmarks of the same face in frames that follow each other closely.

    It is detected in every `interval`-th frame: first the largest face, then the one most similar to the last one. In between,
    the landmarks are searched where they were in the frame before. The detector that finds the first face is used for all later
    frames, so that a frame without a face costs only one search.
    """

    def __init__(self, backends: Iterable[Detector], interval: int) -> None:
        self._backends = list(backends)
        self._interval = interval
        self._face: Face | None = None
        self._points: np.ndarray | None = None
        self._since = 0  # frames since the last detection

    def landmarks(self, image: np.ndarray) -> np.ndarray | None:
        """Landmarks (68, 2), px, in the next frame, uint8 BGR (H, W, 3); None if no face is detected."""
        self._since += 1
        points = None
        if self._points is not None and self._since < self._interval:
            points = self._backends[0].followed(image, self._points, self._face)
        if points is None:
            points, self._since = self._detected(image), 0
        self._points = points
        return points

    def _detected(self, image: np.ndarray) -> np.ndarray | None:
        for detector in self._backends:
            if seen := detector.faces(image):
                self._face, _ = chosen_face(credible_faces(seen), [self._face] if self._face else [])
                self._backends = [detector]
                return detector.landmarks([image], self._face)
        return None
