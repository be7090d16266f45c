"""Models that draw their own batches, and settle after an epoch: what they see of a fold, and what becomes of its training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_folds import CPU, QUICK, split
from torch import nn

from merba import create_model
from merba.preprocessing.packs import FlowFormat
from merba.training import loop, resume
from merba.training.epoch import draw_epoch
from merba.training.inputs import prepare_view
from merba.training.loop import train_fold, train_without_test, weights_digest

SETTINGS = replace(QUICK, epochs=3, warmup=1, cooldown=0, rate=0.01)
SMALL = {"length": 2, "image_size": 8, "widths": (4, 4, 6, 6), "blocks": 1, "support": 2, "queries": 3, "episodes": 4}


def clips(n=48, seed=0):
    """Grey clips (n, 2, 1, 8, 8) whose class is the part of the second frame that is brighter; labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    values = random.normal(120, 20, (n, 2, 1, 8, 8))
    for code, rows in enumerate((slice(0, 3), slice(3, 5), slice(5, 8))):
        values[labels == code, 1, :, rows] += 80
    return values.astype(np.float16), labels


def prepared(values, labels, parts):
    form = FlowFormat(("grey",), "grey")
    return prepare_view(values, labels, parts.train, form, shape=values.shape[1:], normalise=True, device=CPU)


def meplan():
    return create_model("meplan", 3, **SMALL)


def trained(values, labels, parts, settings=SETTINGS, build=meplan, **options):
    return train_fold(build, prepared(values, labels, parts), parts, 3, settings, seed=1, **options)


class Watched(nn.Module):
    """A model of one layer that writes down what it is given; each clip is known by its first value."""

    episodes = 2

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 3))
        self.seen = []

    def note(self, what, inputs, labels=None):
        self.seen.append((what, inputs.flatten(1)[:, 0].tolist(), None if labels is None else labels.tolist()))

    def forward(self, x):
        self.note("trained" if self.training else "predicted", x)
        return self.layers(x)

    def episode(self, labels, random):
        self.seen.append(("drawn from", None, labels.tolist()))
        return torch.randint(len(labels), (5,), generator=random)

    def settle(self, inputs, labels):
        assert not self.training and not torch.is_grad_enabled()
        self.note("settled", inputs, labels)


@pytest.mark.parametrize("flip", [False, True])
def test_episodes_and_settling_see_exactly_the_training_clips_and_settling_comes_before_predicting(flip):
    values, labels = clips()
    parts, made = split(), []
    data = prepared(values, labels, parts)
    train_fold(lambda: made.append(Watched()) or made[-1], data, parts, 3, replace(SETTINGS, epochs=2, flip=flip), seed=1)
    of_training = data.inputs[parts.train].flatten(1)[:, 0].tolist()
    mirrored = data.mirrored(torch.from_numpy(parts.train)).flatten(1)[:, 0].tolist()
    seen = made[0].seen
    an_epoch = ["drawn from"] * 2 + ["trained"] * 2 + ["settled", "predicted"]
    assert [what for what, *_ in seen] == 2 * an_epoch
    for what, inputs, given in seen:
        if what == "trained":
            assert set(inputs) <= set(of_training) | set(mirrored if flip else [])
        elif what == "settled":
            assert (inputs, given) == (of_training, labels[parts.train].tolist())
        elif what == "drawn from":
            assert given == labels[parts.train].tolist()


def test_an_epoch_of_episodes_is_drawn_by_the_trainings_own_generator():
    values, labels = clips()
    parts, model = split(), meplan()
    data = prepared(values, labels, parts)

    def rows(seed):
        return draw_epoch(model, data, parts.train, replace(SETTINGS, shift=1), torch.Generator().manual_seed(seed))

    epoch, again, other = rows(1), rows(1), rows(2)
    assert (epoch.steps, epoch.clips) == (4, 4 * 15)
    for step in range(epoch.steps):
        assert torch.equal(epoch.rows[step], again.rows[step])
        assert set(epoch.rows[step].tolist()) <= set(parts.train)
        assert labels[epoch.rows[step]].tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert epoch.mirrored[step].shape == (15,) and epoch.shifts[step].shape == (15, 2)
    assert not torch.equal(torch.cat(epoch.rows), torch.cat(other.rows))


def test_the_loss_of_an_epoch_is_the_mean_over_its_episodes():
    values, labels = clips()
    losses = []

    class Noted(type(meplan())):
        def loss(self, *arguments, **options):
            losses.append(super().loss(*arguments, **options))
            return losses[-1]

    result = trained(values, labels, split(), replace(SETTINGS, epochs=1), lambda: Noted(3, **SMALL))
    assert len(losses) == 4
    assert result.history[0]["train_loss"] == pytest.approx(sum(losses).item() / 4, rel=1e-5)


AVERAGED = replace(SETTINGS, weight_average=0.8, mirror_average=True)


