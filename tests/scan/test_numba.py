"""The Numba backend against the reference in float64."""

import os
import subprocess
import sys
from itertools import product

import numba
import numpy as np
import pytest
import torch
from scan_oracle import assert_close, conv_results, problem, scan_results

from merba.scan import numba_lanes as lanes
from merba.scan import selective_scan, window_scan

MERBA = ("hr", "vr", "hz", "vz")
SHAPES = [  # batch, directions, height, width, window, channels, states
    (1, ("hr",), 1, 1, None, 1, 1),
    (2, ("hr",), 1, 2, None, 3, 5),
    (3, ("vz_reverse",), 1, 49, None, 17, 8),
    (2, MERBA, 14, 14, 7, 16, 8),
    (2, MERBA, 14, 14, None, 33, 16),
    (2, ("hr", "vr_mirror"), 9, 5, 4, 130, 3),
    (70, ("vz",), 3, 3, 2, 8, 4),
]


def compare(inputs, paths, softplus, tolerance=2e-6):
    expected = scan_results(inputs, paths, "reference", softplus, torch.float64)
    assert_close(scan_results(inputs, paths, "numba", softplus), expected, tolerance)


@pytest.mark.parametrize(("shape", "softplus"), list(product(SHAPES, [True, False])))
def test_scan_and_its_gradients(shape, softplus):
    compare(*problem(*shape, softplus=softplus), softplus)


@pytest.mark.parametrize("length", [*range(1, 10), 48, 49, 50, 97, 196])
def test_every_length(length):
    compare(*problem(2, ("hz",), 1, length, None, 5, 3, seed=length), True)


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_its_gradients(shape):
    (own, *_), paths = problem(*shape)
    weights = torch.randn(*own.shape[1::2], 3, generator=torch.Generator().manual_seed(3))
    for x, weight in ((own, weights), (own[:, 0], weights[0])):
        expected = conv_results(x, weight, paths, "reference", torch.float64)
        assert_close(conv_results(x, weight, paths, "numba"), expected, 2e-6)


def test_non_contiguous_inputs():
    inputs, paths = problem(2, ("hr", "vz"), 4, 5, 3, 20, 6)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    assert not any(x.is_contiguous() for x in strided)
    dense = scan_results(inputs, paths, "numba")
    assert all(torch.equal(value, dense[name]) for name, value in scan_results(strided, paths, "numba").items())


def test_non_contiguous_gradients():
    inputs, paths = problem(2, ("hr", "vz"), 4, 5, 3, 20, 6)
    leaves = [x.requires_grad_() for x in inputs]
    y = window_scan(*leaves[:6], paths=paths, delta_bias=leaves[6], delta_softplus=True, backend="numba")
    gradient = torch.randn(y.shape)
    dense = torch.autograd.grad(y, leaves, gradient, retain_graph=True)
    strided = torch.autograd.grad(y, leaves, gradient.mT.contiguous().mT)
    assert all(torch.equal(a, b) for a, b in zip(dense, strided, strict=True))


@pytest.mark.parametrize("size", [1e-6, 1e-2, 30.0, 1e4])
def test_tiny_and_huge_steps(size):
    (u, delta, *rest), paths = problem(2, ("hr",), 3, 5, None, 16, 4)
    compare((u, delta.abs() * size, *rest[:4], torch.zeros_like(rest[4])), paths, False, 1e-5)
    compare((u, delta * size, *rest), paths, True, 1e-5)


def test_softplus_is_as_exact_for_the_smallest_steps():
    u, B, C = torch.ones(1, 1, 16), torch.ones(1, 1, 1), torch.ones(1, 1, 1)
    for raw in (-60.0, -25.0, -15.0, -3.0, 0.0, 19.0, 20.5, 80.0):
        y = selective_scan(u, torch.full((1, 1, 16), raw), -torch.ones(16, 1), B, C, delta_softplus=True, backend="numba")
        expected = np.log1p(np.exp(raw)) if raw < 20 else raw
        assert y[0, 0, 0].item() == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize("exp2", [lanes.exp2, lanes.exp2_anywhere], ids=["this processor's", "any processor's"])
def test_exp2_over_its_whole_range(exp2):
    @numba.njit
    def apply(x, y):
        for i in range(0, x.size, lanes.LANES):
            lanes.store(y, i, exp2(lanes.load(x, i)))

    x = np.concatenate([np.linspace(-125, 127.99, 4096), [0, 1, -1, 5], np.zeros(12)]).astype(np.float32)
    y = np.empty_like(x)
    apply(x, y)
    assert np.abs(y / np.exp2(x.astype(np.float64)) - 1).max() < 2e-7
    assert y[4096:4100].tolist() == [1, 2, 0.5, 32]
    x = np.array([-np.inf, -1e30, -500, -151, 128, 129.5, 1e30, np.inf, np.nan, -np.nan, *[0] * 6], np.float32)
    y = np.empty_like(x)
    apply(x, y)
    assert np.array_equal(y, [0, 0, 0, 0, np.inf, np.inf, np.inf, np.inf, np.nan, np.nan, *[1] * 6], equal_nan=True)


def test_infinity_comes_through():
    inputs, paths = problem(1, ("hr",), 1, 6, None, 4, 4)
    u, delta, A, B, C, D, bias = inputs
    u[0, 0, 2, 1] = float("inf")
    expected = scan_results(inputs, paths, "reference")["y"]
    y = scan_results(inputs, paths, "numba")["y"]
    assert torch.isinf(expected).any()
    assert torch.allclose(y, expected, equal_nan=True, atol=1e-5)


def test_results_are_the_same_bits_for_any_number_of_threads():
    inputs, paths = problem(5, MERBA, 9, 9, 4, 24, 8)
    weight = torch.randn(24, 3)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append((scan_results(inputs, paths, "numba"), conv_results(inputs[0][:, 0], weight, paths, "numba")))
    finally:
        torch.set_num_threads(before)
    for scan, conv in results[1:]:
        assert all(torch.equal(scan[name], results[0][0][name]) for name in scan)
        assert all(torch.equal(conv[name], results[0][1][name]) for name in conv)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_computes_too():
    code = """
import os, torch
from merba.scan import selective_scan
torch.set_num_threads(2)
x = torch.ones(4, 3, 2)
def total(): return selective_scan(x, x, -torch.ones(2, 2), x, x, backend="numba").sum().item()
expected = total()
child = os.fork()
if child == 0:
    os._exit(0 if total() == expected else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
