"""The apex frame of clips without an annotated one: the peak of the best unimodal fit to a motion curve.

Micro-expressions rise once and fall once ("unimodal pattern constrained" apex spotting, ME-PLAN, Zhao et al. 2022);
noise and drift don't. A fit over the whole curve isn't misled by a single frame, as an argmax is. Blinks also rise and fall
once, and move more than most expressions: the eyes count only if nothing else moves, as in that method's public code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.config.validation import Section
from merba.errors import ClipProblem
from merba.frames import clip_of
from merba.joblog import counted
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, transform_of
from merba.preprocessing.head_motion import RADIUS, disc_mask
from merba.preprocessing.problems import recorded
from merba.preprocessing.unimodal import unimodal
from merba.sheet import KEY

MOVING = (*range(17, 36), *range(48, 68))
"""iBUG landmarks of the regions where expressions move: brows, nose and mouth."""
EYES = range(36, 48)
NOSE = range(27, 36)
"""Landmarks at which the head's own motion is measured. Blinks move the corners of the eyes, which are otherwise still."""
PEAK = 3.0
"""Something has moved if a curve's peak is this many times its lowest value; noise reaches 2, expressions 5 and more."""
CELL = 1 / 28
"""Side of the cells that flow is averaged over, as a share of the face: finer detail is noise at 1 px of motion."""
SMOOTH = 2.0
"""Standard deviation of the smoothing before frames are compared by their grey levels, px."""


@dataclass(frozen=True)
class ApexSettings(Section, name="apex"):
    """How apexes are found; each field is described in merba/config/schemas/config.schema.yaml."""

    curve: str
    radius: float


def motion_curve(frames: Iterable[np.ndarray], points: np.ndarray, settings: ApexSettings) -> np.ndarray:
    """Motion intensity (n,), px, of aligned grey frames uint8 (n, size, size) relative to the first one.

    Dense flow (DIS, Kroeger et al., ECCV 2016) to each frame, minus the head's own motion (the median over the nose), is
    averaged over small cells. The curve is its root mean square over the regions around brows, nose and mouth, or over these
    and the eyes (see `_curve_of`). `points` are landmarks (68, 2) in px of the aligned frames.
    """
    frames = iter(frames)  # one at a time, because those of a long video would not fit into memory
    first = next(frames)
    size = first.shape[0]
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    cells = max(round(size * CELL), 1)
    regions = [
        cv2.resize(region.astype(np.float32), None, fx=1 / cells, fy=1 / cells) > 0.5
        for region in _regions(points, settings.radius, size)
    ]
    nose = np.clip(points[list(NOSE)].round().astype(int), 0, size - 1)
    motions = []
    for frame in frames:
        flow = cv2.blur(solver.calc(first, frame, None), (cells, cells))
        flow -= np.median(flow[nose[:, 1], nose[:, 0]], axis=0)
        moved = cv2.resize(flow, regions[0].shape[::-1], interpolation=cv2.INTER_AREA)
        motions.append([np.sqrt((moved[region] ** 2).sum(-1).mean()) for region in regions])
    return _curve_of(motions)


def difference_curve(frames: Iterable[np.ndarray], points: np.ndarray, settings: ApexSettings) -> np.ndarray:
    """As `motion_curve`, but from the difference in appearance: (n,), grey levels.

    Each frame is smoothed against noise and shifted back by the head's motion (phase correlation around the nose), and the
    first one is subtracted. The curve is the root mean square over the same regions.
    """
    frames = (cv2.GaussianBlur(frame.astype(np.float32), (0, 0), SMOOTH) for frame in frames)
    first = next(frames)
    size = first.shape[0]
    regions = _regions(points, settings.radius, size)
    y, x = np.nonzero(disc_mask(points, NOSE, RADIUS, size))
    nose = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
    window = cv2.createHanningWindow(first[nose].shape[::-1], cv2.CV_32F)
    motions = []
    for frame in frames:
        (u, v), _ = cv2.phaseCorrelate(first[nose], frame[nose], window)
        back = np.array([[1, 0, -u], [0, 1, -v]])
        frame = cv2.warpAffine(frame, back, (size, size), borderMode=cv2.BORDER_REPLICATE)
        motions.append([np.sqrt(((frame - first)[region] ** 2).mean()) for region in regions])
    return _curve_of(motions)


