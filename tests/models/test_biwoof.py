"""Bi-WOOF against a slow loop, and the properties in its description."""

import math

import numpy as np
import pytest
import torch

from merba import create_model
from merba.models.fitted import strain


def flow(n=3, channels=3, size=28, seed=0):
    x = np.random.default_rng(seed).normal(0, 1, (n, channels, size, size))
    x[:, 2:] = np.abs(x[:, 2:])
    return torch.from_numpy(x).float()


def model(**settings):
    return create_model("biwoof", 3, **{"in_channels": 3, "image_size": 28} | settings)


def slow(clip, blocks=5, bins=8):
    """Bi-WOOF of one clip (3, H, W), pixel by pixel."""
    height, width = clip.shape[1:]
    vector = []
    for i in range(blocks):
        for j in range(blocks):
            histogram, weight = [0.0] * bins, 0.0
            for y in range(round(i * height / blocks), round((i + 1) * height / blocks)):
                for x in range(round(j * width / blocks), round((j + 1) * width / blocks)):
                    u, v, deformation = clip[:, y, x]
                    angle = math.degrees(math.atan2(v, u))
                    histogram[math.floor((angle + 180) / (360 / bins)) % bins] += math.hypot(u, v)
                    weight += deformation
            total = sum(histogram) or 1.0
            vector += [value / total * weight for value in histogram]
    return np.array(vector) / (np.linalg.norm(vector) or 1.0)


@pytest.mark.parametrize(("size", "blocks", "bins"), [(28, 5, 8), (31, 4, 6)])
def test_it_equals_a_loop_over_pixels(size, blocks, bins):
    x = flow(size=size)
    found = model(image_size=size, blocks=blocks, bins=bins).features(x)
    expected = np.stack([slow(clip, blocks, bins) for clip in x.double().numpy()])
    assert found.numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("angle", [-180, -170, -46, -1, 1, 44, 46, 179, 180])
def test_flow_of_one_direction_fills_one_bin_of_each_block(angle):
    x = torch.ones(1, 3, 28, 28)
    x[:, 0], x[:, 1] = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    filled = model().features(x).reshape(25, 8).nonzero()
    expected = math.floor((angle + 180) / 45) % 8
    assert filled[:, 0].tolist() == list(range(25))
    if abs(angle) < 180:
        assert set(filled[:, 1].tolist()) == {expected}
    else:  # rounding decides on which side of the cut the angle is
        assert len(set(filled[:, 1].tolist())) == 1 and filled[0, 1] in (0, 7)


def test_the_size_of_motion_changes_nothing():
    torch.testing.assert_close(model().features(flow() * 9), model().features(flow()))


def test_a_block_without_strain_is_empty():
    x = flow()
    x[:, 2, 6:11, 11:17] = 0  # row 1, column 2
    blocks = model().features(x).reshape(-1, 25, 8)
    assert not blocks[:, 7].any() and blocks[:, 6].any()


def test_strain_is_computed_where_flow_has_none():
    u_v = flow(channels=2, size=224)
    with_strain = torch.cat([u_v, strain(u_v)[:, None]], 1)
    alone, given = create_model("biwoof", 3), create_model("biwoof", 3, in_channels=3)
    torch.testing.assert_close(alone.features(u_v), given.features(with_strain))


def test_its_planes_do_not_depend_on_the_number_of_clips():
    one, other = model(), model()
    for fitted, clips in ((one, 12), (other, 30)):
        fitted.fit(fitted.features(flow(clips)), torch.arange(clips) % 3, torch.arange(clips), cost=1.0)
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
