"""The project's TV-L1 solver against OpenCV's, on textures with a known shift and on a real video."""

import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_data
from textures import CHANGES, FEW, moved, texture

from merba.frames import open_clip
from merba.preprocessing.faces import FaceSettings, aligned_grey, faces_of_subject, transform_of
from merba.preprocessing.flow import FlowSettings, opencv_tv_l1
from merba.preprocessing.tv_l1 import tv_l1

DEFAULTS = FlowSettings.of()
SIZES = st.tuples(st.integers(1, 50), st.integers(1, 50))


def opencv(first, second, chosen=DEFAULTS):
    return opencv_tv_l1(chosen).calc(first, second, None).transpose(2, 0, 1)


def difference(flow, other):
    """Lengths (H, W), px, of the differences of two flows."""
    return np.hypot(*(flow - other))


@pytest.mark.parametrize("shift", [(0.4, -0.2), (1.3, -0.7), (-2.5, 1.5)])
def test_a_shift_is_found_as_by_opencv(shift):
    first = texture((224, 224))
    second = moved(first, *shift)
    flow = tv_l1(first, second, DEFAULTS)
    assert flow.dtype == np.float32
    assert flow[:, 20:-20, 20:-20].mean((1, 2)) == pytest.approx(shift, abs=0.05)
    assert difference(flow, opencv(first, second)).mean() < 0.01
    assert np.percentile(difference(flow, opencv(first, second)), 99) < 0.05


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_after_so_many_iterations_it_is_opencv_to_rounding(change):
    """With every parameter; the number of iterations is fixed, so that rounding can't decide when they stop."""
    first = texture((80, 96))
    second = moved(first, 1.3, -0.7)
    flow, expected = (
        tv_l1(first, second, FlowSettings.of(FEW | change)),
        opencv(first, second, FlowSettings.of(FEW | change)),
    )
    assert difference(flow, expected).max() < 1e-3
    if change:
        assert difference(tv_l1(first, second, FlowSettings.of(FEW)), expected).max() > 0.01


@given(SIZES, st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_an_image_has_no_motion_to_itself(size, seed):
    image = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    assert not tv_l1(image, image, DEFAULTS).any()


@given(SIZES, st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_images_of_one_grey_have_no_motion(size, first, second):
    assert not tv_l1(np.full(size, first, np.uint8), np.full(size, second, np.uint8), DEFAULTS).any()


@given(SIZES, st.integers(0, 9), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_noise_and_black_frames_have_finite_flow(size, seed, black_first, black_second):
    first, second = np.random.default_rng(seed).integers(0, 256, (2, *size), dtype=np.uint8)
    flow = tv_l1(first * (not black_first), second * (not black_second), DEFAULTS)
    assert flow.shape == (2, *size)
    assert np.isfinite(flow).all()


@given(st.tuples(st.integers(17, 60), st.integers(17, 60)), st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_texture_of_any_size_moves_as_opencv_has_it(size, dx, dy, seed):
    first, chosen = texture(size, seed), FlowSettings.of(FEW)
    second = moved(first, dx, dy)
    assert difference(tv_l1(first, second, chosen), opencv(first, second, chosen)).max() < 1e-2


@pytest.mark.parametrize(
    "change", [lambda image: image[1:], lambda image: image / 255, np.uint16, lambda image: image[..., None]]
)
def test_other_images_than_grey_ones_of_one_size_are_refused(change):
    """OpenCV's solver refuses them too."""
    image = texture((32, 40))
    with pytest.raises(ValueError, match="TV-L1 takes two grey images"):
        tv_l1(image, change(image), DEFAULTS)
    with pytest.raises(ValueError, match="TV-L1 takes two grey images"):
        tv_l1(change(image), image, DEFAULTS)


def test_threads_change_no_bit():
    first = texture((224, 224))
    second, threads = moved(first, 1.3, -0.7), cv2.getNumThreads()
    flows = []
    for number in (1, 4):
        cv2.setNumThreads(number)
        flows.append(tv_l1(first, second, DEFAULTS))
    cv2.setNumThreads(threads)
    assert (flows[0] == flows[1]).all()


def test_the_iterations_are_compiled_to_vector_instructions(tmp_path):
    """The speed comes from these; Numba's own checks of divisions would keep the loops scalar."""
    program = """
import numpy as np
from merba.preprocessing import tv_l1
from merba.preprocessing.flow import FlowSettings
tv_l1.tv_l1(np.eye(32, dtype="uint8"), np.ones((32, 32), "uint8"), FlowSettings.of())
print(*tv_l1._iterate.inspect_asm().values())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}  # Numba shows no code that comes from its cache
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"\bv?sqrtps\b|\bfsqrt\s+v\d", run.stdout)  # x86, ARM


@pytest.mark.long
def test_flow_of_a_real_video_is_that_of_opencv():
    """Fifty aligned pairs of neighbouring frames that move less than 3 px.

    OpenCV's flow differs as much from its own (mean 0.0037 px, 99th percentile 0.042 px) if grey levels are rounded
    differently in their seventh digit.
    """
    path = shared_data("clips/WolfgangLanger_Pexels.mp4")
    clip, differences = open_clip(path, "video"), []
    for number in range(1, 471, 9):
        row = {"dataset": "d", "subject": "s", "clip": f"{number}", "source": str(path), "kind": "video", "bits": None}
        rows = pd.DataFrame([row | {"onset": number, "apex": number + 1, "offset": number + 1}])
        transform = transform_of(faces_of_subject(rows, {"landmark_frames": 1}).iloc[0])
        pair = [aligned_grey(clip.read(frame), transform, FaceSettings.of()) for frame in (number, number + 1)]
        expected = opencv(*pair)
        if np.hypot(*expected).mean() < 3:
            differences.append(difference(tv_l1(*pair, DEFAULTS), expected))
    assert len(differences) == 50
    assert np.mean(differences) < 0.01
    assert np.percentile(differences, 99) < 0.05
