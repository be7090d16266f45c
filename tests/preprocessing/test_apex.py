"""Apexes: found within two frames on the demo, kept if annotated; problems are named."""

import cv2
import numpy as np
import pandas as pd
import pytest
from face_clips import clip_of, rows_of

from merba.datasets.demo import face
from merba.datasets.demo.planning import DemoSettings, clip_plans
from merba.datasets.demo.rendering import clip_motion, rest_face, rise
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject


def test_an_annotated_apex_is_kept(tmp_path, photograph):
    rows = rows_of(clip_of(tmp_path / "a", [photograph] * 5, apex=3))
    apexes = apexes_of_subject(rows, faces_of_subject(rows, {}), {}, {})
    assert apexes.loc[0, ["onset", "apex", "offset"]].tolist() == [1, 3, 5]
    assert apexes.loc[0, "source"] == "annotation"


def test_clips_without_room_for_an_apex_are_named_problems(tmp_path, photograph):
    rows = rows_of(
        clip_of(tmp_path / "two", [photograph] * 2),
        clip_of(tmp_path / "cut", [photograph] * 4, offset=9),
        clip_of(tmp_path / "empty", [np.zeros((200, 200, 3), np.uint8)] * 4),
    )
    apexes = apexes_of_subject(rows, faces_of_subject(rows, {}), {}, {})
    assert "has too few frames from onset to offset (2)" in apexes["problem"][0]
    assert "frame 9 is missing" in apexes["problem"][1]
    assert "no face was found" in apexes["problem"][2]


def rendered(plan, *, movement=1.0, lids=0.0, blink=None):
    """Frames of a demo clip: its movement scaled by `movement`, upper lids that sink with it, and a blink at one frame.

    Lids are measured in widths of the face; a blink lowers them by 0.045, 8 px of the aligned face, for five frames.
    """
    settings, random = DemoSettings(subjects=1), np.random.default_rng(0)
    rest = rest_face(settings, "smic_hs", 0)
    motion = clip_motion(settings, "smic_hs", plan, rest)
    x, y = np.arange(rest.image.shape[1])[None], np.arange(rest.image.shape[0])[:, None]
    centres = [rest.landmarks[list(points)].mean(0) for points in face.REGIONS["upper lid"]]
    sinking = face.field([face.Bump(*centre, 0, rest.width, 0.035 * rest.width) for centre in centres], x, y)
    for number, (u, v), size in zip(range(len(plan.numbers)), motion.drift, rise(plan), strict=True):
        lowered = lids * size + (0 if blink is None else 0.045 * max(0, 1 - abs(number - blink) / 3))
        moved = size * movement * motion.movement + lowered * sinking
        image = cv2.remap(rest.image, np.float32(x - u - moved[0]), np.float32(y - v - moved[1]), cv2.INTER_CUBIC)
        yield np.clip(image + random.normal(0, settings.noise, (*y.shape[:1], *x.shape[1:], 1)), 0, 255).astype(np.uint8)


def apex_errors(folder, curve, *, blinks=False, **moves):
    """Detected minus true apexes, in frames, of a subject's three clips; `blinks`: a third of the clip away from the apex."""
    errors = []
    for plan in clip_plans(DemoSettings(subjects=1, clips=3), "smic_hs"):
        apex, count = plan.apex - plan.first, len(plan.numbers)
        away = count // 3 if apex + count // 3 < count - 2 else -(count // 3)
        frames = rendered(plan, blink=apex + away if blinks else None, **moves)
        rows = rows_of(clip_of(folder / plan.clip, list(frames)))
        found = apexes_of_subject(rows, faces_of_subject(rows, {}), {"curve": curve}, {})
        errors.append(found.loc[0, "apex"] - 1 - apex)
    return errors


@pytest.mark.parametrize("curve", ["flow", "difference"])
def test_a_blink_is_no_apex(tmp_path, curve):
    assert np.abs(apex_errors(tmp_path, curve, blinks=True)).max() <= 2


def test_the_eyes_count_where_nothing_else_moves(tmp_path):
    assert np.abs(apex_errors(tmp_path, "flow", movement=0, lids=-0.015)).max() <= 2


@pytest.mark.long
@pytest.mark.parametrize(("curve", "share"), [("flow", 0.9), ("difference", 0.7)])  # heads drift, which only flow can separate
def test_detected_apexes_are_within_two_frames_of_the_truth_where_the_middle_frame_is_not(demo_root, demo_sheet, curve, share):
    errors, guesses = [], []
    for _, rows in demo_sheet[demo_sheet["dataset"] == "smic_hs"].groupby("subject"):
        rows = rows.reset_index(drop=True)
        apexes = apexes_of_subject(rows, faces_of_subject(rows, {}), {"curve": curve}, {})
        assert (apexes["source"] == "detected").all()
        for clip, apex, frames in zip(rows["clip"], apexes["apex"], apexes["frames"], strict=True):
            true = int(np.load(demo_root / "smic_hs" / "truth" / f"{clip}.npz")["apex"])
            errors.append(abs(apex - true))
            guesses.append(abs(frames[len(frames) // 2] - true))
    assert len(errors) == 18
    assert np.mean(np.array(errors) <= 2) >= share
    assert np.mean(np.array(guesses) <= 2) < share


@pytest.mark.long
def test_only_clips_without_annotation_are_detected(demo_sheet):
    rows = demo_sheet[demo_sheet["dataset"] == "casme2"]
    rows = rows[rows["subject"] == rows["subject"].iloc[0]].reset_index(drop=True)
    apexes = apexes_of_subject(rows, faces_of_subject(rows, {}), {}, {})
    assert ((apexes["source"] == "detected") == rows["apex"].isna()).all()
    assert pd.notna(apexes["apex"]).all()
    for _, clip in apexes.iterrows():
        assert len(clip["frames"]) == len(clip["curve"]) == len(clip["fit"])
        assert bool(len(clip["curve"])) == (clip["source"] == "detected")
