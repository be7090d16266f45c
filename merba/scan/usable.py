"""Which scan backends can be used on this machine, for `merba doctor`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import torch


def _gpu() -> str | None:
    """Name of the GPU that PyTorch sees: NVIDIA's or AMD's (both are called cuda) or Intel's."""
    return next((device.get_device_name() for device in (torch.cuda, torch.xpu) if device.is_available()), None)


def _broken(backend: str) -> str | None:
    """Why the backend's file can't be imported although its package is installed."""
    try:
        import_module(f"{__package__}.{backend}")
    except Exception as problem:  # whatever a broken installation raises is the finding
        return f"{type(problem).__name__}: {problem}"
    return None


def _reference() -> tuple[bool, str]:
    return True, "plain PyTorch; slow, for tests and as a last resort"


def _numba() -> tuple[bool, str]:
    if not find_spec("numba"):
        return False, "numba is not installed (pip install numba)"
    if problem := _broken("numba"):
        return False, f"numba {version('numba')} can't be imported: {problem}; reinstall it (pip install -U numba)"
    return True, f"numba {version('numba')}; the default on CPU"


def _triton() -> tuple[bool, str]:
    if not find_spec("triton"):
        return False, "triton is not installed (it comes with PyTorch for GPUs)"
    gpu = _gpu()
    if gpu is None:
        return False, "triton is installed, but PyTorch sees no GPU"
    if problem := _broken("triton"):
        return False, f"triton can't be imported: {problem}; reinstall PyTorch, which installs the right triton"
    import triton  # its package has another name in PyTorch for AMD's and Intel's GPUs

    return True, f"triton {triton.__version__} on {gpu}; the default on GPU"


def _mamba_ssm() -> tuple[bool, str]:
    if not find_spec("mamba_ssm"):
        return False, "mamba-ssm is not installed"
    name = f"mamba-ssm {version('mamba-ssm')}"
    if not find_spec("selective_scan_cuda"):
        return False, f"{name} has no Mamba-1 kernel; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE"
    if not torch.cuda.is_available():
        return False, f"{name} is installed, but PyTorch sees no CUDA device"
    if problem := _broken("mamba_ssm"):
        return False, f"{name} can't be imported: {problem}; build it for this PyTorch with MAMBA_KEEP_CUDA_BUILD=TRUE"
    return True, f"{name} on {torch.cuda.get_device_name()}"


_CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "reference": _reference,
    "numba": _numba,
    "triton": _triton,
    "mamba_ssm": _mamba_ssm,
}


def backends() -> dict[str, tuple[bool, str]]:
    """Every backend's name → (usable on this machine, the reason or what it runs on)."""
    return {name: check() for name, check in _CHECKS.items()}
