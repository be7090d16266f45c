"""Which frames a view takes, and interpolation in time against its form with singular values."""

import numpy as np
import pytest
from face_clips import clip_of

from merba.errors import ClipProblem
from merba.frames import open_clip
from merba.preprocessing.views.selection import (
    around_apex,
    between,
    frame_numbers,
    interpolated,
    key_frames,
    spread,
    tim_matrix,
)


def tim_by_svd(frames, length):
    """Temporal interpolation as its authors' code does it: frames (n, d) → (length, d)."""
    n = len(frames)
    mean = frames.mean(0)
    left, singular, right = np.linalg.svd((frames - mean).T, full_matrices=False)
    rank = n - 1
    places = np.arange(1, n + 1) / n
    k = np.arange(1, n)

    def curve(t):  # (len(t), n − 1)
        return np.sin(np.pi * np.outer(t, k) + np.pi * (n - k) / (2 * n))

    # Each frame's place in the space of the graph, and the map from there back to the frames.
    inner = (singular[:rank, None] * right[:rank]).T
    back = np.linalg.lstsq(curve(places), inner, rcond=None)[0]
    return curve(np.linspace(1 / n, 1, length)) @ back @ left[:, :rank].T + mean


@pytest.mark.parametrize("count", [2, 9, 17, 60])
def test_interpolation_in_time_is_that_of_the_path_graphs_embedding(count):
    frames = np.random.default_rng(count).normal(0, 50, (count, 200))
    expected = tim_by_svd(frames, 10)
    assert tim_matrix(count, 10) @ frames == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [2, 7, 30])
def test_rows_of_the_matrix_sum_to_one_and_as_many_steps_as_frames_return_the_frames(count):
    assert tim_matrix(count, 10).sum(1) == pytest.approx(np.ones(10), abs=1e-12)
    assert tim_matrix(count, count) == pytest.approx(np.eye(count), abs=1e-12)


def test_interpolated_frames_are_rounded_to_grey_levels():
    frames = np.random.default_rng(0).integers(0, 256, (14, 6, 5), dtype=np.uint8)
    made = interpolated(iter(frames), 14, 10)
    exact = np.tensordot(tim_matrix(14, 10), frames.astype(float), 1)
    assert made.dtype == np.uint8
    assert np.abs(made - exact.clip(0, 255)).max() <= 0.5
    assert (made[[0, -1]] == frames[[0, -1]]).all()
    with pytest.raises(ClipProblem, match=r"too few frames from onset to offset \(1\); interpolating in time takes at least 2"):
        interpolated(iter(frames[:1]), 1, 10)


@pytest.mark.parametrize(
    ("numbers", "apex", "length", "expected"),
    [
        (range(10, 27), 18, 16, [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26]),
        (range(5), 2, 5, [0, 1, 2, 3, 4]),
        (range(4), 1, 8, [0, 0, 0, 1, 1, 2, 2, 3]),  # both phases are included, frames are repeated
        (range(0, 40, 10), 20, 3, [0, 20, 30]),
        (range(0, 100, 4), 13, 3, [0, 12, 96]),  # the nearest of the existing frames
    ],
)
def test_key_frames_go_in_equal_steps_to_the_apex_and_to_the_offset(numbers, apex, length, expected):
    assert key_frames(list(numbers), apex, length) == expected


@pytest.mark.parametrize(
    ("last", "apex", "expected"),
    [
        (40, 20, range(15, 26)),
        (40, 3, range(1, 12)),  # from the frame after the onset
        (40, 38, range(33, 41)),  # to the offset
        (6, 3, range(1, 7)),
    ],
)
def test_frames_around_the_apex_are_as_slstts_code_takes_them(last, apex, expected):
    assert around_apex(list(range(last + 1)), apex, 11) == list(expected)


def test_a_clip_without_a_second_frame_has_none_around_its_apex():
    with pytest.raises(ClipProblem, match=r"too few frames from onset to offset \(1\)"):
        around_apex([4], 4, 11)


@pytest.mark.parametrize(
    ("count", "missing"),
    [
        (11, []),
        (9, [3.5, 4.5]),  # the gaps in the middle
        (8, [3.5, 4.5, 5.5]),
        (6, [0.5, 1.5, 2.5, 3.5, 4.5]),
        (4, [1 / 3, 2 / 3, 4 / 3, 5 / 3, 2.25, 2.5, 2.75]),
        (2, [share / 10 for share in range(1, 10)]),
    ],
)
def test_missing_frames_are_shared_out_over_the_gaps(count, missing):
    places = spread(count, 11)
    assert len(places) == 11
    assert (np.diff(places) > 0).all()
    assert sorted(set(places) - set(range(count))) == pytest.approx(missing)


def test_frames_between_others_are_their_weighted_mean():
    frames = np.array([[[0]], [[100]], [[30]]], np.uint8)
    assert between(frames, np.array([0, 0.25, 1, 1.5, 2])).ravel().tolist() == [0, 25, 100, 65, 30]
    assert between(frames[:1], spread(1, 4)).ravel().tolist() == [0, 0, 0, 0]


def test_the_frames_of_a_clip_are_those_that_there_are_from_onset_to_offset(tmp_path):
    clip = open_clip(clip_of(tmp_path / "c", [np.zeros((8, 8, 3), np.uint8)] * 6)["source"], "frames")
    assert frame_numbers(clip, 2, 5) == [2, 3, 4, 5]
    assert frame_numbers(clip, 4, None) == [4, 5, 6]
    (tmp_path / "c" / "img3.png").unlink()
    clip = open_clip(tmp_path / "c", "frames")
    assert frame_numbers(clip, 2, 5) == [2, 4, 5]
    with pytest.raises(ClipProblem, match="frame 3 is missing"):
        frame_numbers(clip, 3, 5)
    with pytest.raises(ClipProblem, match="frame 9 is missing"):
        frame_numbers(clip, 2, 9)
