"""Flow: known displacements are found, in pixels of the aligned face; strain of an analytic field."""

from threading import Barrier

import cv2
import numpy as np
import pytest
from face_clips import clip_of, rows_of
from textures import moved

from merba.errors import MerbaError
from merba.frames import open_clip
from merba.preprocessing.alignment import TEMPLATE, five_points
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, faces_of_subject, transform_of
from merba.preprocessing.flow import (
    FlowSettings,
    dense_flow,
    flow_channels,
    flow_format,
    flow_of_clips,
    flow_of_subject,
    opencv_tv_l1,
    strain,
)


def test_the_strain_of_a_linear_field_is_its_symmetric_gradient():
    y, x = np.mgrid[:20, :20].astype(float)
    flow = np.stack([0.1 * x + 0.3 * y, 0.05 * x - 0.2 * y])
    expected = np.sqrt(0.1**2 + 0.2**2 + 2 * ((0.3 + 0.05) / 2) ** 2)
    assert strain(flow) == pytest.approx(np.full((20, 20), expected))


def test_a_rotation_or_shift_has_no_strain():
    y, x = np.mgrid[:20, :20].astype(float)
    assert strain(np.stack([1 - 0.1 * y, 2 + 0.1 * x])) == pytest.approx(np.zeros((20, 20)))


def test_channels_come_in_the_order_asked_for():
    flow = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
    channels = flow_channels(flow, ("magnitude", "v", "u"))
    assert (channels[1:] == flow[::-1]).all()
    assert channels[0] == pytest.approx(np.sqrt((flow**2).sum(0)))


def test_flow_points_right_and_down_in_pixels_of_the_aligned_face(tmp_path, photograph):
    """A face that moves 2 px right and 1 px down in the frame does so, times the alignment's scale, in the flow."""
    frames = [photograph, moved(photograph, 1, 0.5), moved(photograph, 2, 1)]
    rows = rows_of(clip_of(tmp_path / "a", frames, apex=3))
    # One landmark frame: averaging would follow the moving head.
    settings = {"landmark_frames": 1}
    faces = faces_of_subject(rows, settings)
    flow, clips = flow_of_subject(rows, faces, apexes_of_subject(rows, faces, {}, settings), {}, settings)
    assert clips["problem"].isna().all()
    linear = np.array(faces["transform"][0]).reshape(2, 3)[:, :2]
    centre = flow[0, :, 60:180, 60:160].astype(float).mean((1, 2))
    assert centre == pytest.approx(linear @ [2, 1], abs=0.25)
    points = clips["points"][0].reshape(5, 2)
    assert np.abs(points - (224 * TEMPLATE - 0.5)).max() < 12  # px: no face has the template's proportions
    assert points == pytest.approx(five_points(aligned_landmarks(faces.iloc[0])), abs=1e-3)


def test_the_shift_of_the_whole_head_can_be_subtracted(tmp_path, photograph):
    rows = rows_of(clip_of(tmp_path / "a", [photograph, photograph, moved(photograph, 2, 1)], apex=3))
    faces = faces_of_subject(rows, {})
    apexes = apexes_of_subject(rows, faces, {}, {})
    kept, _ = flow_of_subject(rows, faces, apexes, {}, {})
    removed, _ = flow_of_subject(rows, faces, apexes, {"head_motion": "shift"}, {})
    assert np.abs(np.median(kept[0], axis=(1, 2))).min() > 0.5
    assert np.median(removed[0], axis=(1, 2)) == pytest.approx([0, 0], abs=1e-3)
    assert np.ptp(kept[0] - removed[0], axis=(1, 2)) == pytest.approx([0, 0], abs=4e-3)


def test_an_annotated_clip_needs_its_first_frames_and_its_apex_and_no_other(tmp_path, photograph):
    rows = rows_of(clip_of(tmp_path / "a", [photograph] * 9, apex=7, offset=12))
    for number in (4, 5, 6, 8, 9):
        (tmp_path / "a" / f"img{number}.png").write_bytes(b"damaged")
    faces = faces_of_subject(rows, {"landmark_frames": 3})
    _, clips = flow_of_subject(rows, faces, apexes_of_subject(rows, faces, {}, {}), {}, {})
    assert clips["problem"].isna().all()


