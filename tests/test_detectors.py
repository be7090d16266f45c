"""Detectors: false alarms, calm landmarks, and face_alignment from files (random ones: only loading and shapes)."""

import cv2
import numpy as np
import pytest
from shared_data import shared_data
from test_faces import clip_of, photograph, rows_of  # noqa: F401

from merba.detectors import Dlib, Face, FaceAlignment, detectors, missing_weights
from merba.errors import MerbaError
from merba.faces import credible_faces, faces_of_subject
from merba.frames import open_clip


def test_a_face_that_scores_far_below_the_best_is_a_false_alarm():
    true, other, false = Face((0, 0, 90, 90), 1.2), Face((200, 0, 300, 100), 0.9), Face((0, 300, 120, 420), 0.1)
    assert credible_faces([false, other, true]) == [other, true]
    assert credible_faces([false]) == [false]


def test_a_false_alarm_is_not_taken_where_it_is_the_larger_one(monkeypatch, tmp_path, photograph):  # noqa: F811
    true = Dlib(0).faces(photograph)[0]
    false = Face((100.0, 300.0, 240.0, 440.0), 0.1 * true.score)
    monkeypatch.setattr(Dlib, "faces", lambda self, image: [false, true])
    faces = faces_of_subject(rows_of(clip_of(tmp_path / "a", [photograph])), {})
    assert faces["x0"][0] == true.box[0]
    assert faces["faces"][0] == 1


def test_landmarks_hardly_follow_the_place_of_the_box(photograph):  # noqa: F811
    face = Dlib(0).faces(photograph)[0]
    moved = Face(tuple(edge + 0.08 * face.size for edge in face.box), face.score)
    first, second = (Dlib(0).landmarks([photograph], one) for one in (face, moved))
    assert np.hypot(*(first - second).mean(0)) < 0.01 * face.size


def test_auto_tries_dlib_and_leaves_out_face_alignment_without_its_weights(tmp_path):
    assert [one.name for one in detectors("auto", 1, "sfd", str(tmp_path))] == ["dlib"]


def test_auto_falls_back_clip_by_clip(monkeypatch, tmp_path, photograph):  # noqa: F811
    class Second(Dlib):
        name = "second"

        def faces(self, image):
            return [Face((10.0, 10.0, 110.0, 110.0), 1.0)]

    monkeypatch.setattr("merba.faces.detectors", lambda *settings: [Dlib(0), Second(0)])
    empty = np.full((200, 200, 3), 90, np.uint8)
    rows = rows_of(clip_of(tmp_path / "a", [photograph]), clip_of(tmp_path / "b", [empty]))
    assert faces_of_subject(rows, {"backend": "auto"})["backend"].tolist() == ["dlib", "second"]


def test_missing_weights_are_named(tmp_path):
    assert missing_weights("sfd", str(tmp_path)) == ["2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth"]
    with pytest.raises(MerbaError, match=r"2DFAN4-11f355bf06\.pth\.tar.*" + tmp_path.name):
        next(detectors("face_alignment", 1, "sfd", str(tmp_path)))


@pytest.mark.long
@pytest.mark.parametrize("network", ["sfd", "blazeface"])
def test_face_alignment_loads_files_and_gives_boxes_and_68_points(tmp_path, network):
    """With random weights, so this says nothing about what it finds: the real ones can't be had here."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("face_alignment")
    from face_alignment.detection.blazeface.net_blazeface import BlazeFace
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    torch.manual_seed(0)
    torch.save(FAN(4).state_dict(), tmp_path / "2DFAN4-11f355bf06.pth.tar")
    if network == "sfd":
        torch.save(s3fd().state_dict(), tmp_path / "s3fd-619a316812.pth")
    else:
        net = BlazeFace()
        for layer in (net.classifier_8, net.classifier_16):
            torch.nn.init.constant_(layer.bias, -50)  # no face anywhere: joining hundreds of random ones takes minutes
        torch.save(net.state_dict(), tmp_path / "blazeface.pth")
        np.save(tmp_path / "anchors.npy", np.random.default_rng(0).random((896, 4), np.float32))
    detector = FaceAlignment(network, str(tmp_path))
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    assert all(isinstance(face, Face) for face in detector.faces(image))
    points = detector.landmarks([image, image], Face((20.0, 10.0, 90.0, 80.0), 1.0))
    assert points.shape == (68, 2)
    assert np.isfinite(points).all()


@pytest.mark.long
def test_landmarks_of_the_real_video_move_with_its_head():
    """Between neighbouring frames, less the head's own motion (up to 9 px a frame there) as dense flow has it."""
    clip, solver = open_clip(shared_data("clips/WolfgangLanger_Pexels.mp4"), "video"), cv2.DISOpticalFlow_create(2)
    jumps, last = [], None
    for number in range(180, 300):
        frame = clip.read(number)
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        points = Dlib(1).landmarks([frame], Dlib(1).faces(frame)[0])
        if last is not None:
            x, y = np.clip(last[1].round().astype(int), 0, np.array(grey.shape[::-1]) - 1).T
            head = np.median(solver.calc(last[0], grey, None)[y, x], axis=0)
            jumps.append(np.hypot(*(points.mean(0) - last[1].mean(0) - head)))
        last = grey, points
    assert max(jumps) < 4


@pytest.mark.long
@pytest.mark.parametrize(("angle", "scale", "shift"), [(6, 1, (0, 0)), (0, 1.15, (0, 0)), (0, 1, (25, -14)), (-5, 0.9, (9, 7))])
def test_moved_copies_of_a_clip_give_the_same_aligned_flow(tmp_path, demo_sheet, angle, scale, shift):
    """Rotated, scaled and shifted by the camera, a clip's aligned flow stays within 0.2 px in 99 % of the face."""
    from merba.apex import apexes_of_subject
    from merba.flow import flow_of_subject

    row = demo_sheet[(demo_sheet["dataset"] == "casme2") & demo_sheet["apex"].notna()].iloc[0]
    clip = open_clip(row["source"], "frames")
    frames = [clip.read(number) for number in (row["onset"], row["onset"] + 1, row["apex"])]
    height, width = frames[0].shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    move[:, 2] += shift
    warped = [
        cv2.warpAffine(frame, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for frame in frames
    ]
    rows = rows_of(clip_of(tmp_path / "a", frames, apex=3), clip_of(tmp_path / "b", warped, apex=3))
    settings = {"landmark_frames": 2}
    faces = faces_of_subject(rows, settings)
    flow, _ = flow_of_subject(rows, faces, apexes_of_subject(rows, faces, {}, settings), {}, settings)
    inner = flow[:, :, 50:200, 45:180].astype(float)
    assert np.quantile(np.hypot(*(inner[0] - inner[1])), 0.99) < 0.2
