"""The Triton kernels against the reference, on the CPU by Triton's interpreter.

The interpreter is chosen when Triton is imported, so all checks run together in a separate process. It takes about a
millisecond for every operation of every program, so the problems are tiny.
"""

import json
import os
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path

import pytest
import torch
from scan_oracle import (
    NAMES,
    assert_close,
    assert_half_parameters_are_not_rounded_further,
    conv_results,
    one_and_eight_half_units,
    problem,
    scan_results,
)

MERBA = ("hr", "vr", "hz", "vz")
SHAPES = {  # batch, directions, height, width, window, channels, states
    "one token": (1, ("hr",), 1, 1, None, 1, 1),
    "edge windows": (1, ("hr", "vz"), 3, 3, 2, 3, 2),
    "two blocks of channels": (1, ("vr_mirror",), 1, 7, None, 70, 3),
    "more steps than a chunk": (2, ("hz",), 3, 3, None, 2, 8),
    "MERba's window": (1, ("vz",), 7, 7, 7, 2, 8),
    "196 tokens": (1, ("hr",), 14, 14, None, 2, 1),
    "empty batch": (0, ("hr",), 2, 2, None, 3, 2),
}
CONV_SHAPES = SHAPES | {"blocks of tokens and of paths": (1, MERBA, 9, 9, 5, 2, 1)}
HALF = ("u", "delta", "B", "C", "x", "y", "grad", "grad_u", "grad_delta", "grad_x")
SINGLE = ("A", "D", "bias", "weight", "grad_B", "grad_C", "partial", "kept")
POINTERS = {  # the kernels' arguments that are tensors, and their types under autocast
    **dict.fromkeys(HALF, "*bf16"), **dict.fromkeys(SINGLE, "*fp32"), **dict.fromkeys(("paths", "before", "after"), "*i32")
}  # fmt: skip


def check_scan(shape, softplus):
    inputs, paths = problem(*shape, softplus=softplus)
    expected = scan_results(inputs, paths, "reference", softplus, torch.float64)
    assert_close(scan_results(inputs, paths, "triton", softplus), expected, 2e-6)


def check_groups():
    """A program that processes several sequences, as on a GPU if a batch has more of them than there are programs."""
    from merba.scan import triton

    triton.GROUPS = 3
    check_scan((2, ("hr",), 3, 4, 2, 2, 2), True)
    check_nan()
    triton.GROUPS = 512


def check_half_precision(kind):
    """Inputs as autocast mixes them; results are right to the last digit of their type."""
    inputs, paths = problem(1, ("hr",), 1, 3, None, 2, 2)
    mixed = [x.to(kind) if i in (0, 1, 3, 4) else x for i, x in enumerate(inputs)]
    results = scan_results(mixed, paths, "triton", dtype=None)
    exact = scan_results([x.double() for x in mixed], paths, "reference", dtype=None)
    for name, given in zip(("y", *NAMES), (mixed[0], *mixed), strict=True):
        assert results[name].dtype == given.dtype, name
        assert_close({name: results[name]}, {name: exact[name]}, max(torch.finfo(given.dtype).eps, 2e-6))
    assert one_and_eight_half_units("triton", kind)
    assert_half_parameters_are_not_rounded_further("triton", kind)


def check_extreme_steps(size):
    (u, delta, *rest), paths = problem(1, ("hr",), 1, 5, None, 3, 2)
    for inputs, softplus in (
        ((u, delta.abs() * size, *rest[:4], torch.zeros_like(rest[4])), False),
        ((u, delta * size, *rest), True),
    ):
        expected = scan_results(inputs, paths, "reference", softplus, torch.float64)
        assert_close(scan_results(inputs, paths, "triton", softplus), expected, 1e-5)


def check_strided():
    inputs, paths = problem(1, ("hr", "vz"), 2, 3, 2, 3, 2)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    weights = torch.randn(2, 3, 3)
    runs = [(scan_results(x, paths, "triton"), conv_results(x[0], weights, paths, "triton")) for x in (inputs, strided)]
    for dense, other in zip(*runs, strict=True):
        assert all(torch.equal(other[name], dense[name]) for name in dense)


def check_conv(shape):
    (own, *_), paths = problem(*shape)
    weights = torch.randn(*own.shape[1::2], 3)
    for x, weight in ((own, weights), (own[:, 0], weights[0])):
        expected = conv_results(x, weight, paths, "reference", torch.float64)
        assert_close(conv_results(x, weight, paths, "triton"), expected, 2e-6)


