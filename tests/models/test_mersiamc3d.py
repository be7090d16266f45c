"""MERSiamC3D: its sizes, its encoder and pair loss against plain loops, and its two stages in training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_folds import CPU, QUICK, split

from merba import create_model
from merba.models.heads import focal_loss
from merba.models.mersiamc3d import MERSiamC3D, Siamese
from merba.models.summary import architecture
from merba.preprocessing.packs import FlowFormat
from merba.training import loop
from merba.training.inputs import prepare_view
from merba.training.loop import train_fold, train_without_test

TINY = {"length": 8, "image_size": 16, "width": 4, "features": 8}
STAGES = replace(QUICK, epochs=6, batch_size=16, schedule="step", rate=0.01, min_rate=0.001, cooldown=3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build():
    return create_model("mersiamc3d", 3, **TINY)


def data_of(n=48):
    random = np.random.default_rng(0)
    values, labels = random.normal(128, 20, (n, 8, 1, 16, 16)), np.arange(n) % 3
    values[np.arange(n), labels] += 40  # a class has a frame that is brighter
    form = FlowFormat(("grey",), "grey")
    return prepare_view(
        values.astype(np.float16), labels, split().train, form, shape=values.shape[1:], normalise=True, device=CPU
    )


def test_parameters_and_costs_are_those_that_were_counted_beforehand():
    counted = {"mersiamc3d": (4.8e6, 19.8e9, (16, 1, 112, 112)), "mersiamc3d_small": (0.32e6, 0.16e9, (8, 1, 56, 56))}
    for name, (parameters, flops, shape) in counted.items():
        model = create_model(name, 3)
        total = architecture(model, model.input_shape).iloc[-1]
        assert model.input_shape == shape
        assert total["parameters"] == pytest.approx(parameters, rel=0.02)
        assert total["flops"] == pytest.approx(flops, rel=0.02)


def test_the_encoder_is_four_convolutions_over_time_rows_and_columns():
    model = build().eval().requires_grad_(False)
    x = torch.randn(2, *model.input_shape)
    maps = x.permute(0, 2, 1, 3, 4)
    kernels = [p for p in model.parameters() if p.ndim == 5]
    assert [len(kernel) for kernel in kernels] == [4, 8, 16, 32]
    for kernel, pool in zip(kernels, [(1, 2, 2), 2, 2, 2], strict=True):
        maps = F.max_pool3d(F.relu(F.conv3d(maps, kernel, padding=1) / math.sqrt(1 + 1e-5)), pool)
    assert maps.shape == (2, 32, 1, 1, 1)
    features = F.relu(maps.flatten(1) @ model.linear.weight.T + model.linear.bias)
    torch.testing.assert_close(model(x), features @ model.classifier.weight.T + model.classifier.bias)


def test_only_training_sees_features():
    model = build()
    x = torch.randn(3, *model.input_shape)
    outputs = model(x)
    assert outputs.logits.shape == (3, 3) and outputs.features.shape == (3, 8)
    assert model.eval()(x).shape == (3, 3)


def test_the_pair_loss_is_the_loop_over_pairs_with_both_kinds_weighted_alike():
    model, features, labels = build(), torch.randn(7, 8), [0, 1, 2, 0, 0, 1, 0]
    weight, bias = model.same.weight[0].tolist(), model.same.bias.item()
    losses = {True: [], False: []}
    for a in range(7):
        for b in range(a):
            pairs = zip(weight, features[a].tolist(), features[b].tolist(), strict=True)
            p = 1 / (1 + math.exp(-bias - sum(w * abs(x - y) for w, x, y in pairs)))
            alike = labels[a] == labels[b]
            losses[alike].append(-math.log(p if alike else 1 - p))
    assert (len(losses[True]), len(losses[False])) == (7, 14)
    expected = sum(sum(kind) / len(kind) for kind in losses.values()) / 2
    assert model.pair_loss(features, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [[1], [2, 2, 2], [0, 1]], ids=["one clip", "one class", "no two of a class"])
def test_a_batch_without_pairs_of_both_kinds_has_a_finite_loss(labels):
    model, y = build(), torch.tensor(labels)
    for progress in (0.5, 0.6):
        model.zero_grad(set_to_none=True)
        loss = model.loss(model(torch.randn(len(y), *model.input_shape)), y, progress=progress)
        loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    features = torch.randn(len(y), 8)
    first, second = torch.combinations(torch.arange(len(y))).T
    logits = model.same((features[first] - features[second]).abs())[:, 0]
    expected = F.binary_cross_entropy_with_logits(logits, (y[first] == y[second]).float()).item() if len(y) > 1 else 0
    assert model.pair_loss(features, y).item() == pytest.approx(expected)


def test_the_first_half_learns_from_pairs_and_the_second_from_classes():
    model, y = build(), torch.tensor([0, 1, 1])
    outputs = Siamese(torch.randn(3, 3), torch.randn(3, 8))
    own = {"class_weights": torch.tensor([1.0, 2.0, 3.0]), "label_smoothing": 0.1}
    for progress in (1 / 60, 0.5):
        assert torch.equal(model.loss(outputs, y, progress=progress, convex=False, **own), model.pair_loss(outputs.features, y))
    for progress in (31 / 60, 1.0):
        assert torch.equal(model.loss(outputs, y, progress=progress, convex=False, **own), focal_loss(outputs.logits, y, **own))


def test_the_second_stage_leaves_the_first_two_convolutions_bit_for_bit():
    data, rows = data_of(), np.arange(36)
    torch.manual_seed(1)
    start = build().state_dict()
    first, second = (train_without_test(build, data, rows, 3, STAGES, epochs=epochs, seed=1) for epochs in (3, 6))

    def kept(before, after):
        return {name for name in before if torch.equal(before[name], after[name])}

    early = {name for name in start if name.startswith("early.")}
    assert len(early) == 2 * 6, "kernels, and weights, biases, means, variances and counts of BatchNorm"
    assert kept(start, first) == {"classifier.weight", "classifier.bias"}
    assert kept(first, second) == early | {"same.weight", "same.bias"}


def test_no_epoch_of_the_first_stage_is_chosen_or_stops_the_training(monkeypatch):
    scores = iter([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    monkeypatch.setattr(loop, "_validate", lambda *_: (1.0, next(scores)))
    data, settings = data_of(), replace(STAGES, patience=1, warmup=0)
    result = train_fold(build, data, split(), 3, settings, seed=1)
    assert result.honest.epoch == 4
    assert len(result.history) == 5, "one more after the best of the second stage"


def test_the_oracle_too_chooses_among_the_second_stages_epochs():
    data, parts, settings = data_of(), split(validation=False), STAGES
    result = train_fold(build, data, parts, 3, settings, seed=1)
    data.labels[parts.test] = torch.from_numpy(result.every_epoch[0])  # what the first epoch has right is all
    result = train_fold(build, data, parts, 3, settings, seed=1)
    accuracies = [row["oracle_test_accuracy"] for row in result.history]
    assert accuracies[0] == 1
    assert result.oracle.epoch == 4 + int(np.argmax(accuracies[3:]))


def test_all_folds_compile_one_model_for_each_stage(monkeypatch):
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(loop, "_step", lambda model, device: torch.compile(model, backend=counted))
    for n in range(3):
        parts = replace(split(), train=np.arange(36 - n))
        train_fold(build, data_of(), parts, 3, replace(STAGES, epochs=2), seed=1)
    assert len(graphs) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"length": 7}, "length is 7, image_size 16; four poolings need at least 8 frames of 16 px"),
        ({"image_size": 15}, "image_size 15"),
        ({"width": 0}, "width is 0; it must be a whole number"),
        ({"gamma": -1}, "gamma is -1; it must be a number above 0"),
    ],
)
def test_arguments_that_do_not_fit_say_what_would(arguments, says):
    with pytest.raises(ValueError, match=says):
        MERSiamC3D(3, **TINY | arguments)
