"""A model's inputs from flow: sizes, mirrors, shifts, the faces' points; normalised only by the training clips."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from small_folds import CPU, PIXELS, clips
from torch.nn import functional as F

from merba.errors import MerbaError
from merba.models.htnet import htnet_regions
from merba.preprocessing.packs import RELEASED, FlowFormat
from merba.training.inputs import face_points, mirrored_points, prepare, shifted


def test_inputs_have_mean_zero_and_deviation_one_over_the_training_clips_alone():
    flow, labels = clips(n=200)
    flow[190:] *= 100
    train = np.arange(190)
    data = prepare(flow, labels, train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    u, v = data.inputs[:190].numpy().swapaxes(0, 1)
    assert v.mean() == pytest.approx(0, abs=1e-5)
    assert v.std() == pytest.approx(1, abs=1e-5)
    assert data.mean == pytest.approx([0, flow[:190, 1].astype(np.float64).mean()], abs=1e-5)
    assert np.square(u).mean() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("unit", ["px", "image"])
@pytest.mark.parametrize("normalise", [False, True])
def test_mirrored_inputs_are_those_of_the_mirrored_flow(unit, normalise):
    flow, labels = clips()
    if unit == "image":
        flow = np.round(flow * 20 + 100)
    mirrored = flow[..., ::-1].copy()
    mirrored[:, 0] = (255 if unit == "image" else 0) - mirrored[:, 0]
    settings = {"shape": (2, 6, 6), "normalise": normalise, "device": CPU}
    data, of_mirrored = (prepare(x, labels, np.arange(48), FlowFormat(("u", "v"), unit), **settings) for x in (flow, mirrored))
    index = torch.tensor([3, 0, 47])
    torch.testing.assert_close(data.mirrored(index), of_mirrored.inputs[index], rtol=0, atol=1e-6)
    assert (data.mean, data.std) == (pytest.approx(of_mirrored.mean), pytest.approx(of_mirrored.std))


@pytest.mark.parametrize("arrange", [None, lambda x, points: x.roll(2, -1)])
def test_plainly_mirrored_inputs_are_those_of_the_turned_flow_with_u_as_it_was(arrange):
    flow, labels = clips()
    flow = np.round(flow * 20 + 100)
    settings = {"shape": (2, 6, 6), "normalise": True, "device": CPU, "arrange": arrange, "points": np.full((48, 5, 2), 2.5)}
    form = FlowFormat(("u", "v"), "image")
    data, of_turned = (prepare(x, labels, np.arange(48), form, **settings) for x in (flow, flow[..., ::-1].copy()))
    index = torch.tensor([3, 0, 47])
    torch.testing.assert_close(data.mirrored(index, plain=True), of_turned.inputs[index], rtol=0, atol=1e-5)
    assert (data.mirrored(index) - of_turned.inputs[index])[:, 0].abs().max() > 0.1


def test_making_inputs_takes_little_more_than_the_inputs():
    """Read from a file, like packs, they are in memory only once."""
    code = """
import resource, sys
import numpy as np, torch
from merba.preprocessing.packs import FlowFormat
from merba.training.inputs import prepare

def make(n):
    flow = np.zeros((n, 2, 112, 112), np.float16)  # untouched, so it takes no memory
    settings = {"shape": (2, 112, 112), "normalise": True, "device": torch.device("cpu")}
    prepare(flow, np.zeros(n), np.arange(n), FlowFormat(("u", "v"), "px"), **settings)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small = make(64)
