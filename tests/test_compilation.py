"""Kernels compute the same where they are compiled, where they are loaded, and where nothing can be kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import merba

RESULTS = """
import hashlib
import torch
from scan_oracle import conv_results, problem, scan_results
from textures import moved, texture
from merba.models.cpu import ststnet
from merba.models.dropout import LinearGELUDropout
from merba.preprocessing import tv_l1
from merba.preprocessing.flow_settings import FlowSettings
from merba.scan import numba_kernels

first = texture((64, 80))
results = {"tv_l1": [torch.from_numpy(tv_l1.tv_l1(first, moved(first, 1.3, -0.7), FlowSettings.of()))]}

torch.manual_seed(0)
parameters = [torch.randn(size, requires_grad=True) for size in ((16, 3, 3, 3), (16,), (16,), (16,))]
pooled, *statistics = ststnet.ConvNormPool.apply(torch.randn(5, 3, 28, 28), *parameters, 1e-5)
results["ststnet"] = [pooled, *statistics, *torch.autograd.grad(pooled, parameters, torch.randn_like(pooled))]

layer = LinearGELUDropout(6, 300, 0.4)
dropped = layer(torch.randn(2, 50, 6))
results["dropout"] = [dropped, *torch.autograd.grad(dropped, list(layer.parameters()), torch.randn_like(dropped))]

inputs, paths = problem(5, ("hr", "vr", "hz", "vz"), 9, 9, 4, 24, 8)
results["scan"] = scan_results(inputs, paths, "numba").values()
results["convolution"] = conv_results(inputs[0][:, 0], torch.randn(24, 3), paths, "numba").values()

kernels = tv_l1._iterate, ststnet._backward, numba_kernels.scan_forward
print(*(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
for name, tensors in results.items():
    print(name, hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest())
"""

FLOW = """
import numpy as np
from merba.preprocessing.flow_settings import FlowSettings
from merba.preprocessing.tv_l1 import tv_l1
print(tv_l1(np.eye(32, dtype="uint8"), np.ones((32, 32), "uint8"), FlowSettings.of()).shape)
"""


def printed(program, folder, **environment):
    """The lines that a program prints which imports merba from `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.long
def test_kernels_give_the_same_bits_where_they_are_compiled_and_where_they_are_loaded(tmp_path):
    root = Path(merba.__file__).parents[1]
    compiled, loaded = (printed(RESULTS, root, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert (compiled[0], loaded[0]) == ("0 0 0", "1 1 1")
    assert compiled[1:] == loaded[1:]
    assert len(loaded) == 6


def test_kernels_compute_where_no_cache_can_be_written(tmp_path):
    """A file stands where each folder of a cache would be made, which keeps out the superuser too."""
    package = tmp_path / "merba"
    shutil.copytree(Path(merba.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module in package.rglob("*.py"):
        (module.parent / "__pycache__").touch()
    absent = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(package / "__pycache__"))
    assert printed(FLOW, tmp_path, **absent) == ["(2, 32, 32)"]
