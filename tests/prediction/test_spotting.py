"""The search finds where a face moves and returns, and nothing where it only moves."""

import numpy as np
import pytest
from moving_faces import FPS, STILL, opened_clip

from merba.errors import ClipProblem
from merba.prediction.spotting import Window, best_windows, search


def test_a_movement_that_returns_is_found_between_still_parts(tmp_path, movement):
    images, apex = movement
    found = search(opened_clip(tmp_path / "a", [images[0]] * STILL + images + [images[-1]] * STILL), FPS, {}, {})
    (candidate,) = found.candidates
    assert STILL - 5 <= candidate.onset < STILL + apex < candidate.offset <= STILL + len(images) + 5
    assert candidate.score > 0.15
    # Windows of half a second, an eighth of a second apart, at 30 frames a second.
    firsts = [window.first for window in found.windows]
    assert firsts == list(range(0, 2 * STILL + len(images) - 30, 8))


def test_a_movement_that_stays_is_no_candidate(tmp_path, movement):
    images, apex = movement
    rising = images[: apex + 1]
    found = search(opened_clip(tmp_path / "a", [images[0]] * STILL + rising + [rising[-1]] * STILL), FPS, {}, {})
    assert found.candidates == []


def test_of_candidates_that_overlap_the_best_is_kept():
    windows = [Window(0, 0, 9, 0.2, 0.2), Window(4, 5, 14, 0.9, 0.9), Window(8, 10, 19, 0.3, 0.3), Window(30, 31, 40, 0.2, 0.2)]
    assert [window.first for window in best_windows(windows)] == [4, 30]


@pytest.mark.parametrize(
    ("rise", "score", "returns"),
    [(0.5, 0.4, True), (0.1, 0.1, False), (3.0, 0.9, False), (3.0, 1.1, True), (np.nan, np.nan, False)],
)
def test_a_candidate_moves_and_moves_back(rise, score, returns):
    assert Window(0, 0, 9, rise, score).returns == returns


@pytest.mark.parametrize(
    ("fps", "frames", "message"),
    [
        (float("nan"), 40, "has no frame rate, which `--spot` needs; give it by --fps"),
        (60, 20, "is shorter than the 0.5 s that `--spot` looks at at a time; predict it without `--spot`"),
        (60, 40, "no face was found in any window"),
    ],
)
def test_what_can_not_be_searched_is_a_problem(tmp_path, fps, frames, message):
    clip = opened_clip(tmp_path / "a", [np.zeros((100, 100, 3), np.uint8)] * frames)
    with pytest.raises(ClipProblem, match=message):
        search(clip, fps, {}, {})
