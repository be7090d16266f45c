"""The GPU benchmark's own code, on the CPU: it must run at the first try on a rented GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from merba.preprocessing.flow_settings import FlowSettings

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import gpu

    return gpu


@pytest.fixture
def checked(gpu):
    import gpu_checks

    return gpu_checks


def test_flow_is_checked_with_the_default_settings(checked):
    assert FlowSettings.of() == checked.TV_L1


@pytest.fixture
def trained(gpu):
    import gpu_training

    return gpu_training


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    """In a process that finds this package only through the script, in another folder."""
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


def test_all_but_whole_folds_needs_torch_and_numpy_alone():
    """No other dependency of the package, so that it runs with the PyTorch of a rented machine."""
    program = """
import sys
for name in "numba llvmlite pandas pyarrow sklearn safetensors jsonschema fastjsonschema yaml psutil".split():
    sys.modules[name] = None
import gpu
for part in ("check", "training", "scan", "mixer"):
    for call in gpu.PARTS[part](gpu.replace(gpu.DRY, backends=("reference",))).values():
        call()
"""
    environment = {**os.environ, "PYTHONPATH": f"{BENCH}{os.pathsep}{BENCH.parent}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_checks_pass_and_see_repeated_results(checked, kind):
    errors = checked.check_scan("numba", 5, 6, 2, kind, "cpu", window=3)
    for name in ("scan", "scan without softplus", "conv", "conv of each direction's own"):
        assert 0 < errors[name] < checked.TOLERANCES[kind]
        assert errors[f"{name} repeats"]


def test_checks_fail_on_a_wrong_scan(checked, monkeypatch):
    from merba.scan import numba

    right = numba.scan
    monkeypatch.setattr(numba, "scan", lambda *arguments: right(*arguments) * 1.01)
    with pytest.raises(checked.Mismatch, match="numba, scan, 5×5×6, fp32: relative error 1.0e-02"):
        checked.check_scan("numba", 5, 6, 2, "fp32", "cpu", window=3)
    with pytest.raises(checked.Mismatch, match="merba_nano, eager"):
        checked.check_model("merba_nano", "numba", "cpu", compiler="eager")


def test_the_check_of_flow_passes_and_sees_a_wrong_flow(checked, monkeypatch):
    figures = checked.check_flow(28, 2, "cpu")
    assert figures["error"] < 0.05
    assert figures["difference"] == 0
    monkeypatch.setattr(checked, "tv_l1_batch", lambda first, second, settings: torch.zeros(len(first), 2, *first.shape[1:]))
    with pytest.raises(checked.Mismatch, match="TV-L1: off by 0.559 px"):
        checked.check_flow(28, 2, "cpu")


def test_checks_of_nan_and_of_an_empty_batch(checked, monkeypatch):
    from merba.scan import numba

    assert checked.check_corners("numba", "cpu") == {"NaN": True, "empty": True}
    right = numba.scan
    for wrong in (lambda y: y.nan_to_num(0), lambda y: y + y.sum() * 0):  # NaN lost; NaN everywhere
        monkeypatch.setattr(numba, "scan", lambda *arguments, wrong=wrong: wrong(right(*arguments)))
        with pytest.raises(checked.Mismatch, match="NaN in one sequence"):
            checked.check_corners("numba", "cpu")


CHILD = """
import os, sys
sys.path.insert(0, {bench!r})
import gpu

def fails():
    raise ValueError("too large")

def spoils():
    gpu.is_spoiled = lambda: True
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

gpu.torch.cuda.empty_cache = lambda: None
gpu.is_spoiled = lambda: False
calls = dict(first=lambda: dict(ms=1.5, process=os.getpid()), fails=fails, dies=lambda: os._exit(7), spoils=spoils,
             last=lambda: dict(process=os.getpid()))
