"""A tracked face is where it would be detected, and it is detected again every few frames."""

import cv2
import numpy as np
import pytest

from merba.prediction.tracking import FaceTracker
from merba.preprocessing.detectors import Dlib, DlibCnn


@pytest.fixture
def frames(photograph):
    """Nine frames in which the face moves and grows, and the transform of each."""
    height, width = photograph.shape[:2]
    transforms = [
        np.hstack([cv2.getRotationMatrix2D((width / 2, height / 2), step, 1 + step / 100)[:, :2], [[2.0 * step], [-1.5 * step]]])
        for step in range(9)
    ]
    return [cv2.warpAffine(photograph, one, (width, height), borderMode=cv2.BORDER_REPLICATE) for one in transforms], transforms


def counted(monkeypatch, detector):
    """The detector, and a list to which its name is added for each frame that it searches."""
    calls, faces = [], detector.faces
    monkeypatch.setattr(detector, "faces", lambda image: calls.append(detector.name) or faces(image))
    return detector, calls


def test_a_moving_face_is_followed_to_its_place(monkeypatch, frames):
    images, transforms = frames
    detector, calls = counted(monkeypatch, Dlib(1))
    tracker = FaceTracker([detector], interval=4)
    found = [tracker.landmarks(image) for image in images]
    assert len(calls) == 3  # frames 0, 4 and 8
    width = np.ptp(found[0][:, 0])
    for points, transform in zip(found, transforms, strict=True):
        expected = found[0] @ transform[:, :2].T + transform[:, 2]
        assert np.hypot(*(points - expected).T).mean() < 0.02 * width


def test_a_frame_without_a_face_has_no_landmarks_and_the_next_is_searched(monkeypatch, photograph):
    detector, calls = counted(monkeypatch, Dlib(0))
    tracker = FaceTracker([detector], interval=1)
    found = [tracker.landmarks(image) for image in (photograph, np.zeros_like(photograph), photograph)]
    assert [points is None for points in found] == [False, True, False]
    assert len(calls) == 3
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("turn", [1, -1, 2])
def test_a_face_that_is_not_upright_is_followed_as_it_lies(photograph, turn):
    image = np.ascontiguousarray(np.rot90(photograph, -turn))
    tracker = FaceTracker([DlibCnn(0)], interval=2)
    detected, followed = tracker.landmarks(image), tracker.landmarks(image)
    assert np.hypot(*(followed - detected).T).mean() < 0.01 * np.ptp(detected[:, 1])
