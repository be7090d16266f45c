"""Training on what views keep: clips with time in front, and tokens."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_folds import CPU, QUICK, split
from torch import nn
from vit_files import write_vit

from merba import create_model
from merba.config import complete, experiment_settings
from merba.errors import MerbaError
from merba.jobs.labels import run as labels_of
from merba.preprocessing.packs import ClipFlow, FlowFormat, pack, save_subject
from merba.sheet import KEY, plain_rows, sample_rows
from merba.training import loop, resume
from merba.training.checkpoint import load_checkpoint
from merba.training.experiments import packed_experiment, train_experiment
from merba.training.inputs import prepare_view
from merba.training.loop import train_fold
from merba.training.settings import rate_at

GREY_FLOW = FlowFormat(("grey", "u", "v"), "px")
TOKENS = FlowFormat(("token",), "token")
GREY = FlowFormat(("grey",), "grey")
SHORT = replace(QUICK, epochs=4, batch_size=16, rate=0.005)
NETWORKS = {
    "mfdan": (GREY_FLOW, {"image_size": 32, "width": 32, "depth": 4, "heads": 2}, SHORT),
    "mersiamc3d": (
        GREY,
        {"length": 8, "image_size": 16, "width": 4, "features": 8},
        replace(SHORT, schedule="step", cooldown=2),
    ),
}
"""The networks of views: format, sizes, settings of a training of twelve steps."""


class Linear(nn.Module):
    """One linear layer on all values of a clip."""

    def __init__(self, values):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(values, 3))

    def forward(self, x):
        return self.layers(x)


def clips(shape, n=48, seed=0):
    """Values with the class given by which frame, or token, has a higher level; and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    values = random.normal(0, 1, (n, *shape))
    values[np.arange(n), labels] += 2
    return values.astype(np.float16), labels


def network_fold(name, poison=None, **changes):
    """A training of a small network, where `poison` is what of the test clips is changed, as a function of `resume`."""
    form, sizes, settings = NETWORKS[name]
    parts = split()

    def build():
        return create_model(name, 3, **sizes)

    shape = build().input_shape
    values, labels = clips((math.prod(shape),))
    values = values.reshape(-1, *shape)
    if poison == "labels":
        labels[parts.test] = (labels[parts.test] + 1) % 3
    elif poison == "values":
        values[parts.test] = np.random.default_rng(1).normal(50, 90, values[parts.test].shape)
    data = prepared(values, labels, form, parts, normalise=True)

    def train(resume=None):
        return train_fold(build, data, parts, 3, replace(settings, **changes), seed=1, resume=resume)

    return train


def prepared(values, labels, form, parts, normalise=False):
    return prepare_view(values, labels, parts.train, form, shape=values.shape[1:], normalise=normalise, device=CPU)


def test_each_channel_is_normalised_over_the_training_clips_and_u_keeps_its_zero():
    values, labels = clips((4, 3, 5, 6))
    parts = split()
    data = prepared(values, labels, GREY_FLOW, parts, normalise=True)
    train = values[parts.train].astype(np.float64)
    mean = train.mean((0, 1, 3, 4)) * [1, 0, 1]
    std = np.sqrt(((train - mean[:, None, None]) ** 2).mean((0, 1, 3, 4)))
    assert data.mean == pytest.approx(mean, abs=1e-5)
    assert data.std == pytest.approx(std, rel=1e-4)
    expected = (values.astype(np.float64) - mean[:, None, None]) / std[:, None, None]
    assert data.inputs.numpy() == pytest.approx(expected, abs=1e-3)


def test_the_mirror_of_a_view_negates_u_alone():
    values, labels = clips((4, 3, 5, 6))
    data = prepared(values, labels, GREY_FLOW, split(), normalise=True)
    mean, std = (np.array(part)[:, None, None] for part in (data.mean, data.std))
    mirrored = data.mirrored(torch.tensor([3, 7])).numpy() * std + mean
    assert mirrored == pytest.approx(values[[3, 7], ..., ::-1] * np.float64([1, -1, 1])[:, None, None], abs=0.01)