def _regions(points: np.ndarray, radius: float, size: int) -> list[np.ndarray]:
    """Where motion is measured, bool (size, size): around brows, nose and mouth without the eyes, and with them."""
    moving, eyes = (disc_mask(points, landmarks, radius, size) for landmarks in (MOVING, EYES))
    return [moving & ~eyes, moving | eyes]


def _curve_of(motions: Sequence[Sequence[float]]) -> np.ndarray:
    """The curve (n,), 0 at the onset, from the motion of the frames after it (n − 1, 2), without the eyes and with them.

    The eyes are left out unless nothing else moves.
    """
    without, with_eyes = np.array(motions, np.float64).reshape(-1, 2).T
    peaks = len(without) and without.max() > PEAK * without.min()
    return np.append(0.0, without if peaks else with_eyes)


CURVES = {"flow": motion_curve, "difference": difference_curve}
UNITS = {"flow": "px", "difference": "grey levels"}


def apexes_of_subject(
    rows: pd.DataFrame, faces: pd.DataFrame, settings: Mapping[str, Any], face_settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Onset, apex and offset of each of one subject's clips, in the rows' order.

    Columns: dataset, subject, clip; onset, apex, offset (frame numbers, null with a problem); source (`annotation` or
    `detected`); confidence (share of the curve's variance that the unimodal fit explains; 1 for annotations);
    frames, curve, fit (lists, empty for annotations); problem (null if there is none).
    """
    cv2.setNumThreads(1)
    chosen, face_chosen = ApexSettings.of(settings), FaceSettings.of(face_settings)
    records = []
    for row, face in counted(zip(rows.itertuples(), faces.to_dict("records"), strict=True), len(rows), "clips"):
        record = {key: getattr(row, key) for key in KEY} | {
            "onset": pd.NA,
            "apex": pd.NA,
            "offset": pd.NA,
            "source": "annotation" if pd.notna(row.apex) else "detected",
            "confidence": np.nan,
            "frames": [],
            "curve": [],
            "fit": [],
            "problem": None,
        }
        with recorded(record, row):
            if pd.notna(face["problem"]):
                raise ClipProblem(face["problem"])
            record |= _apex_of_clip(row, face, chosen, face_chosen)
        records.append(record)
    return pd.DataFrame(records).astype(
        {"onset": "Int64", "apex": "Int64", "offset": "Int64", "confidence": "float64", "problem": "str"}
    )


def _apex_of_clip(row: Any, face: Mapping[str, Any], settings: ApexSettings, face_settings: FaceSettings) -> dict[str, Any]:
    if pd.notna(row.apex):
        return {"onset": row.onset, "apex": row.apex, "offset": row.offset, "confidence": 1.0}
    onset, offset = (None if pd.isna(value) else int(value) for value in (row.onset, row.offset))
    clip, transform = clip_of(row), transform_of(face)
    numbers: list[int] = []

    def aligned() -> Iterator[np.ndarray]:
        for number, image in clip.frames(onset, offset):
            numbers.append(number)
            yield aligned_grey(image, transform, face_settings)

    curve = CURVES[settings.curve](aligned(), aligned_landmarks(face), settings)
    if len(numbers) < 3:
        raise ClipProblem(
            f"{row.source} has too few frames from onset to offset ({len(numbers)}); finding an apex takes at least 3"
        )
    peak, fit = unimodal(curve)
    # The onset frame can't be the apex, even if nothing moves.
    peak = max(peak, 1)
    spread = float(((curve - curve.mean()) ** 2).sum())
    return {
        "onset": numbers[0],
        "apex": numbers[peak],
        "offset": numbers[-1],
        "confidence": 1 - float(((curve - fit) ** 2).sum()) / spread if spread else 0.0,
        "frames": numbers,
        "curve": curve.tolist(),
        "fit": fit.tolist(),
    }
