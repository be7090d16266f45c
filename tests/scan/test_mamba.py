"""The layout that the mamba_ssm backend passes on, with mamba-ssm's own reference instead of its CUDA kernel."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from scan_oracle import (
    NAMES,
    assert_close,
    assert_half_parameters_are_not_rounded_further,
    one_and_eight_half_units,
    problem,
    scan_results,
)

from merba.scan import usable

INTERFACE = "mamba_ssm.ops.selective_scan_interface"


def load_interface(monkeypatch) -> ModuleType:
    """mamba-ssm's own file of that name; modules that it imports and the CPU can't have are replaced by empty ones."""
    pytest.importorskip("einops", reason="einops, which mamba-ssm needs, is not installed")
    package = importlib.util.find_spec("mamba_ssm")
    if package is None:
        pytest.skip("mamba-ssm is not installed")
    nothing = dict.fromkeys(("custom_fwd", "custom_bwd", "_layer_norm_fwd"), lambda function=None, **_: function)
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.utils", "mamba_ssm.utils.torch", "mamba_ssm.ops.triton",
                 "mamba_ssm.ops.triton.layer_norm", "selective_scan_cuda"):  # fmt: skip
        stub = ModuleType(name)
        stub.__dict__.update(nothing)
        monkeypatch.setitem(sys.modules, name, stub)
    file = Path(package.submodule_search_locations[0], "ops", "selective_scan_interface.py")
    spec = importlib.util.spec_from_file_location(INTERFACE, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, INTERFACE, module)
    return module


class Kernel(torch.autograd.Function):
    """mamba-ssm's reference as an autograd function, as its kernel is."""

    reference = None

    @staticmethod
    def forward(ctx, softplus, *tensors):
        ctx.softplus = softplus
        ctx.save_for_backward(*tensors)
        return Kernel.call(softplus, *tensors)

    @staticmethod
    def call(softplus, *tensors):
        *arguments, bias = tensors
        return Kernel.reference(*arguments, delta_bias=bias, delta_softplus=softplus)

    @staticmethod
    def backward(ctx, grad):
        def gradients():
            with torch.enable_grad():
                leaves = [x.detach().requires_grad_() for x in ctx.saved_tensors]
                return torch.autograd.grad(Kernel.call(ctx.softplus, *leaves), leaves, grad)

        with ThreadPoolExecutor(1) as fresh:  # inside an operator PyTorch records no gradients; in another thread it does
            return None, *fresh.submit(gradients).result()


@pytest.fixture
def on_cpu(monkeypatch):
    """The backend, allowed on the CPU and calling the reference."""
    interface = load_interface(monkeypatch)
    Kernel.reference = interface.selective_scan_ref

    def selective_scan_fn(*arguments, delta_bias, delta_softplus):
        u, delta, A, B, C, D = arguments
        assert u.numel() > 0, "CUDA starts no kernel for nothing"
        assert u.dtype == delta.dtype == B.dtype == C.dtype, "what selective_scan_cuda.fwd checks"
        assert A.dtype == D.dtype == delta_bias.dtype == torch.float32
        assert all(x.is_contiguous() for x in (*arguments, delta_bias)), "else the kernel's wrapper copies"
        return Kernel.apply(delta_softplus, *arguments, delta_bias)

    monkeypatch.setattr(interface, "selective_scan_fn", selective_scan_fn)
    monkeypatch.delitem(sys.modules, "merba.scan.mamba_ssm", raising=False)
    monkeypatch.setitem(sys.modules["merba.scan"]._DEVICES, "mamba_ssm", ("cpu",))
    yield
    sys.modules.pop("merba.scan.mamba_ssm", None)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize(
    "shape",
    [(2, ("hr",), 1, 5, None, 3, 2), (2, ("hr", "vr", "hz", "vz"), 4, 5, 3, 6, 8), (1, ("vz",), 14, 14, None, 3, 8)],
    ids=["plain", "windows", "196 tokens"],
)
def test_scan_and_its_gradients(on_cpu, shape, softplus):
    inputs, paths = problem(*shape, softplus=softplus)
    expected = scan_results(inputs, paths, "reference", softplus, torch.float64)
    assert_close(scan_results(inputs, paths, "mamba_ssm", softplus), expected, 5e-6)