print((make(1500) - small) / (1500 * 2 * 112 * 112 * 4))
"""
    copies = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(copies) < 1.3


def test_inputs_are_resized_keeping_their_mean():
    flow, labels = clips(size=12)
    data = prepare(flow, labels, np.arange(48), PIXELS, shape=(2, 6, 6), normalise=False, device=CPU)
    expected = flow.astype(np.float32).reshape(48, 2, 6, 2, 6, 2).mean((3, 5))
    assert data.inputs.numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("unit", ["px", "image"])
def test_signed_inputs_lose_unit_and_zero_and_their_mirror_images_differ_in_sign_alone(unit):
    flow, labels = clips()
    form = FlowFormat(("u", "v"), unit)
    data = prepare(flow, labels, np.arange(48), form, shape=(2, 6, 6), normalise=False, decode="signed", device=CPU)
    moved = flow.astype(np.float64) - np.median(flow.astype(np.float64), (2, 3), keepdims=True)
    size = np.percentile(np.hypot(moved[:, 0], moved[:, 1]), 95, axis=(1, 2))[:, None, None, None]
    assert data.inputs.numpy() == pytest.approx(moved / size, abs=1e-5)
    mirrored = data.inputs.flip(-1) * torch.tensor([-1.0, 1])[:, None, None]
    torch.testing.assert_close(data.mirrored(torch.arange(48)), mirrored)


def test_flow_that_does_not_begin_with_u_and_v_cannot_be_decoded():
    flow, labels = clips()
    form = FlowFormat(("v", "u"), "px")
    with pytest.raises(MerbaError, match="as the first channels of the flow; here they are v, u: change `flow.channels`"):
        prepare(flow, labels, np.arange(48), form, shape=(2, 6, 6), normalise=False, decode="signed", device=CPU)


def test_more_channels_than_the_flow_has_are_refused():
    flow, labels = clips()
    with pytest.raises(MerbaError, match="needs 3 input channels, the flow has 2"):
        prepare(flow, labels, np.arange(48), PIXELS, shape=(3, 6, 6), normalise=True, device=CPU)


def test_a_model_that_arranges_its_input_gets_the_points_in_its_own_pixels():
    """There is a mark at the image-left eye; 12 px of flow become 6 of the model, and both mirrors show it at an eye."""
    flow, labels = clips(n=3, size=12)
    flow[:] = 0
    flow[:, 1, 2:4, 8:10] = 1
    points = np.zeros((3, 5, 2))
    points[:, 0] = 8.5, 2.5
    seen = []

    def arrange(x, points):
        seen.append((x, points))
        return x

    prepare(flow, labels, np.arange(3), PIXELS, shape=(2, 6, 6), normalise=False, device=CPU, arrange=arrange, points=points)
    (x, there), (mirrored, back) = seen
    assert there[0, 0].tolist() == [4, 1] and x[0, 1, 1, 4] == 1
    assert back[0, 1].tolist() == [1, 1] and mirrored[0, 1, 1, 1] == 1


def test_a_shifted_input_is_a_crop_of_one_whose_edges_are_repeated():
    x = torch.randn(3, 2, 4, 5)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    by = torch.tensor([[0, 0], [2, -1], [-2, 1]])
    moved = shifted(x, by)
    for clip, (down, right) in enumerate(by.tolist()):
        assert torch.equal(moved[clip], padded[clip, :, 2 + down : 6 + down, 2 + right : 7 + right])


def test_points_are_those_of_the_crop_where_flow_comes_without():
    points = np.full((2, 5, 2), 13.5)
    points[1] = np.nan
    known, usual = face_points(points, (28, 28), (56, 56))
    assert (known == 27.5).all()
    torch.testing.assert_close((usual + 0.5) / 56, torch.tensor(RELEASED.template))


def test_regions_of_ready_made_flow_hold_the_eyes_and_mouth_corners_of_its_crop():
    """The first and last column and row of each region; the crop has its eyes at the pixels (6, 8) and (21, 8)."""
    places = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="xy"))[None]
    regions = htnet_regions(places, face_points(np.full((1, 5, 2), np.nan), (28, 28), (28, 28)))[0]
    corners = {
        name: [regions[:, top, left].tolist(), regions[:, top + 13, left + 13].tolist()]
        for name, top, left in [("left eye", 0, 0), ("left mouth", 0, 14), ("right eye", 14, 0), ("right mouth", 14, 14)]
    }
    assert corners == {
        "left eye": [[0, 1], [13, 14]],
        "right eye": [[13, 1], [26, 14]],
        "left mouth": [[0, 13], [13, 26]],
        "right mouth": [[12, 13], [25, 26]],
    }


@pytest.mark.parametrize("x", [9.0, np.nan])
def test_regions_of_a_mirrored_face_are_the_mirrored_regions(x):
    """Eyes and mouth corners change sides, and each shows what it showed before; without landmarks as well."""
    flow = torch.randn(1, 1, 28, 28)
    seen = face_points(np.array([[[x, 10], [19, 10], [14, 15], [x, 21], [19, 21]]]), (28, 28), (28, 28)).round()
    regions = htnet_regions(flow, seen)
    mirrored = htnet_regions(flow.flip(-1), mirrored_points(seen, 28))
    for top, other in ((0, 14), (14, 0)):  # image-left parts above, image-right ones below
        for left in (0, 14):
            part = regions[0, 0, top : top + 14, left : left + 14]
            back = mirrored[0, 0, other : other + 14, left : left + 14].flip(-1)
            # A window with an even side can't be symmetric around a pixel: one column differs.
            assert torch.equal(back[:, :-1], part[:, 1:]) or torch.equal(back, part)
