"""Faces: detection on the onset frame, 68 landmarks, and one similarity transform for the whole clip.

Aligning every frame by itself would erase or invent micro-motion, because landmarks jitter by more than it moves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.errors import ClipProblem, MerbaError
from merba.frames import Clip, open_clip
from merba.sheet import KEY

log = logging.getLogger(__name__)

# Eye centres, nose tip and mouth corners in a crop of side 1: proportions of the five-point template of ArcFace
# (Deng et al., CVPR 2019), which face recognition aligns to, moved up by 5 % so that the chin is not cut off.
TEMPLATE = (
    np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) / 112
) - [0, 0.05]
CENTRE = np.array([0.5, 0.5])
INTERPOLATION = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}
DETECTION_WIDTH = 960
"""Wider frames are searched for faces on a copy of this width: the detector needs no more, and time grows with area."""


@dataclass(frozen=True)
class FaceSettings:
    """How faces are found and aligned; each field is described in merba/schemas/config.schema.yaml."""

    backend: str = "dlib"
    upsample: int = 1
    size: int = 224
    margin: float = 0.0
    interpolation: str = "linear"
    landmark_frames: int = 3


@dataclass(frozen=True)
class Face:
    """A detected face: box (x0, y0, x1, y1) in px of the frame, and the detector's score."""

    box: tuple[float, float, float, float]
    score: float

    @property
    def size(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.box[0] + self.box[2], self.box[1] + self.box[3]]) / 2


def landmark_model() -> Path:
    """dlib's 68-point model in the package face-recognition-models, which is found, not imported.

    Importing it would need pkg_resources, which current setuptools no longer has.
    """
    spec = find_spec("face_recognition_models")
    for folder in spec.submodule_search_locations if spec else ():
        path = Path(folder) / "models" / "shape_predictor_68_face_landmarks.dat"
        if path.is_file():
            return path
    raise MerbaError(
        "dlib's 68-point model was not found: it comes with the package face-recognition-models "
        "(pip install --no-deps -r envs/cpu.txt)"
    )


@cache
def _dlib() -> tuple[Any, Any]:
    import dlib

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(landmark_model()))


def detect_faces(image: np.ndarray, upsample: int) -> list[Face]:
    """Faces in a BGR frame (H, W, 3), largest first, by dlib's HOG detector.

    The frame is searched as it is first, and enlarged twofold (`upsample` times at most) only while it shows none:
    enlarging finds small faces, but also takes cloth and background for faces.
    """
    detector, _ = _dlib()
    scale = min(1.0, DETECTION_WIDTH / image.shape[1])
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for step in range(upsample + 1):
        boxes, scores, _ = detector.run(grey, step, 0.0)
        if len(boxes):
            faces = [
                Face(tuple(side / scale for side in (b.left(), b.top(), b.right(), b.bottom())), score)
                for b, score in zip(boxes, scores, strict=True)
            ]
            return sorted(faces, key=lambda face: -face.size)
    return []


def landmarks(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """68 landmarks (68, 2), px, of the face in `box` of a BGR frame, in the iBUG 300-W order."""
    import dlib

    _, predictor = _dlib()
    shape = predictor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dlib.rectangle(*(round(side) for side in box)))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float64)


