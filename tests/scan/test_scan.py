"""The scan's public functions, and the reference backend against independent answers."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mambapy.pscan import pscan
from scan_oracle import (
    NAMES,
    assert_half_parameters_are_not_rounded_further,
    conv_results,
    one_and_eight_half_units,
    problem,
    scan_results,
    slow_scan,
)
from torch.nn import functional as F

import merba
from merba.scan import _choose, backends, selective_scan, usable, window_conv, window_paths, window_scan
from merba.scan.reference import gather, scatter

MERBA = ("hr", "vr", "hz", "vz")


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def negative(*shape):
    return (-torch.rand(*shape, dtype=torch.float64) - 0.1).requires_grad_()


# ------------------------------------------------------------------------------------------- the reference


def test_a_scalar_recurrence_solved_by_hand():
    # One channel, one state, Δ = 1, A = ln(1/2), B = C = u = 1: h_t = h_{t-1}/2 + 1 = 2 - 2^-(t-1)... and y = h + 3u
    ones = torch.ones(1, 5, 1)
    y = selective_scan(ones, ones, torch.log(torch.tensor([[0.5]])), ones, ones, torch.tensor([3.0]), backend="reference")
    assert torch.allclose(y.flatten(), torch.tensor([2 - 0.5**t + 3 for t in range(5)]))


@pytest.mark.parametrize("softplus", [True, False])
def test_reference_equals_a_loop_in_numpy(softplus):
    inputs, paths = problem(2, ("hr", "vz", "hz_mirror"), 5, 3, 2, 4, 3, softplus=softplus)
    y = scan_results(inputs, paths, "reference", softplus, torch.float64)["y"]
    expected = slow_scan(*(x.double().numpy() for x in inputs), paths.numpy(), softplus)
    assert np.allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_reference_equals_mambapy():
    u, delta, B, C = (torch.randn(2, 13, m, dtype=torch.float64) for m in (6, 6, 4, 4))
    A, D = -torch.rand(6, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    dt = F.softplus(delta)[..., None]
    states = pscan(torch.exp(dt * A), dt * B[:, :, None] * u[..., None])
    expected = (states @ C[..., None]).squeeze(-1) + D * u
    assert torch.allclose(selective_scan(u, delta, A, B, C, D, delta_softplus=True, backend="reference"), expected)


@pytest.mark.parametrize("softplus", [True, False])
def test_reference_gradients_of_the_scan(softplus):
    paths = torch.from_numpy(window_paths(["hr", "vz"], 3, 2, 2))

    def scan(u, delta, A, B, C, D, bias):
        return window_scan(u, delta, A, B, C, D, paths=paths, delta_bias=bias, delta_softplus=softplus, backend="reference")

    tokens = (2, 2, 6)
    inputs = (double(*tokens, 3), double(*tokens, 3), negative(3, 2), double(*tokens, 2), double(*tokens, 2))
    assert torch.autograd.gradcheck(scan, (*inputs, double(2, 3), double(3)))


@pytest.mark.parametrize("shape", [(2, 6, 3), (2, 2, 6, 3)], ids=["shared", "per direction"])
def test_reference_gradients_of_the_convolution(shape):
    paths = torch.from_numpy(window_paths(["hr", "vz"], 3, 2, 2))
    weight = double(2, 3, 3) if len(shape) == 4 else double(3, 3)
    assert torch.autograd.gradcheck(lambda x, w: window_conv(x, w, paths=paths, backend="reference"), (double(*shape), weight))


def test_the_convolution_is_pytorchs_along_the_path():
    x, weight = torch.randn(2, 9, 4), torch.randn(4, 3)
    path = window_paths(["vz"], 3, 3, None)
    y = window_conv(x, weight, paths=torch.from_numpy(path), backend="reference")
    order = torch.from_numpy(path[0, 0]).long()
    expected = F.silu(F.conv1d(x[:, order].mT, weight[:, None], padding=1, groups=4)).mT
    assert torch.allclose(y[:, 0, order], expected, atol=1e-6)


def test_reordering_and_back_is_the_identity():
    paths = torch.from_numpy(window_paths(["hr", "vz", "hz_mirror"], 5, 4, 3))
    x = torch.randn(2, 3, 20, 6)
    assert torch.equal(scatter(gather(x, paths), paths, 20), x)


def test_float64_stays_float64():
    inputs, paths = problem(1, ("hr",), 2, 2, None, 3, 2)
    assert scan_results(inputs, paths, "reference", dtype=torch.float64)["y"].dtype == torch.float64
    results = scan_results(inputs, paths, "numba", dtype=torch.float64)
    expected = scan_results(inputs, paths, "reference", dtype=torch.float64)
    assert all(torch.equal(results[name], expected[name]) for name in expected)


# ------------------------------------------------------------------------------------------- the public functions


def test_selective_scan_is_one_window_in_raster_order():
    inputs, paths = problem(3, ("hr",), 1, 11, None, 5, 4)
    u, delta, A, B, C, D, bias = (x[:, 0] if x.shape[0] == 3 else x[0] for x in inputs)
    y = merba.selective_scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True, backend="reference")
    assert torch.equal(y, scan_results(inputs, paths, "reference")["y"][:, 0])


def test_without_d_and_bias_they_are_zero():
    u, delta, B, C = torch.randn(4, 2, 7, 3).unbind()
    A = -torch.rand(3, 3)
    assert torch.equal(selective_scan(u, delta, A, B, C), selective_scan(u, delta, A, B, C, torch.zeros(3)))


def test_shared_parameters_are_each_directions_and_get_the_summed_gradient():
    (u, delta, A, B, C, D, bias), paths = problem(2, MERBA, 4, 4, 2, 3, 2)
    shared = [x[0].clone().requires_grad_() for x in (A, D, bias)]
    own = [x[:1].expand(4, *x.shape[1:]).clone().requires_grad_() for x in (A, D, bias)]
    for A, D, bias in (shared, own):
        window_scan(u, delta, A, B, C, D, paths=paths, delta_bias=bias, delta_softplus=True).square().sum().backward()
    for one, each in zip(shared, own, strict=True):
        assert torch.allclose(one.grad, each.grad.sum(0), rtol=1e-5, atol=1e-4)


def test_an_edge_window_scans_its_real_tokens_alone():
    (u, delta, A, B, C, D, bias), paths = problem(2, ("hr",), 3, 5, 3, 4, 2)
    y = window_scan(u, delta, A, B, C, D, paths=paths, delta_bias=bias, delta_softplus=True)
    edge = [3, 4, 8, 9, 13, 14]
    u, delta, B, C = (x[:, 0, edge] for x in (u, delta, B, C))
    alone = selective_scan(u, delta, A[0], B, C, D[0], delta_bias=bias[0], delta_softplus=True)
    assert torch.equal(y[:, 0, edge], alone)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_nan_stays_in_its_sequence(backend):
    inputs, paths = problem(2, ("hr", "vz"), 4, 4, 2, 20, 8)
    inputs[0][1, 0, 5, 3] = float("nan")  # u of batch item 1, direction 0, token 5 (window 0), channel 3
    y = scan_results(inputs, paths, backend)["y"]
    broken = torch.zeros(y.shape, dtype=torch.bool)
    broken[1, 0, 5, 3] = True  # token 5 is the window's last
    assert torch.equal(y.isnan(), broken)
    inputs[3][0, 1, 0, 2] = float("nan")  # B of the first token of a window, for all channels
    y = scan_results(inputs, paths, backend)["y"]
    broken[0, 1, [0, 4, 5, 1]] = True
    assert torch.equal(y.isnan(), broken)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_nan_in_a_sequence_leaves_other_sequences_gradients_alone(backend):
    inputs, paths = problem(2, ("hr",), 4, 4, 2, 5, 3)
    clean = scan_results(inputs, paths, backend)
    inputs[1][0, 0, 0, 0] = float("nan")
    broken = scan_results(inputs, paths, backend)
    for name in ("u", "delta", "B", "C"):
        assert torch.equal(broken[name][1], clean[name][1])
        assert torch.equal(broken[name][0, 0, 8:], clean[name][0, 0, 8:])  # the lower windows
    assert broken["A"].isnan().any()


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("type", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_with_float32_between(backend, type):
    inputs, paths = problem(2, ("hr", "vr"), 3, 4, 2, 6, 4)
    halves = [x.to(type) if i in (0, 1, 3, 4) else x for i, x in enumerate(inputs)]
    with torch.autocast("cpu", dtype=type):
        results = scan_results(halves, paths, backend, dtype=None)
        x = halves[0].clone().requires_grad_()
        z = window_conv(x, torch.randn(6, 3), paths=paths, backend=backend)
    exact = scan_results([x.float() for x in halves], paths, backend)
    for name, given in zip(("y", *NAMES), (halves[0], *halves), strict=True):
        assert results[name].dtype == given.dtype, name
        assert torch.equal(results[name], exact[name].to(given.dtype)), name
    assert_half_parameters_are_not_rounded_further(backend, type)
    assert one_and_eight_half_units(backend, type)
    z.sum().backward()
    assert z.dtype == x.grad.dtype == type


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("broken", NAMES)
def test_nan_in_any_input_comes_out(backend, broken):
    inputs, paths = problem(2, ("hr", "vz"), 4, 4, 2, 20, 8)
    inputs[NAMES.index(broken)].flatten()[0] = float("nan")
    expected = scan_results(inputs, paths, "reference", dtype=torch.float64)
    results = scan_results(inputs, paths, backend)
    assert torch.equal(results["y"].isnan(), expected["y"].isnan()) and results["y"].isnan().any()
    assert not any((value.isnan() & ~results[name].isnan()).any() for name, value in expected.items())


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_nan_reaches_a_tokens_neighbours_on_the_path_through_the_convolution(backend):
    (x, *_), paths = problem(2, ("hr", "vz"), 4, 4, 2, 5, 1)
    x[1, 0, 1, 3] = float("nan")  # second of its window's path by hr: 0, 1, 4, 5
    y = conv_results(x, torch.randn(2, 5, 3), paths, backend)["y"]
    assert y.isnan().nonzero().tolist() == [[1, 0, token, 3] for token in (0, 1, 4)]


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_empty_batches_and_sequences(backend):
    inputs, paths = problem(0, ("hr", "vr"), 3, 4, 2, 6, 4)
    results = scan_results(inputs, paths, backend)
    assert results["y"].shape == (0, 2, 12, 6)
    assert torch.equal(results["A"], torch.zeros(2, 6, 4))
    inputs = [torch.ones(shape, requires_grad=True) for shape in ((2, 0, 3), (2, 0, 3), (3, 2), (2, 0, 2), (2, 0, 2))]
    y = selective_scan(*inputs, backend=backend)
    y.sum().backward()
    assert y.shape == (2, 0, 3)
    assert torch.equal(inputs[2].grad, torch.zeros(3, 2))


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_compiled_whole_forward_and_backward(backend, compiler):
    inputs, paths = problem(2, ("hr", "vz"), 4, 4, 2, 16, 4)
    weight = torch.randn(16, 3)

    def block(u, delta, A, B, C, D, bias, weight):
        u = window_conv(u, weight, paths=paths, backend=backend)
        y = window_scan(u, delta, A, B, C, D, paths=paths, delta_bias=bias, delta_softplus=True, backend=backend)
        return (2 * y).tanh()

    def gradients(function):
        leaves = [x.clone().requires_grad_() for x in (*inputs, weight)]
        function(*leaves).sum().backward()
        return [leaf.grad for leaf in leaves]

    compiled = torch.compile(block, fullgraph=True, backend=compiler)
    for eager, graph in zip(gradients(block), gradients(compiled), strict=True):
        assert torch.allclose(eager, graph, rtol=1e-5, atol=1e-5)


def test_operators_pass_pytorchs_own_check():
    inputs, paths = problem(2, ("hr",), 2, 3, 2, 16, 4)
    inputs = [x.requires_grad_() for x in inputs]
    for backend in ("reference", "numba"):
        torch.library.opcheck(getattr(torch.ops.merba, f"window_scan_{backend}").default, (*inputs, paths, True))
        x, weight = torch.randn(2, 1, 6, 16, requires_grad=True), torch.randn(1, 16, 3, requires_grad=True)
        torch.library.opcheck(getattr(torch.ops.merba, f"window_conv_{backend}").default, (x, weight, paths))


def test_checkpointed_gradients_are_the_same():
    (u, *rest), paths = problem(2, ("hr", "vz"), 4, 4, 2, 8, 4)

    def scan(u):
        return window_scan(u, *rest[:5], paths=paths, delta_bias=rest[5], delta_softplus=True)

    plain, kept = u.clone().requires_grad_(), u.clone().requires_grad_()
    scan(plain).square().sum().backward()
    torch.utils.checkpoint.checkpoint(scan, kept, use_reentrant=False).square().sum().backward()
    assert torch.equal(plain.grad, kept.grad)


# ------------------------------------------------------------------------------------------- choice and errors


@pytest.fixture
def sequence():
    return torch.randn(2, 5, 3), torch.randn(2, 5, 3), -torch.rand(3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)


def ran(backend, sequence):
    """The operator that selective_scan calls."""
    with torch.profiler.profile() as profile:
        selective_scan(*sequence, backend=backend)
    return next(event.name for event in profile.events() if "window_scan" in event.name).rpartition("scan_")[2]


def test_argument_before_environment_before_automatic(sequence, monkeypatch):
    monkeypatch.delenv("MERBA_SCAN", raising=False)
    assert ran(None, sequence) == "numba"
    monkeypatch.setenv("MERBA_SCAN", "reference")
    assert ran(None, sequence) == "reference"
    assert ran("numba", sequence) == "numba"


def test_the_default_on_a_gpu_is_triton(monkeypatch):
    monkeypatch.delenv("MERBA_SCAN", raising=False)
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    assert _choose(None, on_gpu) == "triton"
    assert _choose("mamba_ssm", on_gpu) == "mamba_ssm"


def test_unknown_backends_name_the_known_ones(sequence, monkeypatch):
    with pytest.raises(ValueError, match="'cuda'; known: reference, numba, triton, mamba_ssm"):
        selective_scan(*sequence, backend="cuda")
    monkeypatch.setenv("MERBA_SCAN", "fast")
    with pytest.raises(ValueError, match="MERBA_SCAN: unknown scan backend 'fast'"):
        selective_scan(*sequence)


def test_a_backend_for_another_device_says_so(sequence, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="triton computes on cuda or xpu, but the tensors are on cpu"):
        selective_scan(*sequence, backend="triton")


def test_every_backend_says_whether_it_is_usable_and_why():
    found = backends()
    assert list(found) == ["reference", "numba", "triton", "mamba_ssm"]
    assert found["reference"][0] and found["numba"][0]
    assert all(isinstance(usable, bool) and reason for usable, reason in found.values())
    if not torch.cuda.is_available():
        assert not found["triton"][0]


def test_triton_is_usable_by_any_gpu_whatever_the_name_of_its_package(monkeypatch):
    """PyTorch for AMD's and Intel's GPUs brings it under other names."""
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(usable, "version", {"numba": "1", "mamba-ssm": "2"}.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda: "Arc")
    works, reason = backends()["triton"]
    assert works and "on Arc" in reason


@pytest.mark.parametrize(("position", "shape", "fits"), [
    (0, (2, 5), "(batch, length, channels)"), (1, (2, 5, 4), "(2, 5, 3)"), (2, (3,), "(channels, state)"),
    (2, (4, 4), "(3, 4)"), (3, (2, 5, 3), "(2, 5, 4)"), (4, (2, 4, 4), "(2, 5, 4)"),
])  # fmt: skip
def test_shapes_that_do_not_fit(sequence, position, shape, fits):
    arguments = list(sequence)
    arguments[position] = torch.zeros(shape)
    with pytest.raises(ValueError) as problem:
        selective_scan(*arguments)
    assert fits in str(problem.value)


def test_parameters_and_paths_that_do_not_fit(sequence):
    with pytest.raises(ValueError, match=r"D has shape \(4,\).*\(3,\) or \(1, 3\)"):
        selective_scan(*sequence, torch.zeros(4))
    with pytest.raises(ValueError, match=r"delta_bias has shape \(2, 2\)"):
        selective_scan(*sequence, delta_bias=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="floating-point"):
        selective_scan(sequence[0], torch.zeros(2, 5, 3, dtype=torch.int64), *sequence[2:])
    inputs, paths = problem(1, ("hr",), 2, 2, None, 3, 2)
    for wrong in (paths.long(), paths[0], paths[..., :3]):
        with pytest.raises(ValueError, match="paths"):
            scan_results(inputs, wrong, "numba")
    twice, early = torch.tensor([[[0, 0, 2, 3]]]), torch.tensor([[[0, -1, 1, 2, 3]]])
    for wrong, backend in product((paths + 1, twice.int(), early.int()), ("numba", "reference")):
        with pytest.raises(ValueError, match="tokens 0 to 3 once each"):
            scan_results(inputs, wrong, backend)
    for wrong in (torch.zeros(()), torch.zeros(3), torch.zeros(1, 1, 3, 2)):
        with pytest.raises(ValueError, match="A has shape"):
            scan_results((*inputs[:2], wrong, *inputs[3:]), paths, "numba")
    with pytest.raises(ValueError, match="weight"):
        window_conv(torch.zeros(1, 4, 3), torch.zeros(3, 5), paths=paths)
    with pytest.raises(ValueError, match="x has shape"):
        window_conv(torch.zeros(1, 2, 4, 3), torch.zeros(3, 3), paths=paths)
