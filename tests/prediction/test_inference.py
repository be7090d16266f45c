"""What a checkpoint predicts from flow: the same as training's evaluation, members averaged, and which flow decided it."""

import numpy as np
import pytest
import torch
from checkpoints import CLASSES, checkpoint, member
from torch import nn

from merba.models import create_model
from merba.models.heads import predicted_class
from merba.prediction.inference import classify
from merba.preprocessing.packs import FlowFormat
from merba.protocols import Split
from merba.training.checkpoint import STAGES, Checkpoint, Member
from merba.training.fitted import fit_fold
from merba.training.inputs import prepare
from merba.training.loop import classified, predict

CPU = torch.device("cpu")
NOWHERE = np.full((3, 5, 2), np.nan)


def flow_of(n=3, size=80, seed=0):
    return np.random.default_rng(seed).normal(0.1, 0.5, (n, 2, size, size)).astype(np.float16)


@pytest.mark.parametrize("mirror_average", [False, True])
def test_flow_gets_the_classes_that_training_would_give_it(mirror_average):
    flow, labels, rows = flow_of(), np.zeros(3, int), np.arange(3)
    made = checkpoint(mirror_average=mirror_average)
    data = prepare(flow, labels, rows, made.form, shape=made.input_shape, normalise=True, device=CPU)
    ours = Member(made.members[0].weights, data.mean, data.std)
    result = classify(checkpoint(ours, mirror_average=mirror_average), flow, NOWHERE, CPU)
    outputs = predict(made.build(ours), data, rows, mirror_average=mirror_average)
    predicted, probabilities = classified(outputs)
    assert (result.predicted == predicted).all()
    assert result.probabilities == pytest.approx(probabilities, abs=1e-6)
    assert result.saliency is None


@pytest.mark.parametrize("mirror_average", [False, True])
def test_a_model_that_arranges_its_input_gets_it_as_in_training(mirror_average):
    flow, labels, rows = flow_of(size=56), np.zeros(3, int), np.arange(3)
    points = np.random.default_rng(1).uniform(10, 46, (3, 5, 2))
    settings = {"name": "htnet", "in_channels": 2, "dim": 8, "heads": 1, "depths": [1, 1, 1]}
    torch.manual_seed(0)
    model = create_model(settings["name"], 3, **{k: v for k, v in settings.items() if k != "name"}).eval()
    data = prepare(
        flow, labels, rows, checkpoint().form, shape=model.input_shape, normalise=True, device=CPU,
        arrange=model.arrange, points=points,
    )  # fmt: skip
    made = checkpoint(Member(model.state_dict(), data.mean, data.std), model=settings, mirror_average=mirror_average)
    result = classify(made, flow, points, CPU, saliency=True)
    _, probabilities = classified(predict(model, data, rows, mirror_average=mirror_average))
    assert result.probabilities == pytest.approx(probabilities, abs=1e-6)
    elsewhere = classify(made, flow, points + 9, CPU)
    assert np.abs(elsewhere.probabilities - result.probabilities).max() > 1e-4


