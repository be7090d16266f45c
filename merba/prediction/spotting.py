"""Candidate intervals in videos that are longer than a micro-expression: where the face moves and returns.

A window of half a second slides over the video. Each is treated as a clip: the face is aligned in its first frame, and the
motion curve of the apex stage is measured from there. A micro-expression rises and falls again within the window; a turn of the
head or the start of a smile only rises. Blinks, speech and swallowing also rise and fall: the results are candidates for a person
to judge, not detections.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from merba.errors import ClipProblem
from merba.frames import Clip
from merba.joblog import counted
from merba.prediction.tracking import FaceTracker
from merba.preprocessing.alignment import alignment_transform
from merba.preprocessing.apex import ApexSettings, motion_curve
from merba.preprocessing.detectors import detectors
from merba.preprocessing.faces import FaceSettings, aligned_grey
from merba.preprocessing.unimodal import unimodal

LONGEST = 0.5
"""The longest duration of a micro-expression, s (Yan et al., "How fast are the leaked facial expressions", 2013)."""
RATE = 30.0
"""The most frames per second that are read: faster videos have more frames of the same motion, not more motion."""
OVERLAP = 4
"""The number of windows that each frame is in."""
RETURN = 1 / 3
"""Share of its rise that a motion must fall by within the window; the rest may be drift of the head."""
FEWEST = 3
"""The fewest frames in which a motion can rise and fall."""
ROUNDED = 0.002
"""Tolerance for time stamps, s: some containers round them to milliseconds."""
LEAST = 0.15
"""Scores below this, in px of the aligned face, are noise: a still face reaches about 0.05."""

Frame = tuple[float, int, np.ndarray]
"""Time, s, number and image."""


@dataclass(frozen=True)
class Window:
    """One position of the window: its first frame and when that is shown (s), onset and offset of the motion, and its heights.

    rise is the peak of the motion curve's unimodal fit; score is how far it falls from there to the window's end. Both are in
    px of the aligned face. Without a face they are NaN, and onset and offset None.
    """

    first: int
    time: float
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
    """Windows and candidate intervals of a video of `fps` frames per second, with a checkpoint's settings.

    If the rate varies, `fps` is the mean, and windows follow the time stamps (see `merba.frames.Video.time`). Only one window's
    frames are in memory. Candidates are the windows that return; of those that overlap, the best is kept.
    Raises ClipProblem if the frame rate is unknown, the video is too short, or no window shows a face.
    """
    cv2.setNumThreads(1)
    if not fps > 0:
        raise ClipProblem(f"{clip.source} has no frame rate, which `--spot` needs; give it with --fps, or in the table of clips")
    windows = list(_windows(clip, fps, FaceSettings.of(faces), ApexSettings.of(apex)))
    if not windows:
        raise ClipProblem(
            f"{clip.source} is shorter than a window of `--spot` ({LONGEST} s), or has fewer than {FEWEST} frames in one; "
            "predict it without `--spot`"
        )
    if all(math.isnan(window.score) for window in windows):
        raise ClipProblem(f"no face was found in any window of {clip.source}; the face must be frontal and well lit")
    return Search(windows, best_windows(windows))


def best_windows(windows: Sequence[Window]) -> list[Window]:
    """The windows in which the face returns, without those that overlap one with a higher score; in order of time."""
    chosen: list[Window] = []
    for window in sorted((window for window in windows if window.returns), key=lambda window: -window.score):
        if all(window.offset < other.onset or window.onset > other.offset for other in chosen):
            chosen.append(window)
    return sorted(chosen, key=lambda window: window.onset)


def _windows(clip: Clip, fps: float, faces: FaceSettings, apex: ApexSettings) -> Iterator[Window]:
    tracker = FaceTracker(detectors(faces.backend, faces.upsample, faces.network, faces.weights), interval=OVERLAP)
    for frames in window_frames(sampled_frames(clip, fps)):
        times, numbers, images = zip(*frames, strict=True)
        # One frame's landmarks are enough: their jitter shifts the whole window, not its motion.
        points = tracker.landmarks(images[0])
        if points is None:
            yield Window(numbers[0], times[0], None, None, math.nan, math.nan)
        else:
            yield Window(numbers[0], times[0], *_measured(numbers, images, points, faces, apex))


def window_frames(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """The frames of each window, LONGEST seconds; each window starts LONGEST / OVERLAP seconds after the one before.

    A window is complete when a later frame has been read. Windows with fewer than FEWEST frames are left out.
    """
    held: deque[Frame] = deque()
    due = -math.inf
    for frame in frames:
        while held and held[0][0] + LONGEST + ROUNDED < frame[0]:
            first, following = held[0][0], (held[1] if len(held) > 1 else frame)[0]
            if (first + following) / 2 >= due:  # this frame is nearer to that time than the next
                due = first + LONGEST / OVERLAP
                if len(held) >= FEWEST:
                    yield list(held)
            held.popleft()
        held.append(frame)


def sampled_frames(clip: Clip, fps: float) -> Iterator[Frame]:
    """Frames at about RATE per second; then the last frame again, at the time at which one more would come."""
    frames: deque[Frame] = deque(maxlen=2)
    before = -math.inf
    for number, image in counted(clip.frames(), clip.expected, f"frames of {clip.source.name}"):
        time = clip.time(number, fps)
        if not frames or time - frames[-1][0] + (time - before) / 2 >= 1 / RATE:
            frames.append((time, number, image))
            yield frames[-1]
        before = time
    if len(frames) == 2:
        (earlier, *_), (last, *frame) = frames
        yield (2 * last - earlier, *frame)


def _measured(
    numbers: Sequence[int], images: Sequence[np.ndarray], points: np.ndarray, faces: FaceSettings, apex: ApexSettings
) -> tuple[int, int, float, float]:
    """Onset, offset, rise and score of a window's frames, aligned by the landmarks (68, 2) of its first frame."""
    transform = alignment_transform(points, faces.size, faces.margin)
    aligned_points = points @ transform[:, :2].T + transform[:, 2]
    curve = motion_curve((aligned_grey(image, transform, faces) for image in images), aligned_points, apex)
    peak, fit = unimodal(curve)
    rise, fall = fit[peak], fit[peak] - fit[-1]
    # The interval reaches to where a tenth of the rise, or of the fall, is left.
    onset = int(np.flatnonzero(fit[: peak + 1] <= rise / 10)[-1]) if rise > 0 else 0
    offset = peak + int(np.flatnonzero(fit[peak:] <= fit[-1] + fall / 10)[0])
    return numbers[onset], numbers[offset], float(rise), float(fall)