def check_nan():
    inputs, paths = problem(2, ("hr",), 2, 4, 2, 3, 2)
    clean = scan_results(inputs, paths, "triton")
    inputs[0][1, 0, 5, 2] = float("nan")  # the last token of its window
    assert scan_results(inputs, paths, "triton")["y"].isnan().nonzero().tolist() == [[1, 0, 5, 2]]
    inputs[3][0, 0, 0, 1] = float("nan")  # B of the first token of a window, for all channels
    broken = scan_results(inputs, paths, "triton")
    assert broken["y"][0, 0, [0, 1, 4, 5]].isnan().all()
    for name in ("y", "u", "delta", "B", "C"):
        for b, others in ((0, [2, 3, 6, 7]), (1, [2, 3, 6, 7])):
            assert torch.equal(broken[name][b, 0, others], clean[name][b, 0, others]), name


def check_neighbours():
    """The neighbours are looked up once for the same paths, and again when the paths change."""
    from merba.scan import triton_conv

    (own, *_), paths = problem(1, ("hr", "vz"), 2, 3, None, 2, 1)
    weights, launches, kernel = torch.randn(2, 2, 3), [], triton_conv._neighbours

    class Counted:
        def __getitem__(self, grid):
            launches.append(grid)
            return kernel[grid]

    triton_conv._neighbours = Counted()
    for _ in range(3):
        conv_results(own, weights, paths, "triton")
    assert len(launches) == 1
    paths[1] = paths[1].flip(-1)
    expected = conv_results(own, weights, paths, "reference", torch.float64)
    assert_close(conv_results(own, weights, paths, "triton"), expected, 2e-6)
    assert len(launches) == 2
    triton_conv._neighbours = kernel


def check_operators():
    inputs, paths = problem(1, ("hr",), 1, 2, None, 1, 1)
    inputs = [x.requires_grad_() for x in inputs]
    torch.library.opcheck(torch.ops.merba.window_scan_triton.default, (*inputs, paths, True))
    x, weight = torch.randn(1, 1, 2, 1, requires_grad=True), torch.randn(1, 1, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.merba.window_conv_triton.default, (x, weight, paths))


CHECKS = {
    **{f"scan, {name}": partial(check_scan, shape, True) for name, shape in SHAPES.items()},
    **{f"convolution, {name}": partial(check_conv, shape) for name, shape in CONV_SHAPES.items()},
    "scan, without softplus": partial(check_scan, SHAPES["edge windows"], False),
    "scan, several sequences a program": check_groups,
    "scan, bfloat16": partial(check_half_precision, torch.bfloat16),
    "scan, float16": partial(check_half_precision, torch.float16),
    "scan, tiny steps": partial(check_extreme_steps, 1e-6),
    "scan, huge steps": partial(check_extreme_steps, 1e4),
    "scan, NaN stays in its sequence": check_nan,
    "non-contiguous inputs": check_strided,
    "convolution, neighbours of a path": check_neighbours,
    "PyTorch's own check of operators": check_operators,
}


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    """What went wrong in each check, or an empty string."""
    pytest.importorskip("triton", reason="triton is not installed")
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{tests}:{tests.parent}"}
    command = [sys.executable, __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("check", CHECKS)
def test_kernels_in_the_interpreter(check, problems):
    assert not problems[check], problems[check]


def test_no_size_but_the_channels_makes_another_kernel():
    pytest.importorskip("triton", reason="triton is not installed")
    from merba.scan import triton as scan
    from merba.scan import triton_conv as conv

    specialised = set()
    for kernel in (scan._scan_forward, scan._scan_backward, conv._conv_forward, conv._conv_backward, conv._neighbours):
        free = {p.name for p in kernel.params if not p.do_not_specialize and not p.is_constexpr}
        specialised |= free - set(POINTERS)
    assert specialised == {"channels"}


@pytest.mark.long
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus_without_one(capability):
    triton = pytest.importorskip("triton", reason="triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from merba.scan import triton as scan
    from merba.scan import triton_conv as conv

    constants = {"SOFTPLUS": True, "N": 8, "BLOCK_C": 64, "BLOCK_T": 32, "BLOCK": 256}
    kernels = {  # and their warps, as they are launched
        scan._scan_forward: 1, scan._scan_backward: 1, conv._conv_forward: 4, conv._conv_backward: 8, conv._neighbours: 4
    }  # fmt: skip
    for kernel, warps in kernels.items():
        fixed = {name: value for name, value in constants.items() if name in kernel.arg_names}
        signature = {name: "constexpr" if name in fixed else POINTERS.get(name, "i32") for name in kernel.arg_names}
        options = {"num_warps": warps}
        compiled = triton.compile(ASTSource(kernel, signature, fixed), GPUTarget("cuda", capability, 32), options)
        assert "cubin" in compiled.asm


if __name__ == "__main__":
    found = {}
    for check, run in CHECKS.items():
        try:
            run()
            found[check] = ""
        except Exception:
            found[check] = traceback.format_exc()
    print(json.dumps(found))