@pytest.mark.parametrize("decode", ["raw", "signed"])
@pytest.mark.parametrize(
    "settings", [{"name": "kernel", "in_channels": 2}, {"name": "lda", "in_channels": 2}, {"name": "biwoof"}]
)
def test_what_was_fitted_says_of_flow_what_the_fold_said(settings, decode):
    flow, labels = flow_of(12), np.arange(12) % 3

    def build():
        return create_model(**settings, num_classes=3)

    shape = build().input_shape
    data = prepare(flow, labels, np.arange(9), checkpoint().form, shape=shape, normalise=False, decode=decode, device=CPU)
    split = Split(np.arange(9), np.empty(0, np.int64), np.arange(12))
    result = fit_fold(build, data, split, (np.arange(12) // 3).astype(str), 3, seed=0)
    made = checkpoint(Member(result.weights, data.mean, data.std), model=settings, decode=decode)
    points = np.full((12, 5, 2), np.nan)
    assert classify(made, flow, points, CPU).probabilities == pytest.approx(result.honest.probabilities, abs=1e-4)


def test_an_ensembles_probabilities_are_the_means_of_its_members():
    members = [member(seed) for seed in (1, 2, 3)]
    alone = [classify(checkpoint(one), flow_of(), NOWHERE, CPU).probabilities for one in members]
    together = classify(checkpoint(*members), flow_of(), NOWHERE, CPU)
    assert together.probabilities == pytest.approx(np.mean(alone, axis=0), abs=1e-6)
    assert (together.predicted == np.mean(alone, axis=0).argmax(1)).all()


def test_dgcm_takes_the_coarse_class_first():
    torch.manual_seed(0)
    weights = create_model("merba_nano", 7, head="dgcm").state_dict()
    # Coarse logits that make negative likely, but its four classes share that; fine ones that differ little.
    weights["head.coarse.bias"] += torch.tensor([1.0, 0.5, 0, 0])
    one = Member(weights, [0, 0], [1, 1])
    made = checkpoint(one, model={"name": "merba_nano", "head": "dgcm"}, classes=list("abcdefg"))
    result = classify(made, flow_of(), NOWHERE, CPU)
    x = torch.nn.functional.interpolate(torch.from_numpy(flow_of()).float(), (56, 56), mode="area")
    with torch.no_grad():
        assert (result.predicted == predicted_class(made.build(one)(x)).numpy()).all()
    assert (result.predicted != result.probabilities.argmax(1)).any()
    assert result.probabilities.sum(1) == pytest.approx(np.ones(3), abs=1e-6)


class LooksAtOnePatch(nn.Module):
    """Logits (sum of v in rows 2–5, columns 8–11; 0)."""

    def forward(self, x):
        total = x[:, 1, 2:6, 8:12].sum((1, 2))
        return torch.stack([total, torch.zeros_like(total)], 1)


class PatchCheckpoint(Checkpoint):
    input_shape = (2, 14, 14)

    def build(self, member):
        return LooksAtOnePatch()


def patch_checkpoint(classes, unit="px"):
    about = {stage: {} for stage in STAGES}
    return PatchCheckpoint(
        [Member({}, [0, 0], [1, 1])], {}, classes, FlowFormat(("u", "v"), unit), "demo", "loso", {"d": 1}, **about
    )


@pytest.mark.parametrize(("unit", "rest"), [("px", 0), ("image", 0.5)])
def test_saliency_is_the_log_odds_lost_where_the_flow_is_taken_away(unit, rest):
    """If nothing moves, flow in px is 0, and an image has its median."""
    flow = np.full((1, 2, 14, 14), rest, np.float16)
    flow[0, 1, 2:6, 8:12] += 0.25
    made = patch_checkpoint(["a", "b"], unit)
    saliency = classify(made, flow, NOWHERE[: len(flow)], CPU, saliency=True).saliency[0]
    # Squares of 2×2 px, 1 px apart, each lower the log-odds by 0.25 for every pixel of the patch that they hide.
    expected = np.zeros((14, 14))
    for y in range(14):
        for x in range(14):
            tops = [top for top in (y - 1, y) if 0 <= top <= 12]
            lefts = [left for left in (x - 1, x) if 0 <= left <= 12]
            moved = flow[0, 1].astype(float) - rest
            hidden = [moved[top : top + 2, left : left + 2].sum() for top in tops for left in lefts]
            expected[y, x] = np.mean(hidden)
    assert saliency == pytest.approx(expected, abs=1e-5)
    assert saliency[9:].max() == 0 < saliency[3:5, 9:11].min()


def test_saliency_is_finite_where_a_probability_is_one():
    flow = np.full((1, 2, 14, 14), 1000, np.float16)
    made = patch_checkpoint(CLASSES[:2])
    result = classify(made, flow, NOWHERE[: len(flow)], CPU, saliency=True)
    assert result.probabilities[0, 0] == 1
    assert np.isfinite(result.saliency).all()
