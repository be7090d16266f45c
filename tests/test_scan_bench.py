"""The GPU benchmark's own code, on the CPU: it has to run at the first try where somebody rents a GPU for it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import gpu

    return gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    result = subprocess.run([sys.executable, BENCH / "gpu.py"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "no CUDA device" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_checks_pass_and_see_repeated_results(gpu, kind):
    errors = gpu.check_scan("numba", 5, 6, 2, kind, "cpu", window=3)
    assert 0 < errors["scan"] < gpu.TOLERANCES[kind]
    assert errors["scan repeats"] and errors["conv repeats"]


def test_checks_fail_on_a_wrong_scan(gpu, monkeypatch):
    from merba.scan import numba

    right = numba.scan
    monkeypatch.setattr(numba, "scan", lambda *arguments: right(*arguments) * 1.01)
    with pytest.raises(SystemExit, match="numba scan 5×5×6 fp32: relative error 1.0e-02"):
        gpu.check_scan("numba", 5, 6, 2, "fp32", "cpu")


def test_scan_and_model_parts_run(gpu):
    assert set(gpu.time_scan("numba", 4, 6, 2, "fp32", "cpu")) == {"forward_ms", "backward_ms"}
    assert gpu.check_model("numba", "cpu") < 1e-3


def test_the_mixer_around_a_gathered_scan_is_the_same_mixer(gpu):
    from merba.scan import selective_scan

    def selective_scan_fn(u, delta, A, B, C, D, delta_bias, delta_softplus):
        u, delta, B, C = (x.mT for x in (u, delta, B, C))
        return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus).mT

    assert len(gpu.time_mixer(14, 8, 2, "cpu", selective_scan_fn)) == 2


def test_training_part_runs(gpu):
    rate, source = gpu.peak_rate("cpu")
    row = gpu.time_training("merba_nano", 2, "cpu", compiled=False, rate=rate)
    assert source == "a matrix product"
    assert row["samples_per_s"] > 0
    assert row["flops_utilisation"] > 0
