"""Apexes: found within two frames on the demo, kept where annotated, problems named."""

import numpy as np
import pandas as pd
import pytest
from face_clips import clip_of, rows_of

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
    assert "has 2 frames from onset to offset" in apexes["problem"][0]
    assert "frame 9 is missing" in apexes["problem"][1]
    assert "no face was found" in apexes["problem"][2]


@pytest.mark.long
@pytest.mark.parametrize(("curve", "share"), [("flow", 0.9), ("difference", 0.7)])  # heads drift, which only flow can tell
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
