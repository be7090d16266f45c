"""Which scan backends can be used on this machine, for `merba doctor`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

import torch


def _reference() -> tuple[bool, str]:
    return True, "plain PyTorch; slow, for tests and as a last resort"


def _numba() -> tuple[bool, str]:
    if not find_spec("numba"):
        return False, "numba is not installed (pip install numba)"
    return True, f"numba {version('numba')}; the default on CPU"


def _triton() -> tuple[bool, str]:
    if not find_spec("triton"):
        return False, "triton is not installed (it comes with PyTorch for CUDA on Linux)"
    if not torch.cuda.is_available():
        return False, f"triton {version('triton')} is installed, but PyTorch sees no CUDA device"
    return True, f"triton {version('triton')} on {torch.cuda.get_device_name()}; the default on CUDA"


def _mamba_ssm() -> tuple[bool, str]:
    if not find_spec("mamba_ssm"):
        return False, "mamba-ssm is not installed"
    name = f"mamba-ssm {version('mamba-ssm')}"
    if not find_spec("selective_scan_cuda"):
        return False, f"{name} has no Mamba-1 kernel; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE"
    if not torch.cuda.is_available():
        return False, f"{name} is installed, but PyTorch sees no CUDA device"
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
