"""Heads and losses: linear and DGCM (paper, Section III-D)."""

import math

import pytest
import torch
import torch.nn.functional as F

from merba.models.heads import DGCM, class_probabilities, classification_loss, focal_loss, make_head, predicted_class

ANGER, CONTEMPT, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE = range(7)
NEGATIVE, POSITIVE, SURPRISED, OTHERS = range(4)


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def test_linear_loss_is_weighted_smoothed_cross_entropy():
    x, y, w = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1]), torch.tensor([1.0, 2.0, 0.5])
    expected = F.cross_entropy(x, y, w, label_smoothing=0.1)
    assert torch.equal(classification_loss(x, y, progress=0.7, class_weights=w, label_smoothing=0.1), expected)


@pytest.mark.parametrize(
    ("label", "coarse", "fine"),
    [
        (ANGER, NEGATIVE, 0),
        (DISGUST, NEGATIVE, 1),
        (FEAR, NEGATIVE, 2),
        (SADNESS, NEGATIVE, 3),
        (HAPPINESS, POSITIVE, None),
        (SURPRISE, SURPRISED, None),
        (CONTEMPT, OTHERS, None),
    ],
)
def test_dgcm_loss_of_one_sample(label, coarse, fine):
    p, q = (0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
    loss = classification_loss((logits(*p), logits(*q)), torch.tensor([label]), progress=0.25)
    fine_loss = 0.0 if fine is None else -math.log(q[fine])
    assert loss.item() == pytest.approx(-math.log(p[coarse]) + 0.25 * fine_loss, rel=1e-5)


def test_dgcm_fine_loss_is_the_mean_over_true_negatives_only():
    coarse = torch.zeros(3, 4)
    fine = torch.stack([logits(0.1, 0.2, 0.3, 0.4)[0]] * 3)
    loss = classification_loss((coarse, fine), torch.tensor([ANGER, SADNESS, HAPPINESS]), progress=1.0)
    assert loss.item() == pytest.approx(math.log(4) - (math.log(0.1) + math.log(0.4)) / 2, rel=1e-5)


def test_dgcm_without_negatives_has_no_fine_loss_and_finite_gradients():
    coarse, fine = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    classification_loss((coarse, fine), torch.tensor([SURPRISE, HAPPINESS]), progress=1.0).backward()
    assert torch.equal(fine.grad, torch.zeros(2, 4))
    assert coarse.grad.isfinite().all()


def test_dgcm_convex_form_moves_from_coarse_to_fine():
    outputs, labels = (torch.randn(4, 4), torch.randn(4, 4)), torch.tensor([ANGER, FEAR, SADNESS, DISGUST])
    coarse = classification_loss(outputs, labels, progress=0.0, convex=True)
    fine = classification_loss(outputs, labels, progress=1.0, convex=True)
    between = classification_loss(outputs, labels, progress=0.3, convex=True)
    assert coarse.item() == pytest.approx(F.cross_entropy(outputs[0], torch.zeros(4, dtype=torch.long)).item())
    assert fine.item() == pytest.approx(F.cross_entropy(outputs[1], torch.tensor([0, 2, 3, 1])).item())
    assert between.item() == pytest.approx((0.7 * coarse + 0.3 * fine).item())


def test_dgcm_class_weights_weigh_samples_by_their_true_class():
    coarse, fine = torch.randn(2, 4), torch.randn(2, 4)
    weights = torch.ones(7)
    weights[ANGER] = 0
    weighted = classification_loss((coarse, fine), torch.tensor([ANGER, FEAR]), progress=0.5, class_weights=weights)
    alone = classification_loss((coarse[1:], fine[1:]), torch.tensor([FEAR]), progress=0.5)
    assert weighted.item() == pytest.approx(alone.item())


def test_dgcm_label_smoothing_is_that_of_cross_entropy():
    coarse, fine = torch.randn(3, 4), torch.randn(3, 4)
    loss = classification_loss((coarse, fine), torch.tensor([CONTEMPT] * 3), progress=1.0, label_smoothing=0.2)
    expected = F.cross_entropy(coarse, torch.tensor([OTHERS] * 3), label_smoothing=0.2)
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("gamma", [2.0, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_loss_is_the_loop_over_clips_and_classes(gamma, smoothing):
    x, labels, weights = torch.randn(6, 3), [0, 1, 2, 2, 1, 0], [1.0, 2.0, 0.5]
    total = 0.0
    for row, label in zip(x.tolist(), labels, strict=True):
        whole = sum(map(math.exp, row))
        for k in range(3):
            p, target = math.exp(row[k]) / whole, (1 - smoothing) * (k == label) + smoothing / 3
            total -= weights[k] * target * (1 - p) ** gamma * math.log(p)
    options = {"gamma": gamma, "class_weights": torch.tensor(weights), "label_smoothing": smoothing}
    expected = total / sum(weights[label] for label in labels)
    assert focal_loss(x, torch.tensor(labels), **options).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"class_weights": torch.tensor([1.0, 2.0, 0.5]), "label_smoothing": 0.1}], ids=["", "weighted"]
)
def test_focal_loss_with_gamma_0_is_cross_entropy(options):
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    torch.testing.assert_close(focal_loss(x, y, gamma=0.0, **options), classification_loss(x, y, **options))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_a_sure_answer_has_finite_gradients(gamma):
    x = torch.tensor([[100.0, 0.0], [0.0, 100.0]], requires_grad=True)
    loss = focal_loss(x, torch.tensor([0, 0]), gamma=gamma)
    loss.backward()
    assert loss.item() == pytest.approx(50) and x.grad.isfinite().all()


