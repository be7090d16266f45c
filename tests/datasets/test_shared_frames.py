"""Frames that two subjects share stop planning: one file, links to it, and copies; each with both named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merba.datasets.shared_frames import check_subjects_apart
from merba.errors import MerbaError
from merba.sheet import sample_rows

DATASETS = ("casme2", "samm", "smic_hs")


def clip(subject, onset=None, offset=None, *, source="one", dataset="smic_hs", kind="frames"):
    row = {"dataset": dataset, "subject": subject, "clip": f"{subject}_{onset}", "source": str(source), "kind": kind}
    return row | {"onset": onset, "offset": offset}


def check(*clips, composites=(DATASETS,)):
    check_subjects_apart(sample_rows(clips), composites)


def refused(*clips):
    with pytest.raises(MerbaError, match=r"smic_hs ann \S+ and smic_hs bob \S+ share frames .*, but are two subjects") as caught:
        check(*clips)
    return str(caught.value)


@pytest.mark.parametrize(
    "clips",
    [
        [clip("ann"), clip("bob")],
        [clip("ann", 1, 20), clip("bob", 20, 30)],
        [clip("bob", 5, 6), clip("ann", 1, 20), clip("ann", 30, 40)],
        [clip("ann", 0), clip("bob", 900, 950)],  # to the end of a video
        [clip("ann", 1, 20), clip("ann", 2, 9), clip("bob", 12, 30)],
        [clip("ann"), clip("bob", source="./one")],
        [clip("ann", dataset="casme2"), clip("ann", 7, dataset="samm")],
    ],
)
def test_frames_that_two_subjects_share_are_refused_with_both_named(clips):
    with pytest.raises(MerbaError, match=r"one: .* and .* share frames .*, but are two subjects") as caught:
        check(*clips)
    assert all(f"{row['dataset']} {row['subject']}" in str(caught.value) for row in (clips[0], clips[-1]))


def test_a_subject_may_use_frames_twice_and_two_subjects_parts_of_one_recording():
    check(clip("ann", 1, 20), clip("ann", 10, 30), clip("bob", 31, 40), clip("ann", 41, 50))


def test_only_datasets_that_an_experiment_joins_are_compared():
    clips = clip("ann", dataset="casme2"), clip("ann", dataset="samm")
    check(*clips, composites=[["casme2"], ["samm"], ["smic_hs"]])
    with pytest.raises(MerbaError, match="casme2 ann.* and samm ann"):
        check(*clips, composites=[["casme2"], ["samm", "casme2"]])


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_hides_no_shared_frames(tmp_path, link):
    (tmp_path / "a.mp4").touch()
    getattr(tmp_path / "b.mp4", link)(tmp_path / "a.mp4")
    refused(*(clip(name, source=tmp_path / f"{file}.mp4", kind="video") for name, file in (("ann", "a"), ("bob", "b"))))


INTERVAL = st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 30), st.none() | st.integers(0, 30))


@given(st.lists(INTERVAL, max_size=6))
def test_shared_frames_are_those_that_a_comparison_of_all_pairs_finds(intervals):
    clips = [(who, first, last) for who, first, last in intervals if first is None or last is None or first <= last]
    frames = [(who, set(range(first or 0, 31 if last is None else last + 1))) for who, first, last in clips]
    shared = any(mine & theirs for one, mine in frames for other, theirs in frames if one != other)
    try:
        check(*(clip(who, first, last) for who, first, last in clips))
    except MerbaError:
        assert shared
    else:
        assert not shared


def recorded(folder, count=12, first=1, seed=0, size=5000):
    """A folder with so many "images" of random bytes: of one size, as BMP has them."""
    folder.mkdir()
    noise = np.random.default_rng(seed)
    for number in range(first, first + count):
        (folder / f"img{number}.bmp").write_bytes(noise.bytes(size))
    return folder


def given_to(folder, frames, put):
    """Another folder, with these frames put there under other names, numbered from 0."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        put(frame, folder / f"frame_{number:03}.bmp")
    return folder


def numbered(folder):
    return sorted(folder.iterdir(), key=lambda path: int(path.stem[3:]))