@pytest.mark.parametrize(("shape", "form", "flip"), [((4, 3, 5, 6), GREY_FLOW, True), ((4, 9), TOKENS, False)])
@pytest.mark.parametrize("poison", ["labels", "values"])
def test_a_view_is_learnt_and_nothing_of_the_test_subject_reaches_the_weights(shape, form, flip, poison):
    settings = replace(QUICK, flip=flip, optimizer="sgd", schedule="step")

    def trained(values, labels):
        data, values = prepared(values, labels, form, split(), normalise=flip), values[0].size
        return train_fold(lambda: Linear(values), data, split(), 3, settings, seed=1)

    values, labels = clips(shape)
    clean = trained(values, labels)
    assert (clean.honest.predicted == labels[split().test]).mean() > 0.6
    if poison == "labels":
        labels[split().test] = (labels[split().test] + 1) % 3
    else:
        values[split().test] = np.random.default_rng(1).normal(50, 90, values[split().test].shape)
    assert trained(values, labels).weights_sha256 == clean.weights_sha256


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("poison", ["labels", "values"])
def test_nothing_of_the_test_subject_reaches_a_networks_weights_or_choice(name, poison):
    clean, poisoned = network_fold(name)(), network_fold(name, poison)()
    assert len(clean.history) == 4
    assert poisoned.weights_sha256 == clean.weights_sha256
    assert poisoned.honest.epoch == clean.honest.epoch


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("changes", [{}, {"weight_average": 0.9}], ids=["", "averaged"])
@pytest.mark.parametrize("dies_at", [2, 7, 8])  # steps: three an epoch, so that MERSiamC3D's second stage begins with the 7th
def test_an_interrupted_network_goes_on_to_the_same_bits(tmp_path, monkeypatch, name, changes, dies_at):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0)
    monkeypatch.setattr(resume, "SAVE_SHARE", math.inf)
    train = network_fold(name, **changes)
    undisturbed = train()
    loss, losses = loop._loss, iter(range(1, dies_at))

    def dying(*arguments):
        if next(losses, None) is None:
            raise KeyboardInterrupt
        return loss(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_loss", dying)
        train(tmp_path / "progress.pt")
    resumed = train(tmp_path / "progress.pt")
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert resumed.history == undisturbed.history


def test_the_steps_rate_falls_once_at_the_cool_down():
    settings = replace(QUICK, epochs=40, rate=0.01, min_rate=0.001, schedule="step", cooldown=10)
    assert {rate_at(epoch, settings) for epoch in (0, 5, 29.9)} == {0.01}
    assert {rate_at(epoch, settings) for epoch in (30, 39.5)} == {0.001}


def test_a_view_of_another_shape_than_the_models_is_refused():
    values, labels = clips((4, 3, 5, 6))
    with pytest.raises(MerbaError, match=r"takes inputs of \(2, 9\), its view gives \(4, 3, 5, 6\)"):
        prepare_view(values, labels, split().train, GREY_FLOW, shape=(2, 9), normalise=False, device=CPU)


def test_a_missing_pack_names_the_target_that_makes_it(tmp_path):
    experiment = {"method": "A", "stopping": "none", "view": "tim10", "model": {"name": "lbp_top"}}
    datasets = {"d": {"adapter": "clips", "root": "x"}}
    config = complete({"data": "own", "datasets": datasets, "experiments": {"a": experiment}})
    rows = [{"dataset": "d", "subject": "s", "clip": "c", "source": "x", "kind": "video", "label": "positive"}]
    sample_rows(rows).to_parquet(tmp_path / "samples.parquet")
    with pytest.raises(MerbaError, match=r"views/tim10/d.npy is missing.*`snakemake --cores 4 packed_tim10 --configfile"):
        packed_experiment(config, "a", tmp_path)


OWN = """
from torch import nn

class Own(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(11 * 128, num_classes))
        self.input_shape = (11, 128)
"""


def test_a_model_in_the_users_file_learns_from_tokens_without_starting_from_the_encoder(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    write_vit(tmp_path / "vit.safetensors")
    values, labels = clips((11, 128), n=12)
    names = np.array(["negative", "positive", "surprise"])[labels]
    same = {"dataset": "d", "source": "x", "kind": "video"}
    sheet = sample_rows(same | {"subject": f"s{i // 6}", "clip": f"{i:02}", "label": name} for i, name in enumerate(names))
    sheet.to_parquet(tmp_path / "samples.parquet")
    packed = [ClipFlow(tokens, np.zeros((5, 2)), np.nan, None) for tokens in values]
    save_subject(tmp_path / "d.npz", sheet, packed, (11, 128), TOKENS)
    (tmp_path / "views" / "lof11").mkdir(parents=True)
    pack([tmp_path / "d.npz"], *(tmp_path / "views" / "lof11" / f"d.{suffix}" for suffix in ("npy", "parquet")))
    training = {"epochs": 1, "flip": False, "normalise": False}
    model = {"file": str(tmp_path / "own.py"), "class": "Own"}
    experiment = {"method": "A", "stopping": "none", "view": "lof11", "model": model, "training": training}
    views = {"lof11": {"pretrained": str(tmp_path / "vit.safetensors")}}
    datasets = {"d": {"adapter": "clips", "root": "x"}}
    config = {"data": "own", "datasets": datasets, "views": views, "experiments": {"a": experiment}, "keep_weights": True}
    config = complete(config)

    rows = plain_rows(sheet, [*KEY, "label", "split"])
    labels_of(rows, experiment_settings(config, "a", ["d"]), str(tmp_path / "labels.parquet"), log=str(tmp_path / "labels.log"))
    assert train_experiment(config, "a", tmp_path, origin="a configuration", only=[("d", "s1")]) == 1
    made = load_checkpoint(tmp_path / "folds" / "a" / "d" / "s1" / "model.safetensors", tmp_path / "own.py")
    assert made.input_shape == (11, 128)
    assert str(tmp_path) not in json.dumps(made.description), "of the machine that trained"
