"""FeatRef: its sizes, its separate branches, and its loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merba import create_model
from merba.models.featref import Inception, Proposed
from merba.models.heads import classification_loss


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts():
    with torch.device("meta"):
        model = create_model("featref", 3)
        assert parameters(model) == 9_990_734
        # With a linear layer to three classes instead of the branches, it is its predecessor, which has 6.45 M.
        assert parameters(model.shared) + parameters(nn.Linear(1024, 3)) == pytest.approx(6.45e6, abs=5e3)


def test_an_inception_block_is_four_paths_side_by_side():
    block, x = Inception(2, 3), torch.randn(4, 2, 6, 6)
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convolutions] == [1, 1, 3, 1, 5, 1]
    one, before_three, three, before_five, five, pooled = (
        lambda y, conv=conv: F.conv2d(y, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2).relu() for conv in convolutions
    )
    paths = one(x), three(before_three(x)), five(before_five(x)), pooled(F.max_pool2d(x, 3, 1, 1))
    torch.testing.assert_close(block(x), torch.cat(paths, 1))


def test_u_and_v_have_streams_of_their_own():
    model = create_model("featref", 3)
    flow = torch.rand(2, 2, 28, 28)
    u, v = (stream(channel) for stream, channel in zip(model.shared.streams, flow.split(1, 1), strict=True))
    assert u.shape == v.shape == (2, 7 * 7 * 64)
    torch.testing.assert_close(model.shared(flow), model.shared.linear(torch.cat([u, v], 1)).relu())


def test_a_proposal_sees_its_own_branch_alone():
    model = create_model("featref", 4)
    _, proposals = model(torch.rand(2, 2, 28, 28))
    for k in range(4):
        model.zero_grad(set_to_none=True)
        proposals[:, k].sum().backward(retain_graph=True)
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        seen = ("shared.", f"branches.{k}.")
        assert reached == {name for name, _ in model.named_parameters() if name.startswith(seen)}


def test_the_logits_join_the_features_of_all_branches():
    model = create_model("featref", 3).eval()
    x = torch.rand(2, 2, 28, 28)
    h = model.shared(x)
    features = [F.relu(b.specific(torch.sigmoid(b.attention(h)) * h)) for b in model.branches]
    torch.testing.assert_close(model(x), torch.cat(features, 1) @ model.fusion.weight.T + model.fusion.bias)


def test_only_training_sees_proposals():
    model, x = create_model("featref", 3), torch.rand(2, 2, 28, 28)
    logits, proposals = model(x)
    assert logits.shape == proposals.shape == (2, 3)
    assert torch.equal(model.eval()(x), logits)


def test_raw_images_are_divided():
    model, x = create_model("featref", 3).eval(), torch.rand(2, 2, 28, 28)
    raw = create_model("featref", 3, divisor=255).eval()
    raw.load_state_dict(model.state_dict())
    torch.testing.assert_close(raw(255 * x), model(x))


def test_the_loss_adds_the_mean_over_classes_of_yes_against_no():
    yes = [[0.9, 0.2, 0.4], [0.1, 0.3, 0.8]]
    outputs = Proposed(torch.randn(2, 3), torch.tensor(yes).logit())
    labels = torch.tensor([0, 2])
    right = [0.9, 1 - 0.2, 1 - 0.4, 1 - 0.1, 1 - 0.3, 0.8]
    proposal_loss = -sum(map(math.log, right)) / 6
    options = {"progress": 0.5, "class_weights": torch.tensor([1.0, 2.0, 3.0]), "label_smoothing": 0.1}
    class_loss = classification_loss(outputs.logits, labels, **options).item()
    for weight in (0, 1, 2.5):
        model = create_model("featref", 3, proposal_weight=weight)
        assert model.loss(outputs, labels, **options).item() == pytest.approx(class_loss + weight * proposal_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"divisor": 0}, "divisor is 0; it must be a number above 0"),
        ({"proposal_weight": -1}, "proposal_weight is -1; it must be a number above 0"),
        ({"num_classes": 0}, "num_classes is 0; it must be a whole number"),
    ],
)
def test_arguments_that_do_not_fit_say_what_would(wrong, says):
    with pytest.raises(ValueError, match=says):
        create_model("featref", **{"num_classes": 3, **wrong})


def test_other_inputs_say_what_would_fit():
    with pytest.raises(ValueError, match=r"\('batch', 2, 28, 28\)"):
        create_model("featref", 3)(torch.zeros(1, 3, 28, 28))
