"""Candidate intervals in videos that are longer than a micro-expression: where the face moves and returns.

A window of half a second slides over the video. Each is treated as a clip: the face is found and aligned in its first
frame, and the motion curve of the apex stage is measured from there. A micro-expression rises and falls again within
the window; what only rises (a turn of the head, the start of a smile) does not. So do blinks, words and swallowing:
what is found are candidates for a person to judge, not detections.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np

from merba.errors import ClipProblem
from merba.frames import Clip
from merba.joblog import counted
from merba.preprocessing.alignment import alignment_transform
from merba.preprocessing.apex import ApexSettings, motion_curve
from merba.preprocessing.detectors import Detector, Face, detectors
from merba.preprocessing.faces import FaceSettings, aligned_grey, chosen_face, credible_faces
from merba.preprocessing.unimodal import unimodal

LONGEST = 0.5
"""Seconds that a micro-expression lasts at most (Yan et al., "How fast are the leaked facial expressions", 2013)."""
RATE = 30.0
"""Frames a second that are looked at, at most: faster videos hold more frames of the same motion, not more motion."""
OVERLAP = 4
"""Windows that each frame is in."""
RETURN = 1 / 3
"""Share of its rise that a motion must fall by within the window: the head may drift on meanwhile, but not by more."""
LEAST = 0.15
"""Scores below this, in px of the aligned face, are noise: a still face reaches about 0.05."""


@dataclass(frozen=True)
class Window:
    """One place of the window: first frame, the onset and offset of the rise and fall in it, and their heights.

    rise is the peak of the motion curve's unimodal fit, score what that falls from there to the window's end, both in px
    of the aligned face. Without a face they are NaN, and onset and offset None.
    """

    first: int
    onset: int | None
    offset: int | None
    rise: float
    score: float

    @property
    def returns(self) -> bool:
        """Whether this may be a candidate: the face moves, and moves back."""
        return self.score >= max(LEAST, RETURN * self.rise)


@dataclass(frozen=True)
class Search:
    """Every window of a video, in order, and the candidates among them."""

    windows: Sequence[Window]
    candidates: Sequence[Window]


def search(clip: Clip, fps: float, faces: Mapping[str, Any], apex: Mapping[str, Any]) -> Search:
    """Windows and candidate intervals of a video of `fps` frames a second, under a checkpoint's settings.

    One window's frames are in memory. Candidates are the windows that return; of those that overlap, the best is kept.
    Raises ClipProblem where the frame rate is unknown, the video is too short, or no window shows a face.
    """
    cv2.setNumThreads(1)
    if not fps > 0:
        raise ClipProblem(f"{clip.source} has no frame rate, which `--spot` needs; give it by --fps, or in the CSV file")
    step = max(round(fps / RATE), 1)
    length = math.floor(LONGEST * fps / step) + 1
    windows = list(_windows(clip, step, length, FaceSettings(**faces), ApexSettings(**apex)))
    if not windows:
        raise ClipProblem(f"{clip.source} is shorter than a window of `--spot` ({LONGEST} s); predict it without `--spot`")
    if all(math.isnan(window.score) for window in windows):
        raise ClipProblem(f"no face was found in any window of {clip.source}; the face must be frontal and well lit")
    return Search(windows, best_windows(windows))


def best_windows(windows: Sequence[Window]) -> list[Window]:
    """The windows in which the face returns, without those that overlap one of a higher score; by time."""
    chosen: list[Window] = []
    for window in sorted((one for one in windows if one.returns), key=lambda one: -one.score):
        if all(window.offset < other.onset or window.onset > other.offset for other in chosen):
            chosen.append(window)
    return sorted(chosen, key=lambda window: window.onset)


def _windows(clip: Clip, step: int, length: int, faces: FaceSettings, apex: ApexSettings) -> Iterator[Window]:
    backends = list(detectors(faces.backend, faces.upsample, faces.network, faces.weights))
    held: deque[tuple[int, np.ndarray]] = deque(maxlen=length)
    earlier: list[Face] = []
    stride = max(length // OVERLAP, 1)
    frames = counted(islice(clip.frames(), 0, None, step), math.ceil(clip.expected / step), f"frames of {clip.source.name}")
    for place, frame in enumerate(frames):
        held.append(frame)
        start = place + 1 - length
        if start < 0 or start % stride:
            continue
        numbers, images = zip(*held, strict=True)
        if (found := _find(images[0], backends, earlier)) is None:
            yield Window(numbers[0], None, None, math.nan, math.nan)
        else:
            earlier = [found[1]]
            yield _measure(numbers, images, *found, faces, apex)


def _find(image: np.ndarray, backends: Sequence[Detector], earlier: Sequence[Face]) -> tuple[Detector, Face] | None:
    """The face most like that of the window before, or the largest."""
    for detector in backends:
        if seen := detector.faces(image):
            return detector, chosen_face(credible_faces(seen), earlier)[0]
    return None


def _measure(
    numbers: Sequence[int],
    images: Sequence[np.ndarray],
    detector: Detector,
    face: Face,
    faces: FaceSettings,
    apex: ApexSettings,
) -> Window:
    # One frame's landmarks do: their jitter shifts the whole window, not its motion.
    points = detector.landmarks(images[:1], face)
    transform = alignment_transform(points, faces.size, faces.margin)
    aligned_points = points @ transform[:, :2].T + transform[:, 2]
    curve = motion_curve((aligned_grey(image, transform, faces) for image in images), aligned_points, apex)
    peak, fit = unimodal(curve)
    rise, fall = fit[peak], fit[peak] - fit[-1]
    # The interval ends where a tenth of the rise, or of the fall, is left.
    onset = int(np.flatnonzero(fit[: peak + 1] <= rise / 10)[-1]) if rise > 0 else 0
    offset = peak + int(np.flatnonzero(fit[peak:] <= fit[-1] + fall / 10)[0])
    return Window(numbers[0], numbers[onset], numbers[offset], float(rise), float(fall))
