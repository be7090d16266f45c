"""The scan on CPU by Numba: fused SIMD kernels (`numba_kernels`), and the layout that they need.

Arithmetic is float32; if an input is float64, the reference does the work. Channels are padded with zeros to a multiple of
16, states to a multiple of 4 (with padding, an infinite u or delta gives NaN instead of infinity). Gradients of parameters are
summed over fixed groups of sequences and then in the groups' order, so that results are the same bits for any number of
threads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from merba.scan import numba_kernels as kernels
from merba.scan import reference
from merba.scan.cpu_threads import run
from merba.scan.numba_lanes import LANES, LOG2E, STATES

GROUPS = 64  # partial sums of a parameter's gradient; at least as many as threads that should have work


def _ready(x: Tensor, pad: int = 0) -> Tensor:
    """The tensor as kernels read it: float32, contiguous, with `pad` zero channels at the end."""
    return (F.pad(x.float(), (0, pad)) if pad else x.float()).contiguous()


def _group_sum(partial: Tensor) -> Tensor:
    """Sum over the first axis, in order."""
    kernels.sum_groups(partial.numpy())
    return partial[0]


def _scan_arguments(u, delta, A, B, C, D, delta_bias, paths, delta_softplus):
    pad, pad_n = -u.shape[-1] % LANES, -B.shape[-1] % STATES
    A = _ready(_ready(A.float().transpose(1, 2) * float(LOG2E), pad).transpose(1, 2), pad_n)
    A = A.unflatten(1, (-1, LANES)).transpose(2, 3).contiguous()
    u, delta, D, delta_bias = (_ready(x, pad) for x in (u, delta, D, delta_bias))
    return u, delta, A, _ready(B, pad_n), _ready(C, pad_n), D, delta_bias, paths.contiguous(), delta_softplus


def scan(u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> Tensor:
    """Forward pass; see `merba.scan.window_scan`."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if reference.arithmetic_type(*inputs) == torch.float64:
        return reference.scan(*inputs, paths, delta_softplus)
    arguments = _scan_arguments(*inputs, paths, delta_softplus)
    y = torch.empty_like(arguments[0])
    run(kernels.scan_forward, u.shape[0] * paths.shape[0] * paths.shape[1], *arguments, y)
    return y[..., : u.shape[-1]].to(u.dtype).contiguous()


def scan_backward(grad, u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C, D, delta_bias, each in its input's type."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if reference.arithmetic_type(*inputs) == torch.float64:
        return reference.scan_backward(grad, *inputs, paths, delta_softplus)
    arguments = _scan_arguments(*inputs, paths, delta_softplus)
    directions, channels, n = A.shape
    padded_channels, padded_n = arguments[0].shape[-1], arguments[3].shape[-1]
    groups = min(GROUPS, max(1, u.shape[0] * paths.shape[1]))
    grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(arguments[i]) for i in (0, 1, 3, 4))
    partial = grad_u.new_empty(groups, directions, padded_channels // LANES, padded_n + 2, LANES)
    grad = _ready(grad, padded_channels - channels)
    run(kernels.scan_backward, directions * groups, grad, *arguments, grad_u, grad_delta, grad_B, grad_C, partial)

    sums = _group_sum(partial).transpose(2, 3).flatten(1, 2)[:, :channels]
    grad_A, grad_D, grad_bias = (x.clone() for x in (sums[..., :n], sums[..., padded_n], sums[..., padded_n + 1]))
    grad_u, grad_delta = grad_u[..., :channels], grad_delta[..., :channels]
    gradients = (grad_u, grad_delta, grad_A, grad_B[..., :n], grad_C[..., :n], grad_D, grad_bias)
    return tuple(g.to(x.dtype).contiguous() for g, x in zip(gradients, inputs, strict=True))


def _conv_arguments(x: Tensor, weight: Tensor, paths: Tensor):
    pad = -x.shape[-1] % LANES
    return _ready(x, pad), _ready(weight.transpose(1, 2), pad), paths.contiguous()


def conv(x: Tensor, weight: Tensor, paths: Tensor) -> Tensor:
    """Forward pass; see `merba.scan.window_conv`."""
    if reference.arithmetic_type(x, weight) == torch.float64:
        return reference.conv(x, weight, paths)
    arguments = _conv_arguments(x, weight, paths)
    batch, _, tokens, channels = arguments[0].shape
    y = arguments[0].new_empty(batch, paths.shape[0], tokens, channels)
    run(kernels.conv_forward, batch * paths.shape[0] * paths.shape[1], *arguments, y)
    return y[..., : x.shape[-1]].to(x.dtype).contiguous()


def conv_backward(grad: Tensor, x: Tensor, weight: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, each in its input's type."""
    if reference.arithmetic_type(x, weight) == torch.float64:
        return reference.conv_backward(grad, x, weight, paths)
    arguments = _conv_arguments(x, weight, paths)
    channels = x.shape[-1]
    grad_x, groups = torch.empty_like(arguments[0]), min(GROUPS, max(1, x.shape[0]))
    partial = grad_x.new_empty(groups, paths.shape[0], 3, grad_x.shape[-1])
    run(kernels.conv_backward, groups, _ready(grad, grad_x.shape[-1] - channels), *arguments, grad_x, partial)

    grad_weight = _group_sum(partial)[..., :channels].transpose(1, 2)
    return grad_x[..., :channels].to(x.dtype).contiguous(), grad_weight.to(weight.dtype).contiguous()