@pytest.mark.parametrize("settings", [SETTINGS, AVERAGED], ids=["plain", "averaged"])
def test_the_prototypes_kept_are_those_of_the_weights_that_predict(settings):
    values, labels = clips()
    parts = split(validation=False)
    data = prepared(values, labels, parts)
    result = trained(values, labels, parts, settings)
    model = meplan().eval()
    model.load_state_dict(result.weights)
    with torch.no_grad():
        embeddings = model.embed(data.inputs).double()
        views = [model(data.inputs[parts.test]), model(data.mirrored(torch.from_numpy(parts.test)))]
    means = [embeddings[[row for row in parts.train if labels[row] == code]].mean(0).numpy() for code in range(3)]
    assert result.weights["prototypes.means"].numpy() == pytest.approx(np.stack(means), abs=1e-5)
    logits = sum(views) / 2 if settings.mirror_average else views[0]
    assert result.honest.probabilities == pytest.approx(logits.softmax(1).numpy(), abs=1e-5)


@pytest.mark.parametrize("settings", [SETTINGS, AVERAGED], ids=["plain", "averaged"])
@pytest.mark.parametrize("validation", [True, False])
def test_training_without_a_test_gives_the_weights_that_a_fold_of_the_same_clips_chose(settings, validation):
    values, labels = clips()
    parts = split(validation=validation)
    result = trained(values, labels, parts, settings)
    data = prepared(values, labels, parts)
    weights = train_without_test(meplan, data, parts.train, 3, settings, epochs=result.honest.epoch, seed=1)
    assert weights_digest(weights) == result.weights_sha256


@pytest.mark.parametrize("settings", [SETTINGS, AVERAGED], ids=["plain", "averaged"])
@pytest.mark.parametrize("dies_at", [1, 3, 4, 5, 8])
def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path, monkeypatch, settings, dies_at):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0)
    monkeypatch.setattr(resume, "SAVE_SHARE", math.inf)
    values, labels = clips()
    undisturbed = trained(values, labels, split(), settings)
    loss, losses = loop._loss, iter(range(dies_at))

    def dying(*arguments):
        if next(losses, None) is None:
            raise KeyboardInterrupt
        return loss(*arguments)

    file = tmp_path / "progress.pt"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_loss", dying)
        trained(values, labels, split(), settings, resume=file)
    assert file.exists()
    resumed = trained(values, labels, split(), settings, resume=file)
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert resumed.history == undisturbed.history
    assert (resumed.honest.probabilities == undisturbed.honest.probabilities).all()


@pytest.mark.parametrize("settings", [SETTINGS, AVERAGED], ids=["plain", "averaged"])
@pytest.mark.parametrize("poison", ["labels", "pixels"])
def test_nothing_of_the_test_subject_reaches_the_weights_the_prototypes_or_the_choice(settings, poison):
    values, labels = clips()
    clean = trained(values, labels, split(), settings)
    if poison == "labels":
        labels[split().test] = (labels[split().test] + 1) % 3
    else:
        values[split().test] = np.random.default_rng(1).normal(50, 90, values[split().test].shape)
    poisoned = trained(values, labels, split(), settings)
    assert poisoned.weights_sha256 == clean.weights_sha256
    assert poisoned.honest.epoch == clean.honest.epoch
    arrived = poisoned.oracle.probabilities if poison == "pixels" else poisoned.history
    assert np.not_equal(arrived, clean.oracle.probabilities if poison == "pixels" else clean.history).any()


def test_separable_classes_are_learnt():
    values, labels = clips()
    result = trained(values, labels, split(), replace(SETTINGS, epochs=10))
    assert (result.honest.predicted == labels[split().test]).all()


@pytest.mark.parametrize("settings", [SETTINGS, AVERAGED], ids=["plain", "averaged"])
def test_a_class_without_training_clips_is_never_predicted(settings):
    values, labels = clips()
    parts = split()
    labels[parts.train] = np.arange(len(parts.train)) % 2
    result = trained(values, labels, parts, settings)
    assert (result.every_epoch != 2).all()
    assert np.isfinite(result.honest.probabilities).all() and (result.honest.probabilities[:, 2] == 0).all()
    assert np.isinf(result.history[0]["validation_loss"]), "two validation clips are of that class"


class Released(nn.Module):
    """A model whose first layer is frozen until the second half of the training."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 4)).requires_grad_(False)
        self.second = nn.Linear(4, 3)

    def begin_epoch(self, progress):
        self.first.requires_grad_(progress > 0.5)

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_part_that_is_frozen_at_first_is_trained_once_it_is_released(optimizer):
    parts, settings = split(), replace(SETTINGS, epochs=4, optimizer=optimizer)
    data = prepared(*clips(), parts)
    torch.manual_seed(1)
    start = Released().state_dict()
    halves = [train_without_test(Released, data, parts.train, 3, settings, epochs=epochs, seed=1) for epochs in (2, 4)]
    frozen, released = (torch.equal(weights["first.1.weight"], start["first.1.weight"]) for weights in halves)
    assert frozen and not released