gpu.run_calls(calls, sys.argv[1:], "cuda")
"""


def test_what_fails_is_named_and_the_rest_goes_on_in_another_process_where_it_must(gpu):
    command = [sys.executable, "-c", CHILD.format(bench=str(BENCH))]
    figures = dict(gpu.by_child(command, ["first", "fails", "dies", "spoils", "last"]))
    assert list(figures) == ["first", "fails", "dies", "spoils", "last"]
    assert figures["first"]["ms"] == 1.5
    assert figures["fails"] == {"failed": "ValueError: too large"}
    assert figures["dies"] == {"failed": "its process ended with 7"}
    assert "illegal memory access" in figures["spoils"]["failed"]
    assert figures["last"]["process"] != figures["first"]["process"]


def test_a_profiler_that_fails_does_not_lose_the_timings(trained, monkeypatch):
    def forbidden(step):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(trained, "count_launches", forbidden)
    assert trained.kernel_launches(lambda: None) == "not counted: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"


def test_a_part_alone_keeps_the_others_figures(gpu, tmp_path):
    now = {"machine": gpu.machine("triton"), "goals": 2}
    assert gpu.kept(now, tmp_path) == {}
    (tmp_path / "gpu.json").write_text(json.dumps({**now, "goals": 1, "scan": {"ms": 3}}))
    assert gpu.kept(now, tmp_path) | now == {**now, "scan": {"ms": 3}}
    (tmp_path / "gpu.json").write_text(json.dumps({"machine": now["machine"] | {"gpu": "another"}, "scan": {"ms": 3}}))
    assert gpu.kept(now, tmp_path) == {}


def test_a_dry_run_leaves_the_measured_results_alone():
    command = [sys.executable, BENCH / "gpu.py", "--dry", "--only", "smoke"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "name another folder" in result.stderr


def test_every_part_has_its_calls(gpu, monkeypatch):
    monkeypatch.setattr(gpu.Setup, "usable", lambda self: ["triton"])
    calls = {name: list(part(gpu.GPU)) for name, part in gpu.PARTS.items()}
    assert calls["smoke"] == ["device", "scan", "training"]
    assert len(calls["check"]) == 5 * 3 + 1 + 2 + 1
    assert calls["scan"][:2] == ["stage 2, fp32, triton", "stage 2, bf16, triton"]
    assert calls["mixer"] == ["stage 2", "stage 3", "stage 4"]
    assert calls["training"][1:] == [f"{name}, {form}" for name in gpu.GPU.models for form in ("eager", "compiled")]
    assert calls["launch"][:2] == ["channels 64, warps 1, registers any", "channels 64, warps 1, registers 168"]
    assert calls["loso"] == ["fold 1", "fold 2", "fold 3", "a job of its own"]
    assert {f"backward, {label}" for label in calls["launch"]} < set(calls["compile"])


def test_the_first_launch_that_is_timed_is_the_usual_one(gpu):
    from merba.scan import triton

    channels, warps, registers = gpu.GPU.launches[0]
    assert {"BLOCK_C": channels, "num_warps": warps} == triton.BACKWARD and registers is None


def test_summaries_name_the_best_launch_and_the_time_of_all_folds(gpu):
    launches = {"usual": {"all_ms": 3.0}, "narrow": {"all_ms": 2.0}, "broken": {"failed": "Mismatch"}}
    assert gpu.best_launch(launches) == {"best": "narrow", "best_ms": 2.0, "usual_ms": 3.0}
    folds = {"fold 1": {"seconds": 90}, "fold 2": {"seconds": 30}, "fold 3": {"seconds": 32}}
    job = {"a job of its own": {"beside_training_seconds": 15.0}}
    assert gpu.whole_loso(folds | job) == {
        "folds": 68,
        "minutes_in_one_process": pytest.approx((90 + 67 * 31) / 60),
        "minutes_as_jobs": pytest.approx(68 * (31 + 15) / 60),
    }
    assert gpu.whole_loso({"fold 1": {"seconds": 90}, "fold 2": {"failed": "out of memory"}}) == {}


def test_the_mixer_around_a_gathered_scan_is_the_same_mixer(gpu):
    import gpu_scan

    from merba.scan import selective_scan

    def selective_scan_fn(u, delta, A, B, C, D, delta_bias, delta_softplus):
        u, delta, B, C = (x.mT for x in (u, delta, B, C))
        return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus).mT

    assert gpu_scan.time_mixer(14, 8, 2, "cpu", selective_scan_fn)["times_as_fast"] > 0


@pytest.mark.long
def test_the_one_command_for_a_rented_gpu_runs_all_parts(gpu, tmp_path):
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SLOWER": "10"}
    command = [BENCH / "gpu_all.sh", tmp_path / "kept", "--dry"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["README.md", "gpu.json", "gpu.log"]
    figures = json.loads((tmp_path / "kept" / "gpu.json").read_text())
    for part, calls in gpu.PARTS.items():
        assert [label for label in calls(gpu.DRY) if label not in figures[part]] == []
    assert figures["training"]["merba_nano, compiled"]["samples_per_s"] > 0
    assert figures["loso"]["fold 2"]["epochs"] == gpu.DRY.epochs
    assert figures["loso"]["in all"]["minutes_in_one_process"] > 0


def test_the_one_command_stops_where_nothing_works(tmp_path):
    environment = {**os.environ, "PYTHON": "false"}
    result = subprocess.run([BENCH / "gpu_all.sh", tmp_path], env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == "smoke: ended with 1 (124: its 60 s were over)\n"
