"""The batched TV-L1 solver for GPUs, here on the CPU, against OpenCV's functions and the solver for one pair."""

from contextlib import nullcontext

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from face_clips import clip_of, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from textures import CHANGES, FEW, moved, texture

from merba.frames import open_clip
from merba.jobs import flow as flow_job
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import FaceSettings, aligned_grey, faces_of_subject, transform_of
from merba.preprocessing.flow_settings import FlowSettings, with_solver
from merba.preprocessing.tv_l1 import tv_l1
from merba.preprocessing.tv_l1_torch import median, remap, resize, tv_l1_batch
from merba.sheet import plain_rows

SIZES = st.tuples(st.integers(17, 60), st.integers(17, 60))


def batch(pairs, chosen):
    return tv_l1_batch(*(torch.from_numpy(np.stack(images)) for images in zip(*pairs, strict=True)), chosen).numpy()


@given(SIZES, st.sampled_from([1, 3, 5]), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_the_median_is_opencvs(size, side, seed):
    images = np.random.default_rng(seed).normal(size=(2, *size)).astype(np.float32)
    expected = [cv2.medianBlur(image, side) if side > 1 else image for image in images]
    assert (median(torch.from_numpy(images)[None], side)[0].numpy() == expected).all()


@given(SIZES, st.floats(0.5, 0.95), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_resizing_is_opencvs(size, step, seed):
    image = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smaller = cv2.resize(image, None, fx=step, fy=step)
    larger = cv2.resize(smaller, size[::-1])
    ratios = [there / here for there, here in zip(smaller.shape, size, strict=True)]
    for given_, expected, by in ((image, smaller, (1 / step, 1 / step)), (smaller, larger, ratios)):
        resized = resize(torch.from_numpy(given_)[None, None], expected.shape, by)[0, 0].numpy()
        assert resized == pytest.approx(expected, abs=1e-5)


@given(SIZES, st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_remapping_is_opencvs(size, seed):
    """Beyond the edges too."""
    random = np.random.default_rng(seed)
    image, flow = random.normal(size=size).astype(np.float32), random.normal(0, 5, (2, *size)).astype(np.float32)
    places = np.mgrid[: size[0], : size[1]][::-1].astype(np.float32) + flow
    expected = cv2.remap(image, *places, cv2.INTER_CUBIC)
    assert remap(torch.from_numpy(image)[None, None], torch.from_numpy(flow)[None])[0, 0].numpy() == pytest.approx(
        expected, abs=1e-3
    )


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_after_so_many_iterations_it_is_the_solver_of_one_pair(change):
    first, chosen = texture((80, 96)), FlowSettings.of(FEW | change)
    second = moved(first, 1.3, -0.7)
    (flow,) = batch([(first, second)], chosen)
    assert np.hypot(*(flow - tv_l1(first, second, chosen))).max() < 2e-3


def test_each_pair_stops_by_itself():
    """A still pair, a black pair and two motions give the same in one batch as one by one."""
    first = texture((64, 72))
    pairs = [(first, first), (np.zeros_like(first), first), (first, moved(first, 0.4, 0.2)), (first, moved(first, -2.5, 1.5))]
    together = batch(pairs, FlowSettings.of())
    assert not together[0].any()
    assert np.isfinite(together).all()
    for pair, flow in zip(pairs, together, strict=True):
        assert flow == pytest.approx(batch([pair], FlowSettings.of())[0], abs=1e-5)
    for flow, shift in zip(together[2:], ((0.4, 0.2), (-2.5, 1.5)), strict=True):
        assert flow[:, 15:-15, 15:-15].mean((1, 2)) == pytest.approx(shift, abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("shift", [(0.4, -0.2), (1.3, -0.7), (-2.5, 1.5)])
def test_a_shift_is_found_as_by_the_solver_of_one_pair(shift):
    pairs = [(first, moved(first, *shift)) for first in (texture((224, 224), seed) for seed in range(2))]
    difference = [
        np.hypot(*(flow - tv_l1(*pair, FlowSettings.of())))
        for pair, flow in zip(pairs, batch(pairs, FlowSettings.of()), strict=True)
    ]
    assert np.mean(difference) < 0.01
    assert np.percentile(difference, 99) < 0.05


@pytest.mark.long
def test_flow_of_the_demo_is_that_of_the_solver_of_one_pair(demo_root, demo_sheet):
    """A subject's clips at once; on average 0.0041 px apart, 99th percentile 0.045 px."""
    differences = []
    for (dataset, _), rows in demo_sheet.groupby(["dataset", "subject"]):
        pairs = []
        for row, face in zip(rows.itertuples(), faces_of_subject(rows, {}).to_dict("records"), strict=True):
            truth, read = np.load(demo_root / dataset / "truth" / f"{row.clip}.npz"), open_clip(row.source, row.kind).read
            transform = transform_of(face)
            pairs.append([aligned_grey(read(int(truth[key])), transform, FaceSettings.of()) for key in ("onset", "apex")])
        for pair, flow in zip(pairs, batch(pairs, FlowSettings.of()), strict=True):
            differences.append(np.hypot(*(flow - tv_l1(*pair, FlowSettings.of()))))
    assert len(differences) == 54
    assert np.mean(differences) < 0.01
    assert np.percentile(differences, 99) < 0.05


@pytest.mark.parametrize(
    ("solver", "gamma", "on_gpu", "runs"),
    [
        ("auto", 0, True, "cuda"), ("auto", 0, False, "numba"), ("auto", 0.1, True, "opencv"),
        ("numba", 0, True, "numba"), ("opencv", 0, True, "opencv"),
    ],
)  # fmt: skip
def test_auto_is_cuda_where_training_is(solver, gamma, on_gpu, runs):
    assert with_solver({"solver": solver, "gamma": gamma, "tau": 0.1}, on_gpu=on_gpu) == {
        "solver": runs,
        "gamma": gamma,
        "tau": 0.1,
    }


@pytest.fixture
def clips(tmp_path, photograph):
    """Arguments of a flow job on four clips, the second of which has no face; without output and log."""
    faces = [[photograph, moved(photograph, right, 0)] for right in (0.5, 1, 1.5)]
    faces.insert(1, [np.zeros((200, 200, 3), np.uint8)] * 2)
    rows = rows_of(*(clip_of(tmp_path / str(place), frames, apex=2) for place, frames in enumerate(faces)))
    found = faces_of_subject(rows, {"landmark_frames": 1})
    tables = {"faces": found, "apexes": apexes_of_subject(rows, found, {}, {})}
    for name, table in tables.items():
        table.to_parquet(tmp_path / name)
    return rows, {name: str(tmp_path / name) for name in tables} | {"log": str(tmp_path / "log")}


def test_a_job_solves_its_pairs_in_batches(tmp_path, clips, monkeypatch):
    rows, files = clips
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("merba.training.devices.training_device", lambda setting: nullcontext(torch.device("cpu")))
    monkeypatch.setattr("merba.preprocessing.flow.BATCH", 3)
    made = {}
    for solver in ("numba", "cuda"):
        output = tmp_path / f"{solver}.npz"
        flow_job.run(
            plain_rows(rows, list(rows)), {**FEW, "solver": solver}, {"size": 96}, **files, output=str(output), threads=2
        )
        with np.load(output) as file:
            made[solver] = dict(file)
    assert (
        np.abs(made["cuda"]["flow"] - made["numba"]["flow"].astype(float)).mean() < 1e-3 < np.abs(made["cuda"]["flow"][0]).mean()
    )
    assert [bool(problem) for problem in made["cuda"]["problem"]] == [False, True, False, False]
    assert pd.Series(made["cuda"]["head_motion"]).equals(pd.Series(made["numba"]["head_motion"]))


def test_a_job_without_the_gpu_that_was_planned_says_so(tmp_path, clips, monkeypatch, capsys):
    rows, files = clips
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        flow_job.run(plain_rows(rows, list(rows)), {"solver": "cuda"}, {}, **files, output=str(tmp_path / "flow.npz"), threads=1)
    assert "set `flow.solver: numba`" in capsys.readouterr().err