@pytest.mark.parametrize("gone", [1, 3])
def test_a_missing_onset_or_apex_is_a_named_problem_and_not_the_next_frame(tmp_path, photograph, gone):
    rows = rows_of(clip_of(tmp_path / "a", [photograph] * 4, apex=3))
    (tmp_path / "a" / f"img{gone}.png").unlink()
    faces = faces_of_subject(rows, {"landmark_frames": 1})
    _, clips = flow_of_subject(rows, faces, apexes_of_subject(rows, faces, {}, {}), {}, {})
    assert f"frame {gone} is missing" in clips["problem"][0]


def test_a_clip_with_a_problem_has_no_flow_and_keeps_its_place(tmp_path, photograph):
    rows = rows_of(
        clip_of(tmp_path / "empty", [np.zeros((200, 200, 3), np.uint8)] * 3),
        clip_of(tmp_path / "good", [photograph, photograph, moved(photograph, 1, 1)], apex=3),
    )
    faces = faces_of_subject(rows, {})
    flow, clips = flow_of_subject(rows, faces, apexes_of_subject(rows, faces, {}, {}), {}, {})
    assert flow.shape == (2, 2, 224, 224)
    assert flow.dtype == np.float16
    assert not flow[0].any()
    assert flow[1].any()
    assert "no face" in clips["problem"][0]


def test_an_apex_that_is_the_onset_once_more_is_said(tmp_path, photograph, caplog):
    noise = np.random.default_rng(0).integers(0, 3, photograph.shape, np.uint8)
    noisy = cv2.add(photograph, noise)
    rows = rows_of(*(clip_of(tmp_path / name, [photograph, noisy, photograph], apex=apex) for name, apex in (("a", 3), ("b", 2))))
    faces = faces_of_subject(rows, {"landmark_frames": 1})
    with caplog.at_level("WARNING", "merba.preprocessing.flow"):  # `merba predict` has another one in this process
        flow, clips = flow_of_subject(rows, faces, apexes_of_subject(rows, faces, {}, {}), {}, {})
    assert clips["problem"].isna().all() and not flow[0].any() and flow[1].any()
    said = [message for message in caplog.messages if "same picture" in message]
    assert said == ["d s a: onset and apex are the same picture, so that nothing moves; check the frames"]


def test_threads_change_neither_bits_nor_order(tmp_path, photograph):
    clips = [[photograph, moved(photograph, right, 1)] for right in range(4)]
    clips.insert(1, [np.zeros((200, 200, 3), np.uint8)] * 2)
    rows = rows_of(*(clip_of(tmp_path / str(place), frames, apex=2) for place, frames in enumerate(clips)))
    faces = faces_of_subject(rows, {"landmark_frames": 1})
    apexes = apexes_of_subject(rows, faces, {}, {})
    one, three = (list(flow_of_clips(rows, faces, apexes, {}, {}, threads)) for threads in (1, 3))
    assert [bool(clip.problem) for clip in one] == [False, True, False, False, False]
    assert len({clip.flow.tobytes() for clip in one}) == 5
    for clip, same in zip(one, three, strict=True):
        assert clip.flow.tobytes() == same.flow.tobytes()
        assert clip.head_motion == pytest.approx(same.head_motion, abs=0, nan_ok=True)
        assert clip.problem == same.problem


def test_so_many_threads_solve_side_by_side(tmp_path, photograph, monkeypatch):
    rows = rows_of(*(clip_of(tmp_path / name, [photograph, photograph], apex=2) for name in "abcd"))
    faces = faces_of_subject(rows, {})
    both = Barrier(2)

    def solver(first, second, settings):
        both.wait(timeout=20)  # raises if the other of the two doesn't come
        return np.zeros((2, *first.shape), np.float32)

    monkeypatch.setattr("merba.preprocessing.flow.dense_flow", solver)
    assert len(list(flow_of_clips(rows, faces, apexes_of_subject(rows, faces, {}, {}), {}, {}, threads=2))) == 4


