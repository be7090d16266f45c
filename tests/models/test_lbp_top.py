"""LBP-TOP against slow loops, scikit-image and what follows from its definition."""

import numpy as np
import pytest
import torch

from merba import create_model
from merba.models.lbp_top import lbp_top_codes

RADIUS, INTERVAL = 1, 2


def clip(frames=6, height=9, width=11, levels=8, seed=0):
    """Grey levels with many ties, for which the ≥ of the pattern matters."""
    return np.random.default_rng(seed).integers(0, levels, (frames, height, width))


def slow_codes(clip, radius, interval):
    """The patterns pixel by pixel: (3, T', H', W')."""
    frames, height, width = clip.shape
    codes = np.zeros((3, frames - 2 * interval, height - 2 * radius, width - 2 * radius), int)
    for t in range(interval, frames - interval):
        for y in range(radius, height - radius):
            for x in range(radius, width - radius):
                for p in range(4):
                    cos, sin = round(np.cos(np.pi * p / 2)), round(np.sin(np.pi * p / 2))
                    xy = clip[t, y - radius * sin, x + radius * cos]
                    xt = clip[t - interval * sin, y, x + radius * cos]
                    yt = clip[t - interval * sin, y - radius * cos, x]
                    for plane, neighbour in enumerate((xy, xt, yt)):
                        at = codes[plane, t - interval, y - radius, x - radius :]
                        at[0] += (neighbour >= clip[t, y, x]) << p
    return codes


def codes(clip, radius=RADIUS, interval=INTERVAL):
    return lbp_top_codes(torch.from_numpy(clip)[None], radius, interval)[0].numpy()


@pytest.mark.parametrize(("radius", "interval"), [(1, 2), (2, 1), (1, 1)])
def test_codes_are_those_of_the_slow_loop(radius, interval):
    assert (codes(clip(), radius, interval) == slow_codes(clip(), radius, interval)).all()


def test_codes_in_xy_are_scikit_images():
    from skimage.feature import local_binary_pattern

    frames = clip(height=40, width=50, levels=256)
    for frame, ours in zip(frames[INTERVAL:-INTERVAL], codes(frames)[0], strict=True):
        assert (ours == local_binary_pattern(frame, 4, 1, "default")[1:-1, 1:-1]).all()


def test_a_clip_that_moves_along_x_in_stripes_has_the_yt_codes_of_a_still_one():
    stripes = np.tile(clip(1, 9, 1)[0], (1, 20))  # equal along x
    moving = np.stack([np.roll(stripes, t, axis=1) for t in range(6)])
    still = np.stack([stripes] * 6)
    assert (codes(moving)[2] == codes(still)[2]).all()


def test_ten_frames_have_two_centres_and_1200_values_that_sum_to_one_a_block_and_plane():
    model = create_model("lbp_top", 3)
    assert model.input_shape == (10, 1, 128, 128)
    clips = torch.from_numpy(clip(20, 128, 128, 256)).float().view(2, 10, 1, 128, 128)
    features = model.features(clips)
    assert features.shape == (2, 1200)
    histograms = features.view(2, 25, 3, 16)
    assert histograms.sum(-1).numpy() == pytest.approx(np.ones((2, 25, 3)), abs=1e-6)
    # The blocks cover the 126 inner pixels of two frames: their sides are 25 or 26 px.
    sides = np.diff([round(i * 126 / 5) for i in range(6)])
    first = histograms[0, 0, 0] * sides[0] ** 2 * 2
    assert first.numpy() == pytest.approx(first.numpy().round(), abs=1e-2)
    expected = np.bincount(codes(clips[0, :, 0].numpy(), 1, 4)[0][:, : sides[0], : sides[0]].ravel(), minlength=16)
    assert first.numpy() == pytest.approx(expected, abs=1e-2)


def test_features_of_a_clip_are_its_own():
    model = create_model("lbp_top", 3, image_size=32)
    clips = torch.from_numpy(clip(200, 32, 32, 256)).float().view(20, 10, 1, 32, 32)
    assert torch.equal(model.features(clips)[17:], model.features(clips[17:]))


def test_the_uniform_mapping_merges_the_two_patterns_that_change_four_times():
    every, uniform = (create_model("lbp_top", 3, image_size=32, bins=bins) for bins in ("all", "uniform"))
    clips = torch.from_numpy(clip(10, 32, 32, 256)).float().view(1, 10, 1, 32, 32)
    of_all, merged = (model.features(clips).view(75, -1) for model in (every, uniform))
    assert merged.shape == (75, 15)
    kept = [code for code in range(16) if code not in (0b0101, 0b1010)]
    assert torch.equal(merged[:, :14], of_all[:, kept])
    assert merged[:, 14] == pytest.approx((of_all[:, 0b0101] + of_all[:, 0b1010]).numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 8}, "length is 8; it must be at least 9"),
        ({"bins": "riu2"}, "bins is 'riu2'"),
        ({"blocks": 0}, "blocks"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("lbp_top", 3, **arguments)
