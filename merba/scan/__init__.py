"""Selective scan (Gu & Dao 2023, "Mamba") along paths through windows of a token map, on any CPU or GPU.

`selective_scan` is the plain sequence form, `window_scan` the one MERba needs: several directions at once, each
reading the tokens of its windows in scan order by index. `window_conv` is the mixer's convolution along the same
paths. All are differentiable in every floating-point input (once: they have no second derivative), pass
`torch.compile(fullgraph=True)` and `torch.utils.checkpoint`, and compute in float32, or float64 where an input is.

The backend is chosen by argument, else by the environment variable MERBA_SCAN, else by device.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from merba.scan.ops import BACKENDS, CONV, SCAN
from merba.scan.orders import DIRECTIONS, PRESETS, scan_order, window_paths

__all__ = [
    "BACKENDS", "DIRECTIONS", "PRESETS", "backends", "scan_order", "selective_scan", "window_conv", "window_paths",
    "window_scan",
]  # fmt: skip

BACKEND_VARIABLE = "MERBA_SCAN"
_GPUS = ("cuda", "xpu")  # ROCm calls itself cuda
_DEVICES = {"reference": None, "numba": ("cpu",), "triton": _GPUS, "mamba_ssm": ("cuda",)}
_CPU_BACKEND = "numba" if find_spec("numba") else "reference"
_GPU_BACKEND = "triton" if find_spec("triton") else "reference"


def _choose(backend: str | None, x: Tensor) -> str:
    """Argument > environment variable > automatic: numba on CPU, triton on GPU, if they are installed."""
    device = x.device.type
    name = backend or os.environ.get(BACKEND_VARIABLE)
    if not name:
        return _CPU_BACKEND if device == "cpu" else _GPU_BACKEND if device in _GPUS else "reference"
    origin = "backend" if backend else f"environment variable {BACKEND_VARIABLE}"
    if name not in BACKENDS:
        raise ValueError(f"{origin}: unknown scan backend {name!r}; known: {', '.join(BACKENDS)}")
    devices = _DEVICES[name]
    interpreted = name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if devices and device not in devices and not interpreted:
        raise ValueError(
            f"{origin}: {name} computes on {' or '.join(devices)}, but the tensors are on {device}; choose no "
            "backend, or move them"
        )
    return name


def _expect(name: str, x: Tensor, *shapes: tuple[int, ...]) -> None:
    if tuple(x.shape) not in shapes:
        fits = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name} has shape {tuple(x.shape)}; with the other arguments it must be {fits}")
    if not x.is_floating_point():
        raise ValueError(f"{name} is {x.dtype}; a floating-point tensor is needed")


def _per_direction(name: str, x: Tensor, directions: int, *shape: int) -> Tensor:
    """Parameters shared by all directions, or one set per direction → (K, *shape)."""
    _expect(name, x, shape, (directions, *shape))
    return x if x.dim() > len(shape) else x.expand(directions, *shape)


def _check_paths(paths: Tensor, tokens: int) -> None:
    """Check what needs no waiting for a GPU: type and shape. The operators check the tokens, on the CPU only."""
    if paths.dim() != 3 or paths.dtype != torch.int32:
        raise ValueError(
            f"paths is {paths.dtype} {tuple(paths.shape)}; an int32 tensor (directions, windows, length) as from "
            "window_paths is needed"
        )
    if paths.shape[1] * paths.shape[2] < tokens:
        raise ValueError(
            f"paths of shape {tuple(paths.shape)} visit at most {paths.shape[1] * paths.shape[2]} of {tokens} tokens; "
            "every direction must visit every token once"
        )


def window_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    paths: Tensor,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Selective scan of every direction along its paths through the windows of a token map.

    u, delta (batch, K, tokens, channels); B, C (batch, K, tokens, n); A (channels, n) or (K, channels, n); D and
    delta_bias (channels,) or (K, channels), None for zeros; paths int32 (K, windows, length) as from `window_paths`:
    each direction visits every token once; -1, at the end of a path only, is padding. The state starts at 0 at the
    start of each path. Result: (batch, K, tokens, channels) in u's type, each output at its own token's place.
    Shapes that don't fit, an unknown backend, or (on the CPU) paths that miss tokens raise ValueError.
    """
    if u.dim() != 4:
        raise ValueError(f"u has shape {tuple(u.shape)}; (batch, directions, tokens, channels) is needed")
    batch, directions, tokens, channels = u.shape
    _check_paths(paths, tokens)
    if A.dim() not in (2, 3):
        raise ValueError(f"A has shape {tuple(A.shape)}; (channels, state) or one per direction is needed")
    n = A.shape[-1]
    _expect("u", u, (batch, paths.shape[0], tokens, channels))
    _expect("delta", delta, (batch, directions, tokens, channels))
    _expect("B", B, (batch, directions, tokens, n))
    _expect("C", C, (batch, directions, tokens, n))
    D = u.new_zeros(channels, dtype=torch.float32) if D is None else D
    delta_bias = u.new_zeros(channels, dtype=torch.float32) if delta_bias is None else delta_bias
    A = _per_direction("A", A, directions, channels, n)
    D = _per_direction("D", D, directions, channels)
    delta_bias = _per_direction("delta_bias", delta_bias, directions, channels)
    return SCAN[_choose(backend, u)](u, delta, A, B, C, D, delta_bias, paths, delta_softplus)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Selective scan of sequences: h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t, y_t = C_t·h_t + D u_t.

    u, delta (batch, length, channels); A (channels, n); B, C (batch, length, n); D, delta_bias (channels,), None for
    zeros; Δ = softplus(delta + delta_bias), or without softplus. Result: (batch, length, channels) in u's type.
    Shapes that don't fit or an unknown backend raise ValueError.
    """
    if u.dim() != 3:
        raise ValueError(f"u has shape {tuple(u.shape)}; (batch, length, channels) is needed")
    batch, length, channels = u.shape
    if A.dim() != 2:
        raise ValueError(f"A has shape {tuple(A.shape)}; (channels, state) is needed")
    for name, x, size in (("delta", delta, channels), ("B", B, A.shape[1]), ("C", C, A.shape[1])):
        _expect(name, x, (batch, length, size))
    path = torch.arange(length, dtype=torch.int32, device=u.device)[None, None]
    u, delta, B, C = (x[:, None] for x in (u, delta, B, C))
    y = window_scan(u, delta, A, B, C, D, paths=path, delta_bias=delta_bias, delta_softplus=delta_softplus, backend=backend)
    return y[:, 0]


def window_conv(x: Tensor, weight: Tensor, *, paths: Tensor, backend: str | None = None) -> Tensor:
    """Depthwise convolution of width 3 along each path, then SiLU (the mixer's, before the scan).

    x (batch, tokens, channels), shared by all directions, or (batch, K, tokens, channels); weight (channels, 3) or
    (K, channels, 3), taps for the previous token of the path, this one and the next; beyond a path's ends are zeros;
    no bias; paths as in `window_scan`. Result: (batch, K, tokens, channels) in x's type, at each token's own place.
    Shapes that don't fit or an unknown backend raise ValueError.
    """
    if x.dim() not in (3, 4):
        raise ValueError(f"x has shape {tuple(x.shape)}; (batch, tokens, channels) or one per direction is needed")
    x = x[:, None] if x.dim() == 3 else x
    batch, _, tokens, channels = x.shape
    _check_paths(paths, tokens)
    directions = paths.shape[0]
    _expect("x", x, (batch, 1, tokens, channels), (batch, directions, tokens, channels))
    weight = _per_direction("weight", weight, directions, channels, 3)
    return CONV[_choose(backend, x)](x, weight, paths)


def backends() -> dict[str, tuple[bool, str]]:
    """Which backends can be used on this machine, and why, or why not: name → (usable, reason)."""
    from merba.scan.usable import backends

    return backends()
