"""The Triton kernels against the reference, on the CPU by Triton's interpreter.

The interpreter is chosen when Triton is imported, so the checks run in a process of their own, one for all of them. It
takes about a millisecond for every operation of every program: the problems are tiny.
"""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from scan_oracle import assert_close, conv_results, problem, scan_results

SHAPES = {  # batch, directions, height, width, window, channels, states
    "one token": (1, ("hr",), 1, 1, None, 1, 1),
    "edge windows": (1, ("hr", "vz"), 3, 3, 2, 3, 2),
    "two blocks of channels": (1, ("vr_mirror",), 1, 6, None, 70, 3),
    "more steps than a chunk": (2, ("hz",), 3, 3, None, 2, 8),
    "empty batch": (0, ("hr",), 2, 2, None, 3, 2),
}


def check_scan(shape, softplus):
    inputs, paths = problem(*shape, softplus=softplus)
    expected = scan_results(inputs, paths, "reference", softplus, torch.float64)
    assert_close(scan_results(inputs, paths, "triton", softplus), expected, 2e-6)


def check_half_precision():
    inputs, paths = problem(1, ("hr",), 1, 3, None, 2, 2)
    results = scan_results(inputs, paths, "triton", dtype=torch.bfloat16)
    assert all(x.dtype == torch.bfloat16 for x in results.values())
    assert_close(results, scan_results([x.bfloat16() for x in inputs], paths, "reference", dtype=torch.float64), 2e-2)


def check_conv(shape):
    (own, *_), paths = problem(*shape)
    weights = torch.randn(*own.shape[1::2], 3)
    for x, weight in ((own, weights), (own[:, 0], weights[0])):
        expected = conv_results(x, weight, paths, "reference", torch.float64)
        assert_close(conv_results(x, weight, paths, "triton"), expected, 2e-6)


def check_nan():
    inputs, paths = problem(2, ("hr",), 2, 4, 2, 3, 2)
    inputs[0][1, 0, 5, 2] = float("nan")  # the last token of its window
    assert scan_results(inputs, paths, "triton")["y"].isnan().nonzero().tolist() == [[1, 0, 5, 2]]


CHECKS = {
    **{f"scan, {name}": lambda shape=shape: check_scan(shape, True) for name, shape in SHAPES.items()},
    **{f"convolution, {name}": lambda shape=shape: check_conv(shape) for name, shape in SHAPES.items()},
    "scan, without softplus": lambda: check_scan(SHAPES["edge windows"], False),
    "scan, half precision": check_half_precision,
    "scan, NaN stays in its sequence": check_nan,
}


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    """What went wrong in each check, or an empty string."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("check", CHECKS)
def test_kernels_in_the_interpreter(check, problems):
    assert not problems[check], problems[check]


@pytest.mark.long
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus_without_one(capability):
    triton = pytest.importorskip("triton", reason="triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from merba.scan import triton as scan
    from merba.scan import triton_conv as conv

    half = ("u", "delta", "B", "C", "x", "y", "grad", "grad_u", "grad_delta", "grad_x")
    single = ("A", "D", "bias", "weight", "grad_B", "grad_C", "partial", "kept")
    pointers = {
        **dict.fromkeys(half, "*bf16"), **dict.fromkeys(single, "*fp32"),
        **dict.fromkeys(("paths", "before", "after"), "*i32"),
    }  # fmt: skip
    constants = {"SOFTPLUS": True, "N": 8, "BLOCK_C": 64, "BLOCK_T": 32, "BLOCK": 256}
    kernels = (scan._scan_forward, scan._scan_backward, conv._conv_forward, conv._conv_backward, conv._neighbours)
    for kernel in kernels:
        fixed = {name: value for name, value in constants.items() if name in kernel.arg_names}
        signature = {name: "constexpr" if name in fixed else pointers.get(name, "i32") for name in kernel.arg_names}
        compiled = triton.compile(ASTSource(kernel, signature, fixed), target=GPUTarget("cuda", capability, 32))
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
