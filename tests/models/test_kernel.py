"""The kernel method against slow loops, scikit-learn's kernel ridge regression, and what mirrors and units must not change."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.kernel_ridge import KernelRidge as Reference

from merba import create_model
from merba.models.fitted import strain
from merba.models.kernel import range_ratio

CLIPS, TRAIN = 12, 9
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 2])


def flow(seed=0):
    """Smooth flow with strain, as images from 0 to 255."""
    random = np.random.default_rng(seed)
    u_v = gaussian_filter(random.normal(0, 1, (CLIPS, 2, 28, 28)), (0, 0, 2, 2))
    x = torch.cat([torch.from_numpy(u_v), strain(torch.from_numpy(u_v))[:, None]], 1).float()
    low, high = (getattr(x.flatten(2), f"a{which}")(-1)[..., None, None] for which in ("min", "max"))
    return (x - low) / (high - low) * 255


def fitted(x, channels=3, rows=TRAIN):
    model = create_model("kernel", 3, in_channels=channels)
    model.fit(model.features(x[:, :channels]), torch.from_numpy(LABELS), torch.arange(rows))
    return model


def mirror(u, v):
    return -u[:, ::-1], v[:, ::-1]


def sized(u, v):
    size = np.percentile(np.hypot(u, v), 95)
    return u / size, v / size


def histogram(u, v, cells):
    """Eight soft orientation bins in cells, pixel by pixel."""
    side, bins = 28 // cells, np.zeros((8, cells, cells))
    for y in range(28):
        for x in range(28):
            place = math.degrees(math.atan2(v[y, x], u[y, x])) % 360 / 45
            share = place - math.floor(place)
            length = math.hypot(u[y, x], v[y, x])
            bins[math.floor(place) % 8, y // side, x // side] += length * (1 - share)
            bins[(math.floor(place) + 1) % 8, y // side, x // side] += length * share
    return bins


def described(u, v):
    """The five descriptions of one flow."""
    roots = [np.sign(part) * np.sqrt(np.abs(part)) for part in (u, v)]
    smooth = {"sigma": 1, "mode": "mirror", "truncate": 4}
    return [
        np.stack([gaussian_filter(part, **smooth) for part in (u, v)]),
        np.stack([gaussian_filter(part, **smooth) for part in roots]),
        np.sqrt(histogram(u, v, 14)),
        np.sqrt(histogram(u, v, 7)),
        np.stack([u, v]),
    ]


def distance(kind, a, b):
    return (np.square(a - b) if kind < 3 else np.abs(a - b)).sum()


def slow_scores(x, channels):
    """Mean scores of all clips, kernel by kernel and pair by pair, of the first TRAIN clips' solution."""
    ratios = range_ratio(x).numpy() if channels == 3 else None
    flows = [[], []]
    for number, (u, v, _) in enumerate(x.double().numpy()):
        for which, ratio in enumerate((1.0, ratios[number] if channels == 3 else None)):
            if ratio is not None:
                flows[which].append(sized(u - np.median(u), ratio * (v - np.median(v))))
    weights = TRAIN / (3 * np.bincount(LABELS[:TRAIN]))[LABELS[:TRAIN]]
    targets, scores = np.where(LABELS[:TRAIN, None] == np.arange(3), 1.0, -1.0), []
    for flow in filter(None, flows):
        halves = [[(part + other) / 2 for part, other in zip(clip, mirror(*clip), strict=True)] for clip in flow]
        for views in (flow, [sized(*half) for half in halves]):
            there = [described(*view) for view in views]
            back = [described(*mirror(*view)) for view in views]
            for kind in range(5):
                d, m = (np.array([[distance(kind, a[kind], b[kind]) for b in there] for a in side]) for side in (there, back))
                pairs = sorted(d[i, j] for i in range(TRAIN) for j in range(i))
                width = pairs[(len(pairs) - 1) // 2]
                k = np.exp(-d / width) + np.exp(-m / width)
                k = k / np.mean(np.diag(k)[:TRAIN]) + 1
                ridge = Reference(alpha=0.1, kernel="precomputed").fit(k[:TRAIN, :TRAIN], targets, sample_weight=weights)
                scores.append(ridge.predict(k[:, :TRAIN]))
    assert len(scores) == (20 if channels == 3 else 10)
    return np.mean(scores, axis=0)


@pytest.mark.parametrize("channels", [3, 2])
def test_scores_are_those_of_slow_loops_and_scikit_learns_ridge(channels):
    x = flow()
    assert fitted(x, channels)(x[:, :channels]).numpy() == pytest.approx(slow_scores(x, channels), abs=2e-3)


def test_a_mirrored_clip_has_the_same_scores():
    x = flow()
    mirrored = x.flip(-1)
    mirrored[:, 0] = 255 - mirrored[:, 0]
    torch.testing.assert_close(fitted(x)(mirrored), fitted(x)(x), rtol=1e-3, atol=1e-3)


def test_the_unit_of_flow_does_not_matter():
    x = flow()
    pixels = (x - 128) / 40
    pixels[:, 2] = x[:, 2] / 40
    torch.testing.assert_close(fitted(pixels)(pixels), fitted(x)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_strain_says_how_far_v_reached(ratio):
    x = flow()
    x[:, 2] = strain(x[:, :2] * torch.tensor([1.0, ratio])[:, None, None])
    assert range_ratio(x).tolist() == pytest.approx([ratio] * CLIPS)


def test_what_was_known_of_other_clips_changes_nothing():
    """Distances are kept between fits of the same clips; a fit must not use those of other clips, or of clips left out."""
    x, other = flow(), flow(seed=1)
    fresh = fitted(x).state_dict()
    fitted(other)
    other[:TRAIN] = x[:TRAIN]
    again = fitted(other).state_dict()
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)


def test_a_saved_model_of_any_number_of_clips_is_built_again():
    x = flow()
    for rows in (6, TRAIN):
        model, built = fitted(x, rows=rows), create_model("kernel", 3)
        built.make_room(model.state_dict())
        built.load_state_dict(model.state_dict())
        torch.testing.assert_close(built(x), model(x), rtol=1e-4, atol=1e-4)
