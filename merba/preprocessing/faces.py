"""Faces: detection on the onset frame, 68 landmarks, and one similarity transform for the whole clip.

Aligning every frame by itself would erase or invent micro-motion, because landmarks jitter more than the face moves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.config.validation import Section
from merba.errors import ClipProblem
from merba.frames import clip_of
from merba.joblog import counted
from merba.preprocessing.alignment import align, alignment_transform
from merba.preprocessing.detectors import Detector, Face, detectors
from merba.preprocessing.problems import name_of, recorded
from merba.sheet import KEY

log = logging.getLogger(__name__)

DOUBTFUL = 0.5
"""A face that scores less than this share of the frame's best is taken for a false alarm of the detector."""


@dataclass(frozen=True)
class FaceSettings(Section, name="faces"):
    """How faces are found and aligned; each field is described in merba/config/schemas/config.schema.yaml."""

    backend: str
    upsample: int
    network: str
    weights: str | None
    size: int
    margin: float
    interpolation: str
    landmark_frames: int


@dataclass(frozen=True)
class Seen:
    """The faces that one detector sees in a clip's onset frame; the false alarms are left out of `faces`."""

    detector: Detector
    faces: list[Face]


def aligned_grey(image: np.ndarray, transform: np.ndarray, settings: FaceSettings) -> np.ndarray:
    """The aligned grey face, uint8 (size, size), of a BGR frame under a 2×3 transform from frame px to aligned px."""
    return align(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), transform, settings.size, settings.interpolation)


def transform_of(face: Mapping[str, Any]) -> np.ndarray:
    """The 2×3 transform, frame px → aligned px, in a row of `faces_of_subject`."""
    return np.array(face["transform"], np.float64).reshape(2, 3)


def aligned_landmarks(face: Mapping[str, Any]) -> np.ndarray:
    """The landmarks (68, 2), px of the aligned face, in a row of `faces_of_subject`."""
    transform = transform_of(face)
    return np.array(face["landmarks"], np.float64).reshape(68, 2) @ transform[:, :2].T + transform[:, 2]


def faces_of_subject(rows: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Face, landmarks and alignment of each of one subject's clips, from its onset frame, in the rows' order.

    Columns: dataset, subject, clip; x0, y0, x1, y1 (px of the frame), score, landmarks (136 values x0, y0, x1, …, px),
    transform (6 values, a 2×3 matrix by rows, frame px → aligned px), backend (the detector that found the face), turn (degrees
    by which the frame must be turned anticlockwise for the face to be upright), faces (how many were seen, false alarms left
    out), choice (see `chosen_face`), problem (null if there is none). If several faces are seen, the one nearest in position and
    size to the faces in the subject's other clips with only one face is taken; if there are no such clips, the largest.
    """
    cv2.setNumThreads(1)
    chosen = FaceSettings.of(settings)
    backends = list(detectors(chosen.backend, chosen.upsample, chosen.network, chosen.weights))
    seen = [_faces_of_clip(row, backends) for row in counted(rows.itertuples(), len(rows), "clips searched")]
    singles = [clip.faces[0] for clip in seen if isinstance(clip, Seen) and len(clip.faces) == 1]
    records = []
    for row, clip in zip(rows.itertuples(), seen, strict=True):
        record = {key: getattr(row, key) for key in KEY} | dict.fromkeys(("x0", "y0", "x1", "y1", "score"), np.nan)
        record |= {"landmarks": None, "transform": None, "backend": chosen.backend, "turn": 0, "faces": 0, "choice": None}
        record["problem"] = None
        with recorded(record, row):
            if isinstance(clip, ClipProblem):
                raise clip
            record |= {"backend": clip.detector.name, "faces": len(clip.faces)}
            face, choice = chosen_face(clip.faces, singles)
            if len(clip.faces) > 1:
                log.info("%s: of %d faces, the %s one is taken", name_of(row), len(clip.faces), choice)
            if clip.detector is not backends[0]:
                log.info("%s: %s", name_of(row), _how_found(clip.detector, face, backends))
            record |= _alignment(row, clip.detector, face, chosen) | {"choice": choice}
        records.append(record)
    return pd.DataFrame(records).astype({"problem": "str", "choice": "str", "faces": "int64", "turn": "int64"})


def _alignment(row: Any, detector: Detector, face: Face, settings: FaceSettings) -> dict[str, Any]:
    """A face's box, landmarks and transform, as columns of `faces_of_subject`."""
    points = detector.landmarks(_first_frames(row, settings.landmark_frames), face)
    return dict(zip(("x0", "y0", "x1", "y1"), face.box, strict=True)) | {
        "score": face.score,
        "turn": 90 * face.turn,
        "landmarks": points.astype(np.float32).ravel(),
        "transform": alignment_transform(points, settings.size, settings.margin).ravel(),
    }


def _how_found(detector: Detector, face: Face, backends: Sequence[Detector]) -> str:
    in_vain = ", ".join(other.name for other in backends[: backends.index(detector)])
    turned = f", in the frame turned by {degrees(90 * face.turn)}" if face.turn else ""
    return f"the face was found by {detector.name}, not by {in_vain}{turned}"


def degrees(turn: int) -> str:
    """The `turn` of a row of `faces_of_subject` in words, such as "90° clockwise"."""
    return f"{abs(turn)}° {'anti' if turn > 0 else ''}clockwise"


def chosen_face(faces: Sequence[Face], others: Sequence[Face]) -> tuple[Face, str]:
    """The face that is taken, and why: it is the `only` one, the `nearest` to others, or the `largest` without others.

    The nearest is the one most similar to the `others` in position and size, in face widths.
    """
    if len(faces) == 1:
        return faces[0], "only"
    if not others:
        return max(faces, key=lambda face: face.size), "largest"
    centre = np.median([other.centre for other in others], axis=0)
    size = np.median([other.size for other in others])
    apart = [np.hypot(*(face.centre - centre)) / size + abs(np.log(max(face.size, 1) / size)) for face in faces]
    return faces[int(np.argmin(apart))], "nearest"


def credible_faces(faces: Sequence[Face]) -> list[Face]:
    """The faces without those that score far below the best: a second true face scores about as much."""
    best = max((face.score for face in faces), default=0.0)
    return [face for face in faces if not face.score < DOUBTFUL * best]


def _faces_of_clip(row: Any, backends: Sequence[Detector]) -> Seen | ClipProblem:
    try:
        (image,) = _first_frames(row, 1)
    except ClipProblem as problem:
        return problem
    for detector in backends:
        if faces := detector.faces(image):
            return Seen(detector, credible_faces(faces))
    return ClipProblem(
        f"no face was found in the onset frame of {row.source} (tried: {', '.join(detector.name for detector in backends)}); "
        "take an onset at which the face is frontal and well lit, or in a configuration set `faces.upsample` higher for small "
        "faces, `faces.backend: none` for releases that are cropped to the face"
    )


def _first_frames(row: Any, number: int) -> list[np.ndarray]:
    """The clip's first frames from its onset on: at most `number`, and none after its offset. The offset may be missing."""
    frames = clip_of(row).frames(None if pd.isna(row.onset) else int(row.onset))
    return [image for n, image in islice(frames, number) if pd.isna(row.offset) or n <= row.offset]
