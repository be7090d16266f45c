"""The one-pass dropout of the CPU against PyTorch's definition."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from merba.models.dropout import Dropout, LinearGELUDropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_elements_are_dropped_with_probability_p_and_the_rest_scaled(p):
    y = Dropout(p)(torch.full((400, 500), 3.0))
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 3 / (1 - p)))
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.005)


def test_neighbours_and_calls_are_independent():
    dropout, x = Dropout(0.5), torch.ones(1 << 18)
    first, second = dropout(x) - 1, dropout(x) - 1  # -1 or 1: the mean of products is the correlation
    bound = 5 / len(x) ** 0.5
    assert (first * second).mean().abs() < bound
    for lag in (1, 2, 16, 128, 784, 4096):
        assert (first[lag:] * first[:-lag]).mean().abs() < bound


def test_gradient_goes_through_the_same_elements():
    x = torch.randn(3, 1000, 7, requires_grad=True)
    y = Dropout(0.3)(x)
    y.backward(torch.full_like(y, 2.0))
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 2 / 0.7))


def test_without_dropout_the_layer_is_gelu_of_a_linear_one():
    layer = LinearGELUDropout(1, 3, 0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0], [0.5]]))
        layer.bias.copy_(torch.tensor([0.0, 0.5, -2.0]))
    x = torch.linspace(-9, 9, 10_001)[:, None].requires_grad_()
    results = [layer(x), F.gelu(F.linear(x, layer.weight, layer.bias))]
    torch.testing.assert_close(*results, atol=2e-6, rtol=1e-6)
    gradient = torch.randn(10_001, 3)
    inputs = [x, layer.weight, layer.bias]
    for fused, separate in zip(*(torch.autograd.grad(y, inputs, gradient) for y in results), strict=True):
        torch.testing.assert_close(fused, separate, atol=1e-5, rtol=1e-3)


def test_the_layer_drops_after_gelu_what_dropout_drops():
    layer, x = LinearGELUDropout(6, 300, 0.4), torch.randn(2, 50, 6)
    torch.manual_seed(5)
    fused = layer(x)
    torch.manual_seed(5)
    separate = Dropout(0.4)(F.gelu(F.linear(x, layer.weight, layer.bias)))
    torch.testing.assert_close(fused, separate, atol=4e-6, rtol=1e-5)


def test_a_second_derivative_is_refused():
    """The kernels have none; without the error, a gradient penalty would be silently wrong."""
    for layer in (LinearGELUDropout(6, 5, 0.5), Dropout(0.5)):
        x = torch.randn(10, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.square().sum().backward()


def test_evaluation_drops_nothing():
    layer, x = LinearGELUDropout(6, 5, 0.5).eval(), torch.randn(10, 6)
    assert torch.equal(layer(x), F.gelu(F.linear(x, layer.weight, layer.bias)))
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_seed_decides_and_threads_do_not():
    module, x = LinearGELUDropout(7, 33, 0.5), torch.randn(1000, 7)
    results = []
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        torch.manual_seed(3)
        y = Dropout(0.5)(module(x))
        results.append([y, torch.autograd.grad(y.sum(), module.bias)[0]])
    torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_nan_stays_nan_in_its_row_only():
    x = torch.zeros(3, 6)
    x[1] = float("nan")
    y = LinearGELUDropout(6, 5, 0.0)(x)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def test_checkpointing_repeats_the_mask():
    x = torch.randn(100, 6, requires_grad=True)
    module = LinearGELUDropout(6, 20, 0.5)
    torch.manual_seed(7)
    (plain,) = torch.autograd.grad(module(x).sum(), x)
    torch.manual_seed(7)
    (again,) = torch.autograd.grad(checkpoint(module, x, use_reentrant=False).sum(), x)
    assert torch.equal(plain, again)


def test_other_types_are_pytorchs_own():
    y = Dropout(0.5)(torch.ones(1000, dtype=torch.float64))
    assert y.dtype == torch.float64 and set(y.tolist()) == {0.0, 2.0}


def test_autocast_takes_pytorchs_own_too():
    """The product then has another type than the layer's float32 input."""
    with torch.autocast("cpu", torch.bfloat16):
        y = LinearGELUDropout(6, 20, 0.5)(torch.ones(10, 6))
    assert y.dtype == torch.bfloat16 and (y == 0).any()


def test_a_probability_that_does_not_fit():
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Dropout(1.0)
