"""Fitting a fold: one epoch, settings chosen on training subjects, and no leak from the test subject."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import SVC
from small_folds import CPU, PIXELS

from merba import create_model
from merba.errors import MerbaError
from merba.models import check_experiment
from merba.preprocessing.packs import FlowFormat
from merba.protocols import Split
from merba.training.fitted import fit_fold
from merba.training.inputs import prepare, prepare_view
from merba.training.loop import weights_digest

GREY, IMAGES = FlowFormat(("grey",), "grey"), FlowFormat(("u", "v", "strain"), "image")
METHODS = {
    "biwoof": ({"image_size": 28}, PIXELS, "raw"),
    "kernel": ({"in_channels": 2}, PIXELS, "raw"),
    "lda": ({"in_channels": 2}, PIXELS, "raw"),
    "lbp_top": ({"image_size": 28, "length": 5, "interval": 2, "blocks": 3}, GREY, "raw"),
    # as in config/public_flow.yaml
    "biwoof of images": ({"image_size": 28, "in_channels": 3}, IMAGES, "signed"),
    "kernel of images": ({}, IMAGES, "raw"),
    "lda of images": ({}, IMAGES, "signed"),
}
TRAIN, TEST = np.arange(48), np.arange(48, 60)


def clips(n=60, seed=0):
    """Flow of n clips of twelve subjects, with the class given by where v moves; labels; the subject of each clip."""
    random = np.random.default_rng(seed)
    labels, subjects = np.arange(n) % 3, np.arange(n) // 5
    flow = random.normal(0, 1, (n, 2, 28, 28))
    for code, rows in enumerate((slice(0, 9), slice(9, 18), slice(18, 28))):
        flow[labels == code, 1, rows] += 2
    return flow.astype(np.float16), labels, subjects.astype(str)


def greys(flow):
    """Clips of five frames of grey levels, float16 (n, 5, 1, 28, 28), brighter where v moves."""
    return np.stack([128 + 20 * step * flow[:, 1:] for step in range(5)], 1).clip(0, 255).round()


def images(flow):
    """Flow images (n, 3, 28, 28) of the flow: u, v, and a strain, each channel of each clip scaled to 0..255."""
    channels = np.concatenate([flow, np.abs(np.gradient(np.float32(flow[:, 1:]), axis=-1))], 1)
    low, high = (of(channels, axis=(-2, -1), keepdims=True) for of in (np.min, np.max))
    return (255 * (channels - low) / (high - low)).round()


def fitted(method, flow, labels, subjects, test=TEST, train=TRAIN, seed=1):
    arguments, form, decode = METHODS[method]

    def build():
        return create_model(method.split()[0], 3, **arguments)

    settings = {"shape": build().input_shape, "normalise": False, "device": CPU}
    if form == GREY:
        data = prepare_view(greys(flow), labels, train, form, **settings)
    else:
        data = prepare(images(flow) if form == IMAGES else flow, labels, train, form, decode=decode, **settings)
    return fit_fold(build, data, Split(train, np.empty(0, np.int64), test), subjects, 3, seed=seed)


@pytest.mark.parametrize("name", METHODS)
def test_a_fold_has_one_epoch_and_no_oracle(name):
    flow, labels, subjects = clips()
    result = fitted(name, flow, labels, subjects)
    assert result.honest.epoch == 1 and result.oracle is None
    assert (result.honest.predicted == labels[TEST]).mean() > 0.8
    assert result.history == [{"epoch": 1}]
    assert (result.every_epoch == result.honest.predicted[None]).all()
    assert result.honest.probabilities.sum(1) == pytest.approx(np.ones(len(TEST)), abs=1e-5)
    assert weights_digest(result.weights) == result.weights_sha256


@pytest.mark.parametrize("poison", ["labels", "pixels", "subjects"])
@pytest.mark.parametrize("name", METHODS)
def test_nothing_of_the_test_subject_reaches_the_weights_or_the_choice(name, poison):
    flow, labels, subjects = clips()
    poisoned = flow.copy(), labels.copy(), subjects.copy()
    if poison == "pixels":
        poisoned[0][TEST] = np.random.default_rng(1).normal(50, 90, flow[TEST].shape)
    elif poison == "labels":
        poisoned[1][TEST] = (labels[TEST] + 1) % 3
    else:
        poisoned[2][TEST] = "nobody"
    clean, result = fitted(name, flow, labels, subjects), fitted(name, *poisoned)
    assert result.weights_sha256 == clean.weights_sha256
    assert result.chosen == clean.chosen


def test_c_is_the_best_on_training_subjects_as_scikit_learn_scores_it():
    flow, labels, subjects = clips(seed=3)
    noise = np.random.default_rng(0)
    labels[TRAIN] = np.where(noise.random(48) < 0.4, noise.integers(0, 3, 48), labels[TRAIN])
    result = fitted("biwoof", flow, labels, subjects)
    x = create_model("biwoof", 3, **METHODS["biwoof"][0]).features(torch.from_numpy(flow).float()).double().numpy()[TRAIN]
    scores = {}
    for cost in (0.01, 0.1, 1, 10, 100, 1000):
        predicted = np.empty(48, int)
        parts = StratifiedGroupKFold(5, shuffle=True, random_state=1).split(x, labels[TRAIN], subjects[TRAIN])
        for others, part in parts:
            machine = SVC(kernel="linear", C=cost, break_ties=True).fit(x[others], labels[others])
            predicted[part] = machine.predict(x[part])
        scores[cost] = f1_score(labels[TRAIN], predicted, average="macro")
    assert {row["cost"]: row["uf1"] for row in result.chosen["inner_uf1"]} == pytest.approx(scores, abs=1e-4)
    assert len(set(scores.values())) > 2
    assert result.chosen["settings"] == {"cost": max(scores, key=scores.get)}


@pytest.mark.parametrize("name", ["kernel", "lda"])
def test_without_candidates_nothing_is_chosen(name):
    assert fitted(name, *clips()).chosen == {}


def test_a_single_training_subject_is_too_few_to_choose_on():
    flow, labels, _ = clips()
    with pytest.raises(MerbaError, match="cost is chosen by cross-validation over training subjects, but there is only one"):
        fitted("biwoof", flow, labels, np.full(60, "s"))


@pytest.mark.parametrize("name", METHODS)
def test_a_fold_without_test_clips_is_fitted(name):
    result = fitted(name, *clips(), test=np.empty(0, np.int64))
    assert result.honest.probabilities.shape == (0, 3)
    assert result.every_epoch.shape == (1, 0)


@pytest.mark.parametrize("name", METHODS)
def test_a_class_without_training_clips_is_warned_of_and_not_predicted(name, caplog):
    flow, labels, subjects = clips()
    train = TRAIN[labels[TRAIN] != 1]
    result = fitted(name, flow, labels, subjects, train=train)
    assert "1 of 3 classes have no training clip" in caplog.text
    assert 1 not in result.honest.predicted


def test_what_is_fitted_cannot_stop_by_validation():
    kernel = {"model": {"name": "kernel"}, "stopping": "validation"}
    with pytest.raises(MerbaError, match="kernel is fitted, not trained.*set `stopping: none`"):
        check_experiment(kernel, 3)
    check_experiment(kernel | {"stopping": "none"}, 3)
    check_experiment(kernel | {"model": {"name": "ststnet"}}, 3)
