"""The GPU benchmark's own code, on the CPU: it has to run at the first try where somebody rents a GPU for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import gpu

    return gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    """In a process that knows of this package by the script alone, from a folder of its own."""
    elsewhere = [path for path in sys.path if path and Path(path) != BENCH.parent and not Path(path, "merba").exists()]
    program = f"""
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [{str(BENCH)!r}, *{elsewhere!r}]
runpy.run_path({str(BENCH / "gpu.py")!r}, run_name="__main__")
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no CUDA device" in result.stderr
    assert result.stdout == ""


def test_it_needs_torch_and_numpy_alone():
    """Nothing else that the package depends on, so that it runs on a rented machine's own PyTorch."""
    program = """
import sys
for name in "numba llvmlite pandas pyarrow sklearn safetensors jsonschema fastjsonschema yaml psutil".split():
    sys.modules[name] = None
import gpu, torch
for name, settings in gpu.CHECKED_MODELS.items():
    model = gpu.create_model(name, 3, **settings)
    model(torch.zeros(2, *model.input_shape)).sum().backward()
"""
    environment = {**os.environ, "PYTHONPATH": f"{BENCH}{os.pathsep}{BENCH.parent}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_checks_pass_and_see_repeated_results(gpu, kind):
    errors = gpu.check_scan("numba", 5, 6, 2, kind, "cpu", window=3)
    for name in ("scan", "scan without softplus", "conv", "conv of each direction's own"):
        assert 0 < errors[name] < gpu.TOLERANCES[kind]
        assert errors[f"{name} repeats"]


def test_checks_fail_on_a_wrong_scan(gpu, monkeypatch):
    from merba.scan import numba

    right = numba.scan
    monkeypatch.setattr(numba, "scan", lambda *arguments: right(*arguments) * 1.01)
    with pytest.raises(gpu.Mismatch, match="numba, scan, 5×5×6, fp32: relative error 1.0e-02"):
        gpu.check_scan("numba", 5, 6, 2, "fp32", "cpu", window=3)
    with pytest.raises(gpu.Mismatch, match="merba_nano, eager"):
        gpu.check_model("merba_nano", "numba", "cpu", compiler="eager")


def test_checks_of_nan_and_of_an_empty_batch(gpu, monkeypatch):
    from merba.scan import numba

    assert gpu.check_corners("numba", "cpu") == {"NaN": True, "empty": True}
    right = numba.scan
    for wrong in (lambda y: y.nan_to_num(0), lambda y: y + y.sum() * 0):  # NaN lost; NaN everywhere
        monkeypatch.setattr(numba, "scan", lambda *arguments, wrong=wrong: wrong(right(*arguments)))
        with pytest.raises(gpu.Mismatch, match="NaN in one sequence"):
            gpu.check_corners("numba", "cpu")


def test_what_fails_is_named_and_the_rest_goes_on(gpu, capsys):
    def fails():
        raise gpu.Mismatch("too large")

    figures, failed = gpu.measure({"first": fails, "second": lambda: {"ms": 1.23456, "repeats": True}})
    assert failed == ["first"]
    assert figures == {"first": {"failed": "Mismatch: too large"}, "second": {"ms": 1.23456, "repeats": True}}
    assert "ms 1.235, repeats True" in capsys.readouterr().out


def test_a_part_alone_keeps_the_others_figures(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    now = {"machine": gpu.machine("triton"), "goals": 2}
    assert gpu.kept(now) == {}
    (tmp_path / "gpu.json").write_text(json.dumps({**now, "goals": 1, "scan": {"ms": 3}}))
    assert gpu.kept(now) | now == {**now, "scan": {"ms": 3}}
    (tmp_path / "gpu.json").write_text(json.dumps({"machine": now["machine"] | {"gpu": "another"}, "scan": {"ms": 3}}))
    assert gpu.kept(now) == {}


def test_scan_and_model_parts_run(gpu):
    assert set(gpu.time_scan("numba", 4, 6, 2, "fp32", "cpu")) == {"forward_ms", "backward_ms"}
    assert set(gpu.check_model("merba_nano", "numba", "cpu", compiler="eager")) == {"eager", "compiled"}


def test_every_part_has_its_calls(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "gpu_backends", lambda: ["triton"])
    calls = {name: list(part("cpu")) for name, part in gpu.PARTS.items()}
    assert len(calls["check"]) == 5 * 3 + 1 + 2
    assert calls["scan"][:2] == ["stage 2, fp32, triton", "stage 2, bf16, triton"]
    assert calls["mixer"] == ["stage 2", "stage 3", "stage 4"]
    assert calls["training"][1:] == [f"{name}, {form}" for name in gpu.MODELS for form in ("eager", "compiled")]


def test_the_mixer_around_a_gathered_scan_is_the_same_mixer(gpu):
    from merba.scan import selective_scan

    def selective_scan_fn(u, delta, A, B, C, D, delta_bias, delta_softplus):
        u, delta, B, C = (x.mT for x in (u, delta, B, C))
        return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus).mT

    assert gpu.time_mixer(14, 8, 2, "cpu", selective_scan_fn)["times_as_fast"] > 0


def test_training_part_runs(gpu):
    rate, source = gpu.peak_rate("cpu")
    row = gpu.time_training("merba_nano", 2, "cpu", compiled=False, rate=rate)
    assert source == "a matrix product"
    assert row["samples_per_s"] > 0
    assert row["flops_utilisation"] > 0