def five_points(points: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners (5, 2) of 68 landmarks (68, 2); image left first."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 2×3 similarity transform (rotation, scale, shift) that maps points (n, 2) closest to `target` (n, 2).

    Least squares in closed form: Umeyama, IEEE TPAMI 13(4), 1991, for the plane; no reflection.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    # In complex numbers the transform is one factor: z ↦ f z, with f = Σ conj(a) b / Σ |a|².
    za, zb = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    factor = np.vdot(za, zb) / np.vdot(za, za).real
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.hstack([linear, (target.mean(0) - linear @ source.mean(0))[:, None]])


def alignment_transform(points: np.ndarray, size: int, margin: float) -> np.ndarray:
    """The 2×3 transform from frame px to px of the aligned face (size × size), from 68 landmarks (68, 2).

    `margin` is how much wider than the template's the crop is, on each side, as a share of its width.
    """
    template = (TEMPLATE - CENTRE) / (1 + 2 * margin) + CENTRE
    # Pixel centres lie at whole numbers: the crop spans −0.5 … size − 0.5.
    return similarity(five_points(points), template * size - 0.5)


def align(image: np.ndarray, transform: np.ndarray, size: int, interpolation: str = "linear") -> np.ndarray:
    """The aligned face (size, size[, 3]) of a frame under a 2×3 transform from frame px to aligned px."""
    return cv2.warpAffine(image, transform, (size, size), flags=INTERPOLATION[interpolation], borderMode=cv2.BORDER_REPLICATE)


def aligned_grey(clip: Clip, numbers: Iterable[int], face: Mapping[str, Any], settings: FaceSettings) -> list[np.ndarray]:
    """Aligned grey faces, uint8 (size, size), of the frames `numbers`; `face` is a row of `faces_of_subject`."""
    transform = np.array(face["transform"], np.float64).reshape(2, 3)
    return [
        align(cv2.cvtColor(clip.read(number), cv2.COLOR_BGR2GRAY), transform, settings.size, settings.interpolation)
        for number in numbers
    ]


def faces_of_subject(rows: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Face, landmarks and alignment of each of one subject's clips, from its onset frame, in the rows' order.

    Columns: dataset, subject, clip; x0, y0, x1, y1 (px of the frame), score, landmarks (136 values x0, y0, x1, …, px),
    transform (6 values, a 2×3 matrix by rows, frame px → aligned px), backend, detections (faces that were seen),
    problem (null where all is well). Where several faces are seen, the one nearest to the subject's single ones in
    place and size is taken, or the largest.
    """
    cv2.setNumThreads(1)
    chosen = FaceSettings(**settings)
    found: list[list[Face] | ClipProblem] = [_faces_of_clip(row, chosen) for row in rows.itertuples()]
    singles = [faces[0] for faces in found if isinstance(faces, list) and len(faces) == 1]
    records = []
    for row, faces in zip(rows.itertuples(), found, strict=True):
        record = dict.fromkeys(("x0", "y0", "x1", "y1", "score"), np.nan) | {
            "landmarks": None,
            "transform": None,
            "backend": chosen.backend,
            "detections": len(faces) if isinstance(faces, list) else 0,
            "problem": None,
        }
        try:
            if isinstance(faces, ClipProblem):
                raise faces
            face = nearest_face(faces, singles)
            points = _mean_landmarks(row, face, chosen)
            transform = alignment_transform(points, chosen.size, chosen.margin)
            record |= dict(zip(("x0", "y0", "x1", "y1"), face.box, strict=True)) | {
                "score": face.score,
                "landmarks": points.astype(np.float32).ravel(),
                "transform": transform.ravel(),
            }
        except ClipProblem as problem:
            record["problem"] = str(problem)
            log.warning("%s %s %s: %s", row.dataset, row.subject, row.clip, problem)
        records.append({key: getattr(row, key) for key in KEY} | record)
    return pd.DataFrame(records).astype({"problem": "str", "detections": "int64"})


def nearest_face(faces: Sequence[Face], others: Sequence[Face]) -> Face:
    """Of several faces the one most like the `others` in place and size (in face widths), or the largest."""
    if len(faces) == 1 or not others:
        return max(faces, key=lambda face: face.size)
    centre = np.median([other.centre for other in others], axis=0)
    size = np.median([other.size for other in others])
    return min(faces, key=lambda face: np.hypot(*(face.centre - centre)) / size + abs(np.log(max(face.size, 1) / size)))


def _faces_of_clip(row: Any, settings: FaceSettings) -> list[Face] | ClipProblem:
    try:
        image = _first_frames(row, 1)[0]
        if settings.backend == "none":
            height, width = image.shape[:2]
            return [Face((0.0, 0.0, width - 1.0, height - 1.0), np.nan)]
        faces = detect_faces(image, settings.upsample)
    except ClipProblem as problem:
        return problem
    if not faces:
        return ClipProblem(
            f"no face was found in the onset frame of {row.source}; set `faces.upsample` higher, or "
            "`faces.backend: none` for releases that are cropped to the face"
        )
    return faces


def _first_frames(row: Any, number: int) -> list[np.ndarray]:
    """The clip's first frames from its onset on."""
    clip = open_clip(Path(row.source), row.kind)
    onset, offset = (None if pd.isna(value) else int(value) for value in (row.onset, row.offset))
    numbers = clip.between(onset, offset)
    if not numbers:
        raise ClipProblem(f"{row.source} has no frame from onset {onset} to offset {offset}")
    return [clip.read(one) for one in numbers[:number]]


def _mean_landmarks(row: Any, face: Face, settings: FaceSettings) -> np.ndarray:
    """Landmarks (68, 2) averaged over the first frames, which calms the predictor's jitter."""
    frames = _first_frames(row, settings.landmark_frames)
    return np.mean([landmarks(frame, face.box) for frame in frames], axis=0)
