"""STSTNet against its description, written out as three separate streams."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merba import create_model
from merba.models.cpu.ststnet import ConvNormPool


class ThreeStreams(nn.Module):
    """The network as its paper draws it, under its authors' parameter names."""

    def __init__(self):
        super().__init__()
        for i, filters in enumerate((3, 5, 8), start=1):
            setattr(self, f"conv{i}", nn.Conv2d(3, filters, 3, padding=2))
            setattr(self, f"bn{i}", nn.BatchNorm2d(filters))
        self.fc = nn.Linear(400, 3)

    def forward(self, x):
        streams = []
        for i in (1, 2, 3):
            y = getattr(self, f"bn{i}")(F.relu(getattr(self, f"conv{i}")(x)))
            streams.append(F.max_pool2d(y, 3, stride=3, padding=1))
        return self.fc(F.avg_pool2d(torch.cat(streams, 1), 2).flatten(1))


def a_pair(dropout: float = 0.0):
    torch.manual_seed(0)
    model, plain = create_model("ststnet", 3, dropout=dropout), ThreeStreams()
    with torch.no_grad():
        for i in (1, 2, 3):
            getattr(model, f"bn{i}").weight.normal_()  # some negative: their maximum is a minimum
            getattr(model, f"bn{i}").bias.normal_()
    plain.load_state_dict(model.state_dict(), strict=True)
    return model, plain


def flow(batch: int = 7) -> torch.Tensor:
    """Raw 0..255 values, with constant areas as in real clips, where maxima are tied."""
    x = torch.randint(0, 256, (batch, 3, 28, 28)).float()
    x[:, :, :9, 5:20] = 128
    x[0] = 0
    return x


def test_evaluation_equals_the_three_streams():
    model, plain = a_pair()
    for i in (1, 2, 3):
        for m in (model, plain):
            getattr(m, f"bn{i}").running_mean.fill_(3)
            getattr(m, f"bn{i}").running_var.fill_(2)
    x = flow()
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("wants_input_gradient", [False, True], ids=["kernel", "operators"])
def test_training_step_equals_the_three_streams(wants_input_gradient):
    model, plain = a_pair()
    x, y = flow().requires_grad_(wants_input_gradient), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    F.cross_entropy(model(x), y).backward()
    grad = x.grad
    x.grad = None
    F.cross_entropy(plain(x), y).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-5, msg=name)
    for name, statistic in model.named_buffers():
        torch.testing.assert_close(statistic, dict(plain.named_buffers())[name], rtol=1e-4, atol=1e-4, msg=name)
    if wants_input_gradient:
        torch.testing.assert_close(grad, x.grad, rtol=1e-3, atol=1e-6)


def test_the_kernels_results_do_not_depend_on_threads():
    # Only of the kernel: PyTorch's matrix products in the linear layer may round differently with other threads.
    results = []
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        torch.manual_seed(0)
        inputs = [torch.randn(16, 3, 3, 3), torch.randn(16), torch.randn(16), torch.randn(16)]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        pooled, mean, variance = ConvNormPool.apply(flow(), *inputs, 1e-5)
        pooled.backward(torch.randn_like(pooled))
        results.append([pooled, mean, variance, *(tensor.grad for tensor in inputs)])
    torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_the_authors_weight_files_fit_strictly():
    shapes = {name: tuple(t.shape) for name, t in create_model("ststnet", 3).state_dict().items()}
    expected = {"fc.weight": (3, 400), "fc.bias": (3,)}
    for i, filters in enumerate((3, 5, 8), start=1):
        expected |= {f"conv{i}.weight": (filters, 3, 3, 3), f"conv{i}.bias": (filters,)}
        expected |= {f"bn{i}.{name}": (filters,) for name in ("weight", "bias", "running_mean", "running_var")}
        expected[f"bn{i}.num_batches_tracked"] = ()
    assert shapes == expected


def test_dropout_acts_in_training_only():
    model, _ = a_pair(dropout=0.5)
    x = flow()
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_another_input_size_says_what_would_fit():
    with pytest.raises(ValueError, match="28×28"):
        create_model("ststnet", 3)(torch.zeros(1, 3, 56, 56))


def test_no_channels_or_classes_say_what_would_fit():
    for wrong in ({"in_channels": 0}, {"num_classes": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is 0; it must be a whole number"):
            create_model("ststnet", **{"num_classes": 3} | wrong)
