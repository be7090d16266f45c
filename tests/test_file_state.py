"""The state of a clip's files: it changes with every file that is read, and with no other."""

import os

import pytest

from merba.frames import file_state


def row(source, kind="frames", onset=2, offset=3):
    return {"source": str(source), "kind": kind, "onset": onset, "offset": offset}


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 3, 10):
        (tmp_path / f"img{number}.jpg").write_bytes(b"frame")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changes"), [("img2.jpg", True), ("img3.jpg", True), ("img1.jpg", False), ("img10.jpg", False), (".DS_Store", False)]
)
def test_frames_from_onset_to_offset_count_and_no_others(folder, name, changes):
    before = file_state([row(folder)])
    (folder / name).write_bytes(b"mended")
    assert (file_state([row(folder)]) != before) == changes


def test_without_an_onset_and_offset_every_frame_counts(folder):
    before = file_state([row(folder, onset=None, offset=None)])
    (folder / "img10.jpg").write_bytes(b"mended")
    assert file_state([row(folder, onset=None, offset=None)]) != before


def test_a_frame_that_is_replaced_by_one_of_its_size_counts(folder):
    before = file_state([row(folder)])
    os.utime(folder / "img2.jpg", (0, 0))
    assert file_state([row(folder)]) != before


@pytest.mark.parametrize("kind", ["frames", "video"])
def test_what_is_missing_changes_the_state_when_it_comes(tmp_path, kind):
    source = tmp_path / "clip.mp4"
    before = file_state([row(source, kind)])
    if kind == "video":
        source.write_bytes(b"video")
    else:
        source.mkdir()
        (source / "2.png").write_bytes(b"frame")
    assert file_state([row(source, kind)]) != before
