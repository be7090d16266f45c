"""An independent slow scan for the tests: float64 NumPy, one token after the other, nothing vectorised over steps."""

import numpy as np
import torch
from torch import Tensor

from merba.scan import selective_scan, window_conv, window_paths, window_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def softplus(x: np.ndarray) -> np.ndarray:
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def slow_scan(u, delta, A, B, C, D, delta_bias, paths, delta_softplus) -> np.ndarray:
    """(batch, K, tokens, channels) from arrays as window_scan takes them, A (K, channels, n)."""
    y = np.zeros(u.shape)
    batch, directions = u.shape[:2]
    for b in range(batch):
        for k in range(directions):
            dt = delta[b, k] + delta_bias[k]
            dt = softplus(dt) if delta_softplus else dt
            for path in paths[k]:
                h = np.zeros(A.shape[1:])
                for token in path[path >= 0]:
                    h = np.exp(dt[token][:, None] * A[k]) * h + np.outer(dt[token] * u[b, k, token], B[b, k, token])
                    y[b, k, token] = h @ C[b, k, token] + D[k] * u[b, k, token]
    return y


def problem(batch, directions, height, width, window, channels, n, seed=0, softplus=True):
    """Random inputs u … delta_bias (float32, one set of parameters per direction) and paths for window_scan."""
    random = torch.Generator().manual_seed(seed)
    paths = torch.from_numpy(window_paths(directions, height, width, window))
    K, tokens = len(directions), height * width

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    u, delta = normal(batch, K, tokens, channels), normal(batch, K, tokens, channels)
    A = -4 * torch.rand(K, channels, n, generator=random)
    B, C = normal(batch, K, tokens, n), normal(batch, K, tokens, n)
    D, bias = normal(K, channels), normal(K, channels)
    inputs = (u, delta, A, B, C, D, bias) if softplus else (u, delta.abs(), A, B, C, D, bias.abs())
    return inputs, paths


def scan_results(inputs, paths, backend: str, softplus=True, dtype: torch.dtype | None = torch.float32) -> dict[str, Tensor]:
    """Output and gradients of all inputs, for one fixed gradient of the output; `dtype` None leaves each its type."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    y = window_scan(*inputs[:6], paths=paths, delta_bias=inputs[6], delta_softplus=softplus, backend=backend)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    gradient = (8 * gradient).round() / 8  # the same number in every type
    return {"y": y.detach(), **dict(zip(NAMES, torch.autograd.grad(y, inputs, gradient.to(y.dtype)), strict=True))}


def one_and_eight_half_units(backend: str, dtype: torch.dtype) -> bool:
    """Whether a state of 1 grows by eight halves of the type's last digit: in the type's own arithmetic it stays 1."""
    eps, ones = torch.finfo(dtype).eps, torch.ones(1, 9, 1, dtype=dtype)
    u = ones * (eps / 2)
    u[:, 0] = 1
    y = selective_scan(u, ones, torch.zeros(1, 1), ones, ones, backend=backend)
    return y.dtype == dtype and y[0, -1, 0].item() == 1 + 4 * eps


def assert_half_parameters_are_not_rounded_further(backend: str, dtype: torch.dtype) -> None:
    """With A, D and the bias in the type and the rest in float32, results are not rounded to the type."""
    inputs, paths = problem(1, ("hr",), 1, 3, None, 2, 2)
    mixed = [x.to(dtype) if i in (2, 5, 6) else x for i, x in enumerate(inputs)]
    exact = scan_results([x.double() for x in mixed], paths, "reference", dtype=None)
    results = scan_results(mixed, paths, backend, dtype=None)
    assert_close({"y": results["y"]}, {"y": exact["y"]}, 2e-6)


def conv_results(x, weight, paths, backend: str, dtype=torch.float32) -> dict[str, Tensor]:
    """Output and gradients of the window convolution."""
    x, weight = (t.detach().to(dtype).requires_grad_() for t in (x, weight))
    y = window_conv(x, weight, paths=paths, backend=backend)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), gradient)
    return {"y": y.detach(), "x": grad_x, "weight": grad_weight}


def assert_close(results: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Every tensor's largest error, as a part of the expected tensor's largest value, is at most the tolerance."""
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        if value.numel():
            error = (results[name].double() - value.double()).abs().max() / value.abs().max().clamp(min=1e-30)
            assert error <= tolerance, f"{name}: relative error {error:.1e}"