def test_half_precision_keeps_its_type(on_cpu):
    inputs, paths = problem(1, ("hr", "vz"), 3, 3, 2, 4, 2)
    results = scan_results(inputs, paths, "mamba_ssm", dtype=torch.bfloat16)
    assert all(x.dtype == torch.bfloat16 for x in results.values())
    expected = scan_results([x.bfloat16() for x in inputs], paths, "reference", dtype=torch.float64)
    assert_close({"y": results["y"]}, {"y": expected["y"]}, 1e-2)


def test_half_types_as_autocast_mixes_them(on_cpu):
    inputs, paths = problem(1, ("hr", "vz"), 3, 3, 2, 4, 2)
    mixed = [x.half() if i in (0, 1, 3, 4) else x for i, x in enumerate(inputs)]
    results = scan_results(mixed, paths, "mamba_ssm", dtype=None)
    assert [results[name].dtype for name in NAMES] == [x.dtype for x in mixed]
    exact = scan_results([x.double() for x in mixed], paths, "reference", dtype=None)
    assert_close(results, exact, 2e-3)
    assert one_and_eight_half_units("mamba_ssm", torch.float16)
    assert_half_parameters_are_not_rounded_further("mamba_ssm", torch.float16)
    mixed[1] = inputs[1]  # only delta is float32
    exact = scan_results([x.double() for x in mixed], paths, "reference", dtype=None)
    assert_close({"delta": scan_results(mixed, paths, "mamba_ssm", dtype=None)["delta"]}, {"delta": exact["delta"]}, 2e-6)


@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_tiny_and_huge_steps(on_cpu, size):
    (u, delta, *rest), paths = problem(1, ("hr",), 1, 5, None, 3, 2)
    for inputs, softplus in (
        ((u, delta.abs() * size, *rest[:4], torch.zeros_like(rest[4])), False),
        ((u, delta * size, *rest), True),
    ):
        expected = scan_results(inputs, paths, "reference", softplus, torch.float64)
        assert_close(scan_results(inputs, paths, "mamba_ssm", softplus), expected, 1e-5)


def test_non_contiguous_inputs(on_cpu):
    inputs, paths = problem(2, ("hr", "vz"), 3, 3, 2, 4, 2)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    dense = scan_results(inputs, paths, "mamba_ssm")
    assert all(torch.equal(value, dense[name]) for name, value in scan_results(strided, paths, "mamba_ssm").items())


def test_nan_stays_in_its_sequence_and_an_empty_batch_is_empty(on_cpu):
    inputs, paths = problem(2, ("hr",), 2, 4, 2, 3, 2)
    inputs[0][1, 0, 5, 2] = float("nan")  # the last token of its window
    assert scan_results(inputs, paths, "mamba_ssm")["y"].isnan().nonzero().tolist() == [[1, 0, 5, 2]]
    results = scan_results([x[:0] if x.dim() == 4 else x for x in inputs], paths, "mamba_ssm")
    assert results["y"].shape == (0, 1, 8, 3) and not results["A"].any()


def test_doctor_says_how_to_get_the_kernel(monkeypatch):
    specs = {"mamba_ssm": SimpleNamespace(), "selective_scan_cuda": None}
    monkeypatch.setattr(usable, "find_spec", specs.get)
    monkeypatch.setattr(usable, "version", lambda _: "2.3")
    usable_, reason = usable.backends()["mamba_ssm"]
    assert not usable_
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE" in reason


def test_doctor_says_what_is_wrong_with_a_kernel_for_another_pytorch(monkeypatch):
    monkeypatch.setattr(usable, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(usable, "version", lambda _: "2.3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    interface = ModuleType(INTERFACE)  # as after an ImportError: undefined symbol
    for name in ("mamba_ssm", "mamba_ssm.ops", INTERFACE):
        monkeypatch.setitem(sys.modules, name, interface)
    monkeypatch.delitem(sys.modules, "merba.scan.mamba_ssm", raising=False)
    usable_, reason = usable.backends()["mamba_ssm"]
    assert not usable_
    assert "can't be imported: ImportError" in reason and "for this PyTorch" in reason
