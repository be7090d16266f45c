"""The one-pass dropout of the CPU against PyTorch's definition."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from merba.models.dropout import Dropout, GELUDropout


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


def test_gelu_without_dropout_is_pytorchs():
    x = torch.linspace(-9, 9, 10_001, requires_grad=True)
    y = GELUDropout(0.0)(x)
    expected = F.gelu(x)
    torch.testing.assert_close(y, expected, atol=2e-6, rtol=1e-6)
    grads = [torch.autograd.grad(z.sum(), x)[0] for z in (y, expected)]
    torch.testing.assert_close(*grads, atol=5e-6, rtol=1e-6)


def test_gelu_dropout_is_gelu_then_dropout():
    x = torch.randn(100, 300)
    torch.manual_seed(5)
    fused = GELUDropout(0.4)(x)
    torch.manual_seed(5)
    separate = Dropout(0.4)(F.gelu(x))
    torch.testing.assert_close(fused, separate, atol=4e-6, rtol=1e-5)


@pytest.mark.parametrize("module", [Dropout(0.5), GELUDropout(0.5)])
def test_evaluation_drops_nothing(module):
    x = torch.randn(10, 10)
    expected = F.gelu(x) if isinstance(module, GELUDropout) else x
    assert torch.equal(module.eval()(x), expected)


def test_seed_decides_and_threads_do_not():
    x = torch.ones(100_000)
    results = []
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        torch.manual_seed(3)
        results.append(Dropout(0.5)(x))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_nan_stays_nan_where_kept():
    y = GELUDropout(0.0)(torch.tensor([float("nan"), 1.0]))
    assert y[0].isnan() and y[1].isfinite()


def test_checkpointing_repeats_the_mask():
    x = torch.randn(1000, requires_grad=True)
    module = GELUDropout(0.5)
    torch.manual_seed(7)
    (plain,) = torch.autograd.grad(module(x).sum(), x)
    torch.manual_seed(7)
    (again,) = torch.autograd.grad(checkpoint(module, x, use_reentrant=False).sum(), x)
    assert torch.equal(plain, again)


def test_other_types_are_pytorchs_own():
    y = Dropout(0.5)(torch.ones(1000, dtype=torch.float64))
    assert y.dtype == torch.float64 and set(y.tolist()) == {0.0, 2.0}


def test_a_probability_that_does_not_fit():
    with pytest.raises(ValueError, match="up to, but not including, 1"):
        Dropout(1.0)
