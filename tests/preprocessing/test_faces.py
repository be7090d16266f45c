"""Faces: one true face per clip, alignment by a similarity, named problems."""

import cv2
import numpy as np
import pandas as pd
import pytest
from face_clips import clip_of, rows_of
from scipy.spatial.transform import Rotation

from merba.errors import MerbaError
from merba.preprocessing.alignment import TEMPLATE, align, alignment_transform, five_points, similarity
from merba.preprocessing.detectors import CNN_MODEL, LANDMARK_MODEL, Dlib, Face, model_file
from merba.preprocessing.faces import chosen_face, faces_of_subject


def detect_faces(image, upsample):
    return Dlib(upsample).faces(image)


def landmarks(image, face):
    return Dlib(0).landmarks([image], face)


def test_the_similarity_is_recovered_exactly():
    random = np.random.default_rng(0)
    points, angle, scale, shift = random.normal(size=(6, 2)), 0.3, 1.7, np.array([4.0, -2.0])
    turn = Rotation.from_euler("z", angle).as_matrix()[:2, :2]
    found = similarity(points, points @ (scale * turn).T + shift)
    assert found == pytest.approx(np.hstack([scale * turn, shift[:, None]]))


def test_the_similarity_is_the_least_squares_one():
    random = np.random.default_rng(1)
    source, target = random.normal(size=(2, 6, 2))
    found = similarity(source, target)
    # Independent: linear least squares in (a, b, x, y) of x' = a x − b y + x0, y' = b x + a y + y0.
    system = np.concatenate(
        [
            np.stack([source[:, 0], -source[:, 1], np.ones(6), np.zeros(6)], 1),
            np.stack([source[:, 1], source[:, 0], np.zeros(6), np.ones(6)], 1),
        ]
    )
    a, b, x, y = np.linalg.lstsq(system, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    assert found == pytest.approx(np.array([[a, -b, x], [b, a, y]]))


def test_the_false_second_face_of_the_photograph_is_not_taken(tmp_path, photograph):
    enlarged = cv2.resize(photograph, (960, 960))
    assert len(detect_faces(enlarged, 0)) == 2, "the trap that this test is about is gone"
    faces = faces_of_subject(rows_of(clip_of(tmp_path / "a", [enlarged] * 3)), {})
    assert faces["faces"][0] == 1
    centre = np.array([faces["x0"][0] + faces["x1"][0], faces["y0"][0] + faces["y1"][0]]) / 2
    assert np.hypot(*(centre - np.array([222, 122]) * 960 / 512)) < 30


def test_a_small_face_is_found_by_upsampling(photograph):
    small = cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert detect_faces(small, 0) == []
    assert len(detect_faces(small, 1)) >= 1


def test_a_large_frame_gives_the_box_in_its_own_pixels(photograph):
    large = cv2.resize(photograph, None, fx=4, fy=4)
    small_face, large_face = detect_faces(photograph, 0)[0], detect_faces(large, 0)[0]
    assert np.array(large_face.box) / 4 == pytest.approx(np.array(small_face.box), abs=8)


def test_aligned_eyes_nose_and_mouth_lie_where_the_template_has_them(photograph):
    points = landmarks(photograph, detect_faces(photograph, 0)[0])
    transform = alignment_transform(points, 224, 0.0)
    aligned = five_points(points) @ transform[:, :2].T + transform[:, 2]
    template = TEMPLATE * 224 - 0.5
    # One real face is not the mean face that the template is of: it smiles broadly.
    assert np.abs(aligned - template).max() < 12
    assert aligned.mean(0) == pytest.approx(template.mean(0), abs=1e-6)


def test_a_turned_scaled_and_shifted_frame_gives_the_same_aligned_face(photograph):
    move = np.hstack([cv2.getRotationMatrix2D((222, 115), 8, 1.2)[:, :2], [[20.0], [35.0]]])
    move[:, 2] += np.array([222, 115]) - move[:, :2] @ np.array([222, 115])
    moved = cv2.warpAffine(photograph, move, (512, 512), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    points = landmarks(photograph, detect_faces(photograph, 0)[0])
    a = align(photograph, alignment_transform(points, 224, 0.04), 224)
    b = align(moved, alignment_transform(points @ move[:, :2].T + move[:, 2], 224, 0.04), 224)
    assert np.abs(a.astype(float) - b).mean() < 3


def test_of_several_faces_the_one_like_the_subjects_others_is_taken():
    big, true = Face((0, 0, 300, 300), 1.0), Face((400, 100, 500, 200), 0.5)
    others = [Face((405, 104, 503, 202), 1.0), Face((396, 98, 498, 200), 1.0)]
    assert chosen_face([big, true], others) == (true, "nearest")
    assert chosen_face([big, true], []) == (big, "largest")
    assert chosen_face([true], []) == (true, "only")


def test_a_second_face_is_not_taken_and_the_choice_is_recorded(monkeypatch, tmp_path, photograph):
    """Another person is nearer to the camera, but only in the second clip; without the first clip, she would be taken."""
    true = detect_faces(photograph, 0)[0]
    nearer = Face((0.0, 200.0, 2 * true.size, 200 + 2 * true.size), true.score)
    seen = iter([[true], [nearer, true], [nearer, true]])
    monkeypatch.setattr(Dlib, "faces", lambda self, image: next(seen))
    rows = rows_of(clip_of(tmp_path / "a", [photograph]), clip_of(tmp_path / "b", [photograph]))
    faces = faces_of_subject(rows, {})
    assert faces["choice"].tolist() == ["only", "nearest"]
    assert faces["x0"].tolist() == [true.box[0]] * 2
    alone = faces_of_subject(rows[1:], {})
    assert (alone["choice"].item(), alone["x0"].item()) == ("largest", nearer.box[0])


def test_a_clip_without_a_face_is_a_named_problem_and_the_others_go_on(tmp_path, photograph):
    rows = rows_of(
        clip_of(tmp_path / "empty", [np.full((200, 200, 3), 90, np.uint8)] * 3),
        clip_of(tmp_path / "good", [photograph] * 3),
    )
    faces = faces_of_subject(rows, {})
    assert "no face was found" in faces["problem"][0]
    assert "(tried: dlib, dlib_border, dlib_cnn); take an onset at which the face is frontal" in faces["problem"][0]
    assert str(tmp_path / "empty") in faces["problem"][0]
    assert pd.isna(faces["problem"][1])
    assert len(faces["landmarks"][1]) == 136
    assert faces["faces"].tolist() == [0, 1]
    assert faces["choice"].isna().tolist() == [True, False]


def test_cropped_releases_need_no_detection(tmp_path, photograph):
    crop = photograph[60:200, 160:290]
    faces = faces_of_subject(rows_of(clip_of(tmp_path / "crop", [crop] * 3)), {"backend": "none"})
    assert pd.isna(faces["problem"][0])
    assert (faces["x0"][0], faces["x1"][0]) == (0, 129)


def test_the_models_are_found_without_importing_their_package():
    import sys

    assert model_file(LANDMARK_MODEL).is_file()
    assert model_file(CNN_MODEL).is_file()
    assert "face_recognition_models" not in sys.modules


def test_a_missing_model_says_where_it_comes_from(monkeypatch):
    monkeypatch.setattr("merba.preprocessing.detectors.find_spec", lambda name: None)
    with pytest.raises(MerbaError, match="package face-recognition-models"):
        model_file(LANDMARK_MODEL)


@pytest.mark.long
def test_every_clip_of_the_demo_has_its_face_and_no_other(demo_root, demo_sheet):
    for (dataset, _), rows in demo_sheet.groupby(["dataset", "subject"]):
        faces = faces_of_subject(rows.reset_index(drop=True), {})
        assert faces["problem"].isna().all()
        for clip, points in zip(rows["clip"], faces["landmarks"], strict=True):
            true = np.load(demo_root / dataset / "truth" / f"{clip}.npz")["landmarks"]
            width = np.ptp(true[:, 0])
            assert np.hypot(*(points.reshape(68, 2) - true).T).mean() < 0.02 * width
