"""Flow images: crop, resizing and scaling against closed forms; motion of a face, and motion only of a head."""

import numpy as np
import pytest

from merba.preprocessing.flow_images import flow_images, image_transform, movement
from merba.preprocessing.packs import RELEASED

SIDE = 140  # px of the crop in the flows below: an image's pixel is the mean of 5×5 of them
CORNER = np.array([40, 30])
POINTS = np.array(RELEASED.template) * (SIDE - 1e-6) - 0.5 + CORNER  # slightly less, so that rounding needs no finer grid


def flow_of(u, v=0.0):
    """Flow (2, 224, 224) by functions of x and y, px from the crop's corner."""
    y, x = np.mgrid[:224, :224]
    return np.stack([np.broadcast_to(part(x - CORNER[0], y - CORNER[1]), (224, 224)) for part in (u, v)]).astype(np.float32)


def images(flow, points=POINTS):
    return flow_images(flow[None], points[None], RELEASED)[0]


def test_the_crop_is_averaged_over_areas_and_scaled_channel_by_channel():
    random = np.random.default_rng(0).normal(size=(2, 224, 224)).astype(np.float32)
    x, y = CORNER
    means = random[:, y : y + SIDE, x : x + SIDE].reshape(2, 28, 5, 28, 5).mean((2, 4))
    low, high = means.min((1, 2), keepdims=True), means.max((1, 2), keepdims=True)
    assert np.abs(images(random)[:2] - 255 * (means - low) / (high - low)).max() < 1


def test_strain_is_that_of_the_whole_flow():
    bump = flow_of(lambda x, y: np.exp(-((x - 70) ** 2 + (y - 70) ** 2) / 400), lambda x, y: 0 * x)
    (u_y, u_x) = np.gradient(bump[0])
    strain = np.sqrt(u_x**2 + u_y**2 / 2)[CORNER[1] :, CORNER[0] :][:SIDE, :SIDE].reshape(28, 5, 28, 5).mean((1, 3))
    assert np.abs(images(bump)[2] - 255 * (strain - strain.min()) / np.ptp(strain)).max() < 1


def test_neither_the_size_of_a_motion_nor_a_shift_of_the_head_changes_an_image():
    flow = flow_of(lambda x, y: np.sin(x / 20), lambda x, y: np.cos(y / 30))
    assert np.abs(images(3 * flow + 5).astype(int) - images(flow)).max() <= 1


def test_a_turned_face_gives_the_image_of_the_upright_one():
    """By a quarter of a turn: the flow field turns and so do its vectors."""
    flow = flow_of(lambda x, y: np.sin(x / 20) + y / 90, lambda x, y: np.cos(y / 30))
    turned = np.stack([flow[1], -flow[0]]).transpose(0, 2, 1)[:, ::-1]  # (x, y) → (y, 223 − x)
    points = np.stack([POINTS[:, 1], 223 - POINTS[:, 0]], 1)
    assert np.abs(images(turned, points).astype(int) - images(flow)).max() <= 1


def test_a_flow_without_differences_is_black():
    assert not images(flow_of(lambda x, y: 0 * x + 2.0, lambda x, y: 0 * x)).any()


def test_the_transform_takes_the_points_to_the_template():
    transform = image_transform(POINTS, RELEASED)
    assert (POINTS @ transform[:, :2].T + transform[:, 2] + 0.5) / RELEASED.size == pytest.approx(np.array(RELEASED.template))


def test_movement_is_what_the_face_moves_beside_its_head_in_px():
    brows = flow_of(lambda x, y: 0 * x + 3.0, lambda x, y: 0.8 * (y < SIDE / 4) - 7.0)
    assert movement(brows, POINTS) == pytest.approx(0.8, abs=1e-5)
    assert movement(flow_of(lambda x, y: 0 * x + 3.0, lambda x, y: 0 * x), POINTS) == pytest.approx(0, abs=1e-5)
