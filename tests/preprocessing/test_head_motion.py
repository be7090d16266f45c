"""Head motion: a known one is measured and removed, and a face at rest stays unchanged."""

import cv2
import numpy as np
import pytest
from face_clips import clip_of, rows_of

from merba.frames import open_clip
from merba.preprocessing.alignment import compose
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, faces_of_subject, transform_of
from merba.preprocessing.flow import flow_of_subject
from merba.preprocessing.head_motion import STABLE, disc_mask, head_motion
from merba.preprocessing.head_warning import LIMIT, head_warning


def noisy(image, seed):
    return np.clip(image + np.random.default_rng(seed).normal(0, 2.5, image.shape), 0, 255).astype(np.uint8)


def turned(image, centre, angle, scale, shift):
    """The image under a similarity about `centre`, degrees and px, and its 2×3 matrix."""
    move = cv2.getRotationMatrix2D(centre, angle, scale)
    move[:, 2] += shift
    flags = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REFLECT}
    return cv2.warpAffine(image, move, image.shape[1::-1], **flags), move


def test_composing_applies_the_first_transform_first():
    random = np.random.default_rng(0)
    first, second, point = random.normal(size=(2, 3)), random.normal(size=(2, 3)), random.normal(size=2)
    both = compose(second, first)
    inner = first[:, :2] @ point + first[:, 2]
    assert both[:, :2] @ point + both[:, 2] == pytest.approx(second[:, :2] @ inner + second[:, 2])


@pytest.mark.parametrize(("angle", "scale", "shift"), [(0, 1, (1.5, -1)), (1.5, 1, (0, 0)), (-1, 1.01, (0.6, 0.4))])
def test_a_moved_head_is_measured_and_taken_out(tmp_path, photograph, angle, scale, shift):
    """Before and after: the mean length of the flow on the face, px."""
    apex, _ = turned(photograph, (222, 120), angle, scale, shift)
    rows = rows_of(clip_of(tmp_path / "a", [noisy(photograph, 1), noisy(apex, 2)], apex=2))
    settings = {"landmark_frames": 1}
    faces = faces_of_subject(rows, settings)
    apexes = apexes_of_subject(rows, faces, {}, settings)
    kept, clips = flow_of_subject(rows, faces, apexes, {}, settings)
    removed, same = flow_of_subject(rows, faces, apexes, {"head_motion": "similarity"}, settings)
    region = disc_mask(aligned_landmarks(faces.iloc[0]), STABLE, 0.05, 224)
    assert clips["head_motion"][0] == pytest.approx(np.hypot(*kept[0][:, region].astype(float)).mean(), abs=0.1)
    assert same["head_motion"][0] == clips["head_motion"][0]
    before, after = (np.hypot(*flow[0, :, 50:200, 45:180].astype(float)).mean() for flow in (kept, removed))
    assert after < 0.15 < before / 4


@pytest.mark.parametrize(
    ("angle", "shift"), [(0, (10, 0)), (0, (0, -20)), (0, (0, 45)), (12, (0, 0)), (0, (60, 0)), (0, (0, 90))]
)
def test_a_head_that_moves_further_than_any_expression_is_warned_of(tmp_path, photograph, angle, shift):
    """Up to the motion that flow can't follow any more, px of the aligned face."""
    faces = faces_of_subject(rows_of(clip_of(tmp_path / "a", [photograph] * 2, apex=2)), {})
    transform, points = transform_of(faces.iloc[0]), aligned_landmarks(faces.iloc[0])
    apex, _ = turned(photograph, (222, 120), angle, 1, np.divide(shift, np.hypot(*transform[:, 0])))
    frames = (aligned_grey(noisy(image, seed), transform, FaceSettings.of()) for seed, image in enumerate((photograph, apex)))
    length = head_motion(*frames, points).length
    assert head_warning(length, 224)
    if np.hypot(*shift) < 50:
        assert length == pytest.approx(np.hypot(*shift) or 7.3, abs=0.2)


@pytest.mark.parametrize(("length", "size", "limit", "said"), [
    (3.0, 224, LIMIT, False), (4.4, 224, LIMIT, False), (4.6, 224, LIMIT, True), (2.3, 112, LIMIT, True),
    (4.6, 224, 0.03, False), (np.nan, 28, LIMIT, False),
])  # fmt: skip
def test_expressions_move_less_than_what_is_warned_of(length, size, limit, said):
    warning = head_warning(length, size, limit)
    assert (warning is not None) == said
    assert not said or f"moves {length:.1f} px from onset to apex, on a face {size} px wide" in warning


def test_a_head_at_rest_has_no_motion(tmp_path, photograph):
    rows = rows_of(clip_of(tmp_path / "a", [noisy(photograph, 1), noisy(photograph, 2)], apex=2))
    face = faces_of_subject(rows, {}).iloc[0]
    frames = [
        aligned_grey(image, transform_of(face), FaceSettings.of()) for _, image in open_clip(tmp_path / "a", "frames").frames()
    ]
    motion = head_motion(*frames, aligned_landmarks(face))
    assert motion.length < 0.05
    assert motion.back == pytest.approx(np.eye(2, 3), abs=0.1)


@pytest.mark.long
def test_head_motion_of_the_demo_is_that_of_the_truth(demo_root, demo_sheet):
    errors = []
    for (dataset, _), rows in demo_sheet.groupby(["dataset", "subject"]):
        faces = faces_of_subject(rows.reset_index(drop=True), {})
        for (_, row), (_, face) in zip(rows.iterrows(), faces.iterrows(), strict=True):
            truth = np.load(demo_root / dataset / "truth" / f"{row['clip']}.npz")
            transform, points = transform_of(face), aligned_landmarks(face)
            clip = open_clip(row["source"], "frames")
            frames = [aligned_grey(clip.read(int(truth[key])), transform, FaceSettings.of()) for key in ("onset", "apex")]
            true = np.stack([cv2.warpAffine(part.astype(np.float32), transform, (224, 224)) for part in truth["displacement"]])
            region = disc_mask(points, STABLE, 0.05, 224)
            length = np.hypot(*(transform[:, :2] @ true[:, region])).mean()
            errors.append(abs(head_motion(*frames, points).length - length))
    assert len(errors) == 54
    assert np.mean(errors) < 0.05
    assert max(errors) < 0.12
