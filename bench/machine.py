"""The machine that a benchmark's figures were measured on, and writing them."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tables import RESULTS, write_readme


def _processor() -> str:
    """The processor's name; Linux keeps it in /proc."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(*packages: str) -> dict:
    """Processor, GPU, load before the benchmark, and versions of Python, PyTorch, NumPy and the named packages."""
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "numpy", *packages)},
    }


def write(name: str, figures: dict, folder: Path = RESULTS) -> Path:
    """Write figures as JSON to a folder, and update all tables there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(figures, indent=2) + "\n")
    write_readme(folder)
    return path