def test_dgcm_probabilities_split_the_negative_one_by_the_fine_head():
    outputs = logits(0.4, 0.3, 0.2, 0.1), logits(0.1, 0.2, 0.3, 0.4)
    expected = torch.tensor([[0.04, 0.1, 0.08, 0.12, 0.3, 0.16, 0.2]])  # anger, contempt, disgust, fear, …
    torch.testing.assert_close(class_probabilities(outputs), expected)


@pytest.mark.parametrize(
    ("coarse", "fine", "expected"),
    [
        ((0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.4, 0.3), FEAR),  # though happiness has the largest probability
        ((0.4, 0.3, 0.2, 0.1), (0.4, 0.2, 0.1, 0.3), ANGER),
        ((0.1, 0.6, 0.2, 0.1), (0.1, 0.2, 0.4, 0.3), HAPPINESS),
        ((0.1, 0.2, 0.6, 0.1), (0.1, 0.2, 0.4, 0.3), SURPRISE),
        ((0.1, 0.2, 0.1, 0.6), (0.1, 0.2, 0.4, 0.3), CONTEMPT),
    ],
)
def test_dgcm_prediction_is_the_coarse_class_or_the_fine_one_if_negative(coarse, fine, expected):
    assert predicted_class((logits(*coarse), logits(*fine))).tolist() == [expected]


def test_linear_probabilities_and_prediction():
    x = torch.tensor([[1.0, 3.0, 2.0]])
    torch.testing.assert_close(class_probabilities(x).sum(1), torch.ones(1))
    assert predicted_class(x).tolist() == [1]


def test_heads_are_two_parallel_linear_layers_or_one():
    assert isinstance(make_head("dgcm", 8, 7), DGCM)
    coarse, fine = make_head("dgcm", 8, 7)(torch.randn(2, 8))
    assert coarse.shape == fine.shape == (2, 4)
    assert make_head("linear", 8, 5)(torch.randn(2, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("kind", "classes", "says"),
    [
        ("dgcm", 3, "use head linear"),
        ("other", 3, "linear, dgcm"),
        ("linear", 0, "num_classes is 0; it must be a whole number"),
    ],
)
def test_heads_that_do_not_fit_say_what_would(kind, classes, says):
    with pytest.raises(ValueError, match=says):
        make_head(kind, 8, classes)
