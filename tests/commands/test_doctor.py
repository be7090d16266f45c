"""`merba doctor`, and what works without the optional packages."""

import shutil
import subprocess
import sys
import types

import pytest
from workflow_runs import ROOT

from merba.cli import main
from merba.commands import doctor


def finding(part):
    return next(one for one in doctor.examine() if one.part == part)


def test_a_complete_installation_has_all_that_is_needed(capsys):
    assert main(["doctor"]) == 0
    assert "OpenCV's TV-L1" in capsys.readouterr().out


def test_a_cv2_without_optflow_is_explained(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="5.0.0"))
    found = finding("OpenCV's TV-L1")
    assert not found.works
    assert "another OpenCV package overwrote" in found.detail
    assert "pip uninstall -y opencv-python" in found.detail
    assert not found.needed
    main(["doctor"])
    assert "no      OpenCV's TV-L1" in capsys.readouterr().out


def test_an_installation_without_something_needed_fails(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["doctor"]) == 1
    assert "MISSING" in capsys.readouterr().out


@pytest.mark.parametrize(("folder", "works"), [("my projects", False), ("a&b", False), ("projekte_ö-2.0", True)])
def test_a_python_that_snakemake_can_not_start_is_named(monkeypatch, folder, works):
    monkeypatch.setattr(sys, "executable", f"/home/ann/{folder}/merba/.venv/bin/python")
    found = finding("path")
    assert found.works == works
    assert sys.executable in found.detail
    assert found.needed


def test_make_says_before_it_installs_that_its_path_has_a_space(tmp_path):
    home = tmp_path / "my projects"
    home.mkdir()
    shutil.copy(ROOT / "Makefile", home)
    run = subprocess.run(["make", "demo"], cwd=home, capture_output=True, text=True)
    assert run.returncode == 2
    assert f"The path of this checkout has a space: {home}" in run.stderr
    assert [path.name for path in home.iterdir()] == ["Makefile"]


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install" in finding("pyarrow").detail


def test_every_scan_backend_is_listed_with_why_it_can_be_used_or_not(monkeypatch, capsys):
    found = {"numba": (True, "the default on CPU"), "triton": (False, "PyTorch sees no GPU")}
    monkeypatch.setattr("merba.scan.backends", lambda: found)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert "ok      scan: numba         the default on CPU" in lines
    assert "no      scan: triton        PyTorch sees no GPU" in lines


@pytest.mark.long
def test_import_and_training_need_no_optional_package():
    """In a new process in which they can't be imported: ready-made flow in, predictions out."""
    program = """
import sys
for name in ("snakemake", "dlib", "face_alignment", "mamba_ssm", "cv2", "skimage", "matplotlib"):
    sys.modules[name] = None
import numpy as np, torch
import merba
from merba import MERba, create_model, selective_scan
from merba.preprocessing.packs import FlowFormat
from merba.protocols import Split
from merba.training.inputs import prepare
from merba.training.loop import train_fold
from merba.training.settings import TrainingSettings
flow, labels, rows = np.random.rand(12, 2, 28, 28).astype("float16"), np.arange(12) % 3, np.arange(12)
split = Split(rows[:8], rows[8:10], rows[10:])
build = lambda: create_model("merba_nano", 3)
data = prepare(flow, labels, split.train, FlowFormat(("u", "v"), "px"), shape=(2, 56, 56),
               normalise=True, device=torch.device("cpu"))
result = train_fold(build, data, split, 3, TrainingSettings.of({"epochs": 1, "batch_size": 8}), seed=0)
assert result.honest.probabilities.shape == (2, 3)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
