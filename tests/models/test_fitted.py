"""What fitted methods compute from flow maps, and the support vector machine and LDA against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.svm import SVC

from merba import create_model
from merba.models.fitted import signed, strain
from merba.models.svm import LinearSVM
from merba.preprocessing.flow import strain as strain_of_arrays


def flow(n=4, channels=3, size=28, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0.2, 1, (n, channels, size, size))).float()


def mirrored(x):
    return x.flip(-1) * torch.tensor([-1.0, 1, 1])[: x.shape[1], None, None]


def test_signed_flow_has_median_zero_and_the_clips_own_size():
    x = flow()
    for clip, decoded in zip(x.numpy(), signed(x).numpy(), strict=True):
        u, v = (channel - np.median(channel) for channel in clip[:2])
        size = np.percentile(np.hypot(u, v), 95)
        assert decoded == pytest.approx(np.stack([u, v, clip[2]]) / size, abs=1e-5)


def test_signed_flow_forgets_unit_and_zero_and_stays_what_it_is():
    x = flow()
    torch.testing.assert_close(signed(x * 7 + torch.tensor([3.0, -2, 0])[:, None, None]), signed(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(signed(signed(x)), signed(x))


def test_signed_flow_of_a_mirrored_clip_is_mirrored():
    x = flow()
    torch.testing.assert_close(signed(mirrored(x)), mirrored(signed(x)))


def test_a_clip_without_motion_is_zero():
    assert not signed(torch.full((1, 2, 28, 28), 128.0)).any()


def test_strain_is_that_of_the_packs():
    x = flow(channels=2)
    expected = np.stack([strain_of_arrays(clip) for clip in x.numpy()])
    assert strain(x).numpy() == pytest.approx(expected, abs=1e-5)


def points(classes, n=90, features=6, seed=0):
    """Overlapping clouds of points, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    x = random.normal(0, 1, (n, features))
    x[np.arange(n), labels % features] += 1.5
    return torch.from_numpy(x).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [3, 5])
def test_the_machines_scores_are_scikit_learns(classes):
    x, labels = points(classes)
    machine = LinearSVM(6, classes)
    machine.fit(x[:60], labels[:60], cost=0.5)
    reference = SVC(kernel="linear", C=0.5, break_ties=True).fit(x[:60].double(), labels[:60])
    assert machine(x).numpy() == pytest.approx(reference.decision_function(x.double()), abs=1e-4)
    assert (machine(x).argmax(1).numpy() == reference.predict(x.double())).all()


def test_two_classes_are_told_apart_as_scikit_learn_does():
    x, labels = points(2)
    machine = LinearSVM(6, 2)
    machine.fit(x[:60], labels[:60], cost=1.0)
    assert (machine(x).argmax(1).numpy() == SVC(kernel="linear").fit(x[:60], labels[:60]).predict(x)).all()


@pytest.mark.parametrize("kept", [[0, 2, 3], [1, 3], [2]])
def test_the_machine_never_predicts_a_class_without_clips(kept):
    x, labels = points(4)
    rows = torch.isin(labels, torch.tensor(kept))
    machine = LinearSVM(6, 4)
    machine.fit(x[rows], labels[rows], cost=1.0)
    assert set(machine(x).argmax(1).tolist()) == set(kept)


def analysis(**settings):
    return create_model("lda", 3, in_channels=2, image_size=6, **settings)


@pytest.mark.parametrize("components", [5, 60])
def test_lda_is_scikit_learns_on_its_principal_components(components):
    """There are more clips than the 60 components and the 72 pixels."""
    x, labels = flow(150, 2, 6), torch.arange(150) % 3
    labels[:40] = 0  # frequency must not count
    x[:, 0, :2, :2] += labels[:, None, None]
    rows = torch.arange(120)
    model = analysis(components=components)
    model.fit(model.features(x), labels, rows)
    reduction = PCA(components, svd_solver="full").fit(x[:120].flatten(1).double())
    seen = reduction.transform(x.flatten(1).double())
    reference = LinearDiscriminantAnalysis(priors=[1 / 3] * 3).fit(seen[:120], labels[:120])
    assert model(x).softmax(1).numpy() == pytest.approx(reference.predict_proba(seen), abs=1e-3)


def test_lda_of_fewer_clips_than_components_never_predicts_a_class_without_clips():
    x, labels = flow(12, 2, 6), torch.tensor([0, 2] * 6)
    x[:, 1] += labels[:, None, None]
    model = analysis()
    model.fit(model.features(x), labels, torch.arange(12))
    assert model(x).argmax(1).tolist() == labels.tolist()
    assert (model(x).softmax(1)[:, 1] == 0).all()


@pytest.mark.parametrize("name", ["biwoof", "kernel", "lda"])
def test_without_any_motion_a_method_is_fitted_all_the_same(name):
    model = create_model(name, 3)
    x = torch.zeros(6, *model.input_shape)
    model.fit(model.features(x), torch.arange(6) % 3, torch.arange(6), **model.candidates[0])
    assert model(x).isfinite().all()


@pytest.mark.parametrize("name", ["biwoof", "kernel"])
def test_other_channels_say_what_would_fit(name):
    with pytest.raises(ValueError, match=r"in_channels is 4; it must be 2 \(u, v\) or 3"):
        create_model(name, 3, in_channels=4)