LINKS = {
    "symbolic": lambda frame, path: path.symlink_to(frame),
    "hard": lambda frame, path: path.hardlink_to(frame),
}


@pytest.mark.parametrize("put", LINKS.values(), ids=LINKS)
def test_frames_that_are_linked_one_by_one_are_shared_where_clips_overlap(tmp_path, put):
    """The last five frames of ann's twelve are bob's first five; three are his own."""
    ann = recorded(tmp_path / "a")
    bob = given_to(tmp_path / "b", numbered(ann)[7:], put)
    for number, path in enumerate(numbered(recorded(tmp_path / "own", 3, seed=1)), start=5):
        path.rename(bob / f"frame_{number:03}.bmp")
    said = refused(clip("ann", 1, 12, source=ann), clip("bob", 0, 7, source=bob))
    assert f"{ann} and {bob}" in said
    refused(clip("ann", 1, 8, source=ann), clip("bob", 0, 7, source=bob))
    check(clip("ann", 1, 7, source=ann), clip("bob", 0, 7, source=bob))
    check(clip("ann", 1, 12, source=ann), clip("bob", 5, 7, source=bob))


def test_copied_frames_are_shared_where_clips_overlap_whatever_their_names(tmp_path):
    ann = recorded(tmp_path / "a")
    bob = given_to(tmp_path / "b", numbered(ann), shutil.copy)
    for name in ("._frame_000.bmp", "notes.txt", "zzz"):
        (bob / name).touch()
    assert f"{ann} and {bob}" in refused(clip("ann", source=ann), clip("bob", source=bob))
    refused(clip("ann", 1, 5, source=ann), clip("bob", 4, 9, source=bob))
    check(clip("ann", 1, 5, source=ann), clip("bob", 5, 9, source=bob))
    check(clip("ann", source=ann), clip("ann", source=bob))


def test_one_byte_tells_frames_apart(tmp_path):
    """In a frame and at a place that aren't looked at first."""
    ann = recorded(tmp_path / "a")
    bob = given_to(tmp_path / "b", numbered(ann), shutil.copy)
    frame = bob / "frame_003.bmp"
    frame.write_bytes(frame.read_bytes()[:-1] + bytes([frame.read_bytes()[-1] ^ 1]))
    check(clip("ann", source=ann), clip("bob", source=bob))


@pytest.mark.parametrize("kind", ["video", "flow"])
def test_a_copied_file_is_shared_and_empty_ones_are_not(tmp_path, kind):
    for name, content in (("a", b"film" * 9000), ("b", b"film" * 9000), ("c", b"film" * 8999 + b"mlif"), ("d", b""), ("e", b"")):
        (tmp_path / name).write_bytes(content)
    ann, bob, cleo, dora, emil = (tmp_path / name for name in "abcde")
    assert f"{ann} and {bob}" in refused(clip("ann", 0, source=ann, kind=kind), clip("bob", 0, source=bob, kind=kind))
    check(clip("ann", 0, 9, source=ann, kind=kind), clip("bob", 10, 20, source=bob, kind=kind))
    check(*(clip(source.name, 0, source=source, kind=kind) for source in (ann, cleo, dora, emil)))


def test_few_files_are_opened_where_sizes_are_equal_and_none_where_they_differ(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("merba.datasets.shared_frames._middle", lambda path: opened.append(path) or Path(path).read_bytes())
    same = [clip(name, source=recorded(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    check(*same)
    assert len(opened) == 6
    opened.clear()
    check(same[0], clip("c", source=recorded(tmp_path / "c", seed=2, size=5001)), clip("d", source=recorded(tmp_path / "d", 11)))
    assert not opened


def test_folders_that_can_not_be_used_are_left_to_their_own_jobs(tmp_path):
    (tmp_path / "empty").mkdir()
    loop = tmp_path / "loop"
    loop.mkdir()
    for name in ("img1.bmp", "img2.bmp"):
        (loop / name).symlink_to(loop / name)
    check(*(clip(name, source=tmp_path / name) for name in ("empty", "loop", "absent")))
