"""The scan without a loop over tokens, in plain PyTorch operators, so that models can be exported.

A step of the scan, h → a h + b, followed by another, h → a' h + b', is again such a step: h → a' a h + (a' b + b'). So the
steps of all tokens are joined by doubling (Hillis & Steele 1986, "Data parallel algorithms"): after k rounds, each token has the
step over itself and the 2^k − 1 tokens before it. A window of 49 tokens takes 6 rounds. Decays are at most 1
and only multiplied, so nothing overflows.

Arguments are those of `merba.scan.ops`, in float32. The states of all tokens are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from merba.scan.ops import CONV, SCAN


@contextmanager
def instead_of_kernels() -> Iterator[None]:
    """Within this block, `window_scan`, `selective_scan` and `window_conv` of every backend are computed by this module."""
    kernels = dict(SCAN), dict(CONV)
    SCAN.update(dict.fromkeys(SCAN, scan))
    CONV.update(dict.fromkeys(CONV, conv))
    try:
        yield
    finally:
        SCAN.update(kernels[0])
        CONV.update(kernels[1])


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    paths: Tensor,
    delta_softplus: bool,
) -> Tensor:
    """Forward pass; see `merba.scan.window_scan`."""
    tokens = u.shape[2]
    u, dt, B, C = (_read(x, paths) for x in (u, delta, B, C))
    dt = dt + delta_bias[:, None, None]
    dt = F.softplus(dt) if delta_softplus else dt
    decay = torch.exp(dt[..., None] * A[:, None, None])  # (batch, K, windows, length, channels, n)
    state = (dt * u)[..., None] * B[..., None, :]
    reach, length = 1, paths.shape[2]
    while reach < length:
        first, later = [reach, length - reach], [length - reach, reach]
        start, rest = decay.split(first, dim=3)
        known, unfinished = state.split(first, dim=3)
        state = torch.cat([known, unfinished + rest * state.split(later, dim=3)[0]], dim=3)
        decay = torch.cat([start, rest * decay.split(later, dim=3)[0]], dim=3)
        reach *= 2
    y = (state * C[..., None, :]).sum(-1) + D[:, None, None] * u
    return _written_back(y, paths, tokens)


def conv(x: Tensor, weight: Tensor, paths: Tensor) -> Tensor:
    """Forward pass; see `merba.scan.window_conv`."""
    length = paths.shape[2]
    padded = F.pad(_read(x, paths), (0, 0, 1, 1))
    y = sum(weight[:, None, None, :, tap] * padded[..., tap : tap + length, :] for tap in range(3))
    return _written_back(F.silu(y), paths, x.shape[2])


def _read(x: Tensor, paths: Tensor) -> Tensor:
    """(batch, 1 or K, tokens, channels) along the paths → (batch, K, windows, length, channels); padding is 0."""
    directions, _, _ = paths.shape
    first = torch.arange(directions)[:, None, None] * x.shape[2] if x.shape[1] > 1 else 0
    read = x.flatten(1, 2)[:, paths.long().clamp(min=0) + first]
    return read.masked_fill((paths < 0)[..., None], 0)


def _written_back(x: Tensor, paths: Tensor, tokens: int) -> Tensor:
    """(batch, K, windows, length, channels) with each token at its own place → (batch, K, tokens, channels)."""
    directions, windows, length = paths.shape
    steps = paths.flatten(1).argsort(dim=1)[:, windows * length - tokens :]  # padding, −1, comes first
    return x.flatten(1, 3)[:, steps + torch.arange(directions)[:, None] * windows * length]