def test_flow_images_are_read_as_u_v_and_strain(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    path = tmp_path / "s01_a .png"
    cv2.imwrite(str(path), image[:, :, ::-1])
    rows = rows_of(
        {"dataset": "d", "subject": "s", "clip": "a", "source": str(path), "kind": "flow"}
        | {"onset": None, "apex": None, "offset": None},
        {"dataset": "d", "subject": "s", "clip": "b", "source": str(tmp_path / "absent.png"), "kind": "flow"}
        | {"onset": None, "apex": None, "offset": None},
    )
    flow, clips = flow_of_subject(rows, None, None, {}, {})
    assert (flow[0] == image.transpose(2, 0, 1)).all()
    assert flow_format(rows, {}).channels == ("u", "v", "strain")
    assert "absent.png" in clips["problem"][1]
    assert clips["head_motion"].isna().all()


def test_the_defaults_are_those_of_opencv():
    fresh, ours = cv2.optflow.DualTVL1OpticalFlow_create(), opencv_tv_l1(FlowSettings.of())
    getters = [name for name in dir(fresh) if name.startswith("get") and name != "getDefaultName"]
    assert len(getters) >= 12
    assert {name: getattr(fresh, name)() for name in getters} == {name: getattr(ours, name)() for name in getters}


def test_every_parameter_of_opencv_is_a_setting_that_reaches_the_solver():
    changed = FlowSettings(("u",), "keep", "opencv", 0.1, 0.2, 0.4, 3, 2, 0.02, 10, 4, 0.5, 0.1, 3)
    names = (
        "Tau", "Lambda", "Theta", "ScalesNumber", "WarpingsNumber", "Epsilon", "InnerIterations", "OuterIterations",
        "ScaleStep", "Gamma", "MedianFiltering",
    )  # fmt: skip
    solver = opencv_tv_l1(changed)
    assert [getattr(solver, f"get{name}")() for name in names] == pytest.approx(list(vars(changed).values())[3:])
    # UseInitialFlow needs a flow to start from, and there is none.
    there = {name.removeprefix("get") for name in dir(solver) if name.startswith("get")}
    assert there == {*names, "UseInitialFlow", "DefaultName"}


@pytest.mark.parametrize("changes", [{"solver": "opencv"}, {"gamma": 0.1}])
def test_opencv_solves_where_it_is_asked_for_and_where_illumination_changes(photograph, changes):
    first = cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY)[:64, :64]
    second, settings = moved(first, 1, 0), FlowSettings.of(changes)
    expected = opencv_tv_l1(settings).calc(first, second, None).transpose(2, 0, 1)
    assert (dense_flow(first, second, settings) == expected).all()
    assert (dense_flow(first, second, FlowSettings.of()) != expected).any()


def test_a_cv2_without_optflow_is_explained(monkeypatch):
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(MerbaError, match="merba doctor"):
        opencv_tv_l1(FlowSettings.of())


def test_an_installation_without_numba_is_explained(monkeypatch):
    monkeypatch.setattr("merba.preprocessing.flow.find_spec", lambda name: None)
    with pytest.raises(MerbaError, match="pip install numba, or set `flow.solver: opencv`"):
        dense_flow(np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8), FlowSettings.of())


@pytest.mark.long
def test_flow_of_the_demo_is_near_its_true_displacement(demo_root, demo_sheet):
    """End-point error, and the truth's mean, where the truth minus the clip's drift exceeds 0.3 px.

    For both solvers: they differ from each other as in `test_tv_l1`, and the project's own has no larger error.
    """
    solvers, differences = ("numba", "opencv"), []
    errors, lengths = {solver: [] for solver in solvers}, []
    for (dataset, _), rows in demo_sheet.groupby(["dataset", "subject"]):
        rows = rows.reset_index(drop=True)
        faces = faces_of_subject(rows, {})
        for clip, source, (_, face) in zip(rows["clip"], rows["source"], faces.iterrows(), strict=True):
            truth = np.load(demo_root / dataset / "truth" / f"{clip}.npz")
            read = open_clip(source, "frames").read
            transform = transform_of(face)
            pair = [aligned_grey(read(int(truth[key])), transform, FaceSettings.of()) for key in ("onset", "apex")]
            flow = {solver: dense_flow(*pair, FlowSettings.of({"solver": solver})) for solver in solvers}
            differences.append(np.hypot(*(flow["numba"] - flow["opencv"])))
            local = truth["displacement"].astype(np.float32) - truth["drift"][:, None, None]
            displaced = np.einsum("ij,jhw->ihw", transform[:, :2], local)
            true = np.stack([cv2.warpAffine(part, transform, (224, 224)) for part in displaced])
            moving, drift = np.hypot(*true) > 0.3, (transform[:, :2] @ truth["drift"])[:, None, None]
            for solver in solvers:
                errors[solver].append(np.hypot(*(flow[solver] - drift - true))[moving].mean())
            lengths.append(np.hypot(*true)[moving].mean())
            assert 0.9 < np.hypot(*true).max() < 2.1
    assert np.mean(errors["numba"]) < 0.2
    assert np.mean(errors["numba"]) < np.mean(lengths) / 3
    assert np.mean(errors["numba"]) < np.mean(errors["opencv"]) + 0.001
    assert np.mean(differences) < 0.01
    assert np.percentile(differences, 99) < 0.05
