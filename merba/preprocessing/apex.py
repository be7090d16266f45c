"""The apex frame of clips without an annotated one: the peak of the best unimodal fit to a motion curve.

Micro-expressions rise once and fall once ("unimodal pattern constrained" apex spotting, ME-PLAN, Zhao et al. 2022);
noise, blinks and drift don't, and a fit over the whole curve is not fooled by a single frame as an argmax would be.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.errors import ClipProblem
from merba.frames import open_clip
from merba.joblog import counted
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, transform_of
from merba.preprocessing.head_motion import RADIUS, STABLE, disc_mask
from merba.preprocessing.unimodal import unimodal
from merba.sheet import KEY

log = logging.getLogger(__name__)

MOVING = range(17, 68)
"""iBUG landmarks of the regions where expressions move: brows, nose, eyes and mouth."""
CELL = 1 / 28
"""Side of the cells that flow is averaged over, as a share of the face: finer detail is noise at 1 px of motion."""
SMOOTH = 2.0
"""Standard deviation of the smoothing before frames are compared by their grey levels, px."""


@dataclass(frozen=True)
class ApexSettings:
    """How apexes are found; each field is described in merba/config/schemas/config.schema.yaml."""

    curve: str = "flow"
    radius: float = 0.08


def motion_curve(frames: Iterable[np.ndarray], points: np.ndarray, settings: ApexSettings) -> np.ndarray:
    """Motion intensity (n,), px, of aligned grey frames uint8 (n, size, size) against the first one.

    Dense flow (DIS, Kroeger et al., ECCV 2016) to each frame, less the head's own motion (the median over the stable
    landmarks), averaged over small cells, as a root mean square over the regions around brows, eyes, nose and mouth.
    `points` are landmarks (68, 2) in px of the aligned frames.
    """
    frames = iter(frames)  # one at a time: a long video's would not fit into memory
    first = next(frames)
    size = first.shape[0]
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    cells = max(round(size * CELL), 1)
    region = disc_mask(points, MOVING, settings.radius, size).astype(np.float32)
    where = cv2.resize(region, None, fx=1 / cells, fy=1 / cells)
    where = where > 0.5
    stable = np.clip(points[list(STABLE)].round().astype(int), 0, size - 1)
    curve = [0.0]
    for frame in frames:
        flow = cv2.blur(solver.calc(first, frame, None), (cells, cells))
        flow -= np.median(flow[stable[:, 1], stable[:, 0]], axis=0)
        moved = cv2.resize(flow, where.shape[::-1], interpolation=cv2.INTER_AREA)[where]
        curve.append(float(np.sqrt((moved**2).sum(-1).mean())))
    return np.array(curve)


def difference_curve(frames: Iterable[np.ndarray], points: np.ndarray, settings: ApexSettings) -> np.ndarray:
    """As `motion_curve`, but from the difference in appearance: (n,), grey levels.

    Each frame, smoothed against noise and moved back by what the head shifted (phase correlation around the stable
    landmarks), less the first one; as a root mean square over the same regions.
    """
    frames = (cv2.GaussianBlur(frame.astype(np.float32), (0, 0), SMOOTH) for frame in frames)
    first = next(frames)
    size = first.shape[0]
    region = disc_mask(points, MOVING, settings.radius, size)
    y, x = np.nonzero(disc_mask(points, STABLE, RADIUS, size))
    stable = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
    window = cv2.createHanningWindow(first[stable].shape[::-1], cv2.CV_32F)
    curve = [0.0]
    for frame in frames:
        (u, v), _ = cv2.phaseCorrelate(first[stable], frame[stable], window)
        back = np.array([[1, 0, -u], [0, 1, -v]])
        frame = cv2.warpAffine(frame, back, (size, size), borderMode=cv2.BORDER_REPLICATE)
        curve.append(float(np.sqrt(((frame - first)[region] ** 2).mean())))
    return np.array(curve)


CURVES = {"flow": motion_curve, "difference": difference_curve}
UNITS = {"flow": "px", "difference": "grey levels"}


def apexes_of_subject(
    rows: pd.DataFrame, faces: pd.DataFrame, settings: Mapping[str, Any], face_settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Onset, apex and offset of each of one subject's clips, in the rows' order.

    Columns: dataset, subject, clip; onset, apex, offset (frame numbers, null with a problem); source (`annotation` or
    `detected`); confidence (share of the curve's variance that the unimodal fit explains; 1 for annotations);
    frames, curve, fit (lists, empty for annotations); problem (null where all is well).
    """
    cv2.setNumThreads(1)
    chosen, face_chosen = ApexSettings(**settings), FaceSettings(**face_settings)
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
        try:
            if pd.notna(face["problem"]):
                raise ClipProblem(face["problem"])
            record |= _apex_of_clip(row, face, chosen, face_chosen)
        except ClipProblem as problem:
            record["problem"] = str(problem)
            log.warning("%s %s %s: %s", row.dataset, row.subject, row.clip, problem)
        records.append(record)
    return pd.DataFrame(records).astype(
        {"onset": "Int64", "apex": "Int64", "offset": "Int64", "confidence": "float64", "problem": "str"}
    )


def _apex_of_clip(row: Any, face: Mapping[str, Any], settings: ApexSettings, face_settings: FaceSettings) -> dict[str, Any]:
    if pd.notna(row.apex):
        return {"onset": row.onset, "apex": row.apex, "offset": row.offset, "confidence": 1.0}
    onset, offset = (None if pd.isna(value) else int(value) for value in (row.onset, row.offset))
    clip, transform = open_clip(row.source, row.kind), transform_of(face)
    numbers: list[int] = []

    def aligned() -> Iterator[np.ndarray]:
        for number, image in clip.frames(onset, offset):
            numbers.append(number)
            yield aligned_grey(image, transform, face_settings)

    curve = CURVES[settings.curve](aligned(), aligned_landmarks(face), settings)
    if len(numbers) < 3:
        raise ClipProblem(f"{row.source} has {len(numbers)} frames from onset to offset; finding an apex takes at least 3")
    peak, fit = unimodal(curve)
    # The onset frame is no apex of its own, even where nothing moves.
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
