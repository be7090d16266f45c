"""Scan orders and window paths."""

import numpy as np
import pytest

from merba.scan import DIRECTIONS, PRESETS, scan_order, window_paths


def test_the_four_paths_of_a_two_by_three_window():
    # raster:  0 1 2
    #          3 4 5
    assert scan_order("hr", 2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert scan_order("vr", 2, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert scan_order("hz", 2, 3).tolist() == [0, 1, 2, 5, 4, 3]
    assert scan_order("vz", 2, 3).tolist() == [0, 3, 4, 1, 2, 5]


def test_reverse_walks_backwards_and_mirror_starts_top_right():
    assert scan_order("vz_reverse", 2, 3).tolist() == [5, 2, 1, 4, 3, 0]
    assert scan_order("hr_mirror", 2, 3).tolist() == [2, 1, 0, 5, 4, 3]
    assert scan_order("vr_mirror", 2, 3).tolist() == [2, 5, 1, 4, 0, 3]
    assert scan_order("hz_mirror", 2, 3).tolist() == [2, 1, 0, 3, 4, 5]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 1), (7, 7), (4, 9)])
def test_every_token_is_visited_once(direction, height, width):
    order = scan_order(direction, height, width)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(height * width))


@pytest.mark.parametrize("direction", ["hr", "vr", "hz", "vz"])
def test_the_papers_directions_start_top_left(direction):
    assert scan_order(direction, 7, 7)[0] == 0


@pytest.mark.parametrize("direction", ["hz", "vz"])
def test_zigzags_only_step_to_neighbours(direction):
    rows, columns = np.divmod(scan_order(direction, 5, 6), 6)
    assert (np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1).all()


def test_windows_partition_the_map_in_raster_order():
    paths = window_paths(["hr", "vz"], 4, 6, 2)
    assert paths.shape == (2, 6, 4)
    assert paths.dtype == np.int32
    assert paths[0].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21],
                                 [16, 17, 22, 23]]  # fmt: skip
    assert paths[1, 1].tolist() == [2, 8, 9, 3]


def test_edge_windows_list_their_real_tokens_and_nothing_else():
    paths = window_paths(["hr", "hz_reverse"], 3, 3, 2)
    assert paths[0].tolist() == [[0, 1, 3, 4], [2, 5, -1, -1], [6, 7, -1, -1], [8, -1, -1, -1]]
    assert paths[1].tolist() == [[3, 4, 1, 0], [5, 2, -1, -1], [7, 6, -1, -1], [8, -1, -1, -1]]


def test_no_window_or_a_larger_one_is_the_whole_map():
    whole = window_paths(["vr"], 3, 5, None)
    assert whole[0, 0].tolist() == scan_order("vr", 3, 5).tolist()
    assert np.array_equal(window_paths(["vr"], 3, 5, 9), whole)


def test_cached_paths_are_safe_from_the_caller():
    window_paths(["hr"], 2, 2, None)[:] = 7
    assert window_paths(["hr"], 2, 2, None).ravel().tolist() == [0, 1, 2, 3]


def test_presets_are_the_scans_of_their_papers_inside_one_window():
    visited = {name: [scan_order(direction, 2, 2).tolist() for direction in preset] for name, preset in PRESETS.items()}
    rows, columns, round_rows, round_columns = [0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2], [0, 2, 3, 1]
    cross_scan = [rows, columns, rows[::-1], columns[::-1]]
    assert visited == {
        "merba": [rows, columns, round_rows, round_columns],
        "vim": [rows, rows[::-1]],
        "vmamba": cross_scan,
        "localmamba": cross_scan,  # which it applies to windows
        "plainmamba": [round_rows, round_columns, round_rows[::-1], round_columns[::-1]],
    }


@pytest.mark.parametrize("arguments", [("diagonal", 2, 2), ("hr_twice", 2, 2), ("hr_", 2, 2), ("hr", 0, 2)])
def test_impossible_orders_say_what_would_fit(arguments):
    with pytest.raises(ValueError, match="known: hr|at least 1"):
        scan_order(*arguments)


def test_impossible_windows_say_what_would_fit():
    with pytest.raises(ValueError, match="at least 1"):
        window_paths(["hr"], 4, 4, 0)
    with pytest.raises(ValueError, match="choose from hr"):
        window_paths([], 4, 4, 2)
