"""The search finds where a face moves and returns, and nothing where it only moves."""

from itertools import islice, pairwise

import numpy as np
import pytest
from moving_faces import FPS, STILL, opened_clip, varied, video
from shared_data import shared_data

from merba.errors import ClipProblem
from merba.frames import open_clip
from merba.prediction.spotting import Window, best_windows, sampled_frames, search, window_frames
from merba.prediction.tracking import FaceTracker


def test_a_movement_that_returns_is_found_between_still_parts(tmp_path, movement):
    images, apex = movement
    found = search(opened_clip(tmp_path / "a", [images[0]] * STILL + images + [images[-1]] * STILL), FPS, {}, {})
    (candidate,) = found.candidates
    assert STILL - 5 <= candidate.onset < STILL + apex < candidate.offset <= STILL + len(images) + 5
    assert candidate.score > 0.15
    # Windows of half a second, an eighth of a second apart, at 30 frames a second.
    firsts = [window.first for window in found.windows]
    assert firsts == list(range(0, 2 * STILL + len(images) - 30, 8))
    assert [window.time for window in found.windows] == [first / FPS for first in firsts]


def test_a_movement_that_stays_is_no_candidate(tmp_path, movement):
    images, apex = movement
    rising = images[: apex + 1]
    found = search(opened_clip(tmp_path / "a", [images[0]] * STILL + rising + [rising[-1]] * STILL), FPS, {}, {})
    assert found.candidates == []


def candidates(clip):
    return [(one.onset, one.offset) for one in search(clip, clip.fps, {}, {}).candidates]


@pytest.mark.long
def test_a_followed_face_gives_the_candidates_of_one_that_is_detected_in_each_window(monkeypatch):
    clip = open_clip(shared_data("clips/WolfgangLanger_Pexels.mp4"), "video")
    frames = clip.frames
    monkeypatch.setattr(clip, "frames", lambda: islice(frames(), 250))
    followed = candidates(clip)
    monkeypatch.setattr("merba.prediction.spotting.FaceTracker", lambda backends, interval: FaceTracker(backends, interval=1))
    assert len(followed) > 3
    assert np.abs(np.subtract(followed, candidates(clip))).max() <= 2


def test_of_candidates_that_overlap_the_best_is_kept():
    places = [(0, 0, 9, 0.2), (4, 5, 14, 0.9), (8, 10, 19, 0.3), (30, 31, 40, 0.2)]
    windows = [Window(first, first / FPS, onset, offset, score, score) for first, onset, offset, score in places]
    assert [window.first for window in best_windows(windows)] == [4, 30]


@pytest.mark.parametrize(
    ("rise", "score", "returns"),
    [(0.5, 0.4, True), (0.1, 0.1, False), (3.0, 0.9, False), (3.0, 1.1, True), (np.nan, np.nan, False)],
)
def test_a_candidate_moves_and_moves_back(rise, score, returns):
    assert Window(0, 0.0, 0, 9, rise, score).returns == returns


@pytest.mark.parametrize(
    ("fps", "frames", "message"),
    [
        (float("nan"), 40, "has no frame rate, which `--spot` needs; give it with --fps, or in the table of clips"),
        (
            60,
            20,
            r"is shorter than a window of `--spot` \(0.5 s\), or has fewer than 3 frames in one; predict it without `--spot`",
        ),
        (60, 40, "no face was found in any window"),
    ],
)
def test_what_can_not_be_searched_is_a_problem(tmp_path, fps, frames, message):
    clip = opened_clip(tmp_path / "a", [np.zeros((100, 100, 3), np.uint8)] * frames)
    with pytest.raises(ClipProblem, match=message):
        search(clip, fps, {}, {})


def windows_of(clip, fps):
    """First and last frame of each window."""
    return [(frames[0][1], frames[-1][1]) for frames in window_frames(sampled_frames(clip, fps))]


def test_windows_of_a_varying_rate_go_by_time_stamps(tmp_path):
    """One second at 30 frames per second, then three at 10: half a second is 15 frames, then 5."""
    clip = open_clip(varied(video(tmp_path / "a.mp4", 60, 10), (30, 1 / 3), (30, 1)), "video")
    windows = windows_of(clip, clip.fps)
    assert [last - first for first, last in windows if last < 30] == [15] * 4
    assert [last - first for first, last in windows if first > 30] == [5] * 24
    times = [(clip.time(first, clip.fps), clip.time(last, clip.fps)) for first, last in windows]
    assert all(0.39 < end - start < 0.51 for start, end in times)
    assert all(0.09 < later - sooner < 0.19 for (sooner, _), (later, _) in pairwise(times))


@pytest.mark.parametrize("fps", [20, 25, 30, 50, 60, 100, 120, 200])
def test_windows_of_a_constant_rate_are_half_a_second_at_about_thirty_frames_a_second(tmp_path, fps):
    clip = open_clip(video(tmp_path / "a.avi", 2 * fps, fps), "video")
    step = max(round(fps / 30), 1)
    held = [[number for _, number, _ in frames] for frames in window_frames(sampled_frames(clip, fps))]
    assert all(numbers == list(range(numbers[0], numbers[0] + fps // 2 + 1, step)) for numbers in held)
    assert all(0.09 <= (later[0] - sooner[0]) / fps <= 0.16 for sooner, later in pairwise(held))
    assert held[-1][-1] >= 2 * fps - step - 0.16 * fps


def test_a_frame_rate_that_is_given_stretches_the_time_stamps(tmp_path):
    """A recording of 120 frames per second, stored as one of 30."""
    clip = open_clip(video(tmp_path / "a.avi", 90, 30), "video")
    assert [last - first for first, last in windows_of(clip, 120)] == [60] * len(windows_of(clip, 120))
