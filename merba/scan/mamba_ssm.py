"""The scan by mamba-ssm's CUDA kernel, if that package is installed with its Mamba-1 kernel.

Its kernel needs sequences in memory order, channels before length, so tokens are gathered along the paths, windows
become batch items, directions groups of channels with their own B and C, and results are scattered back. Gradients of
B and C are sums by atomic additions there: they may differ from run to run in the last bits.
"""

from __future__ import annotations

from functools import reduce

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor

from merba.scan import reference
from merba.scan.reference import conv, conv_backward, gather, scatter

__all__ = ["conv", "conv_backward", "scan", "scan_backward"]


def _for_kernel(*inputs: Tensor) -> bool:
    """Whether the kernel can take these; if not, the reference does: for float64, and for empty tensors."""
    return reference.arithmetic_type(*inputs) != torch.float64 and inputs[0].numel() > 0


def _sequences(x: Tensor, paths: Tensor) -> Tensor:
    """(batch, K, tokens, m) → (batch × windows, K, m, length), contiguous; past a path's end 0."""
    return gather(x, paths).permute(0, 2, 1, 4, 3).flatten(0, 1).contiguous()


def _map(x: Tensor, paths: Tensor, tokens: int) -> Tensor:
    """The inverse of `_sequences`: (batch × windows, K, m, length) → (batch, K, tokens, m)."""
    return scatter(x.unflatten(0, (-1, paths.shape[1])).permute(0, 2, 1, 4, 3), paths, tokens)


def _kernel_arguments(u, delta, A, B, C, D, delta_bias, paths):
    """The arguments of selective_scan_fn: u, delta (b, d, l); A (d, n); B, C (b, groups, n, l); D, delta_bias (d,).

    The kernel needs the same type for its four inputs of tokens: the smallest that holds all of theirs.
    """
    kind = reduce(torch.promote_types, (x.dtype for x in (u, delta, B, C)))
    u, delta, B, C = (_sequences(x.to(kind), paths) for x in (u, delta, B, C))
    A, D, delta_bias = (x.float().flatten(0, 1).contiguous() for x in (A, D, delta_bias))
    return u.flatten(1, 2), delta.flatten(1, 2), A, B, C, D, delta_bias


def scan(u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> Tensor:
    """Forward pass; see `merba.scan.window_scan`."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if not _for_kernel(*inputs):
        return reference.scan(*inputs, paths, delta_softplus)
    *arguments, shift = _kernel_arguments(*inputs, paths)
    y = selective_scan_fn(*arguments, delta_bias=shift, delta_softplus=delta_softplus)
    return _map(y.unflatten(1, (paths.shape[0], -1)), paths, u.shape[2]).to(u.dtype)


def scan_backward(grad, u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C, D, delta_bias, each in its input's type."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if not _for_kernel(*inputs):
        return reference.scan_backward(grad, *inputs, paths, delta_softplus)
    directions, tokens = paths.shape[0], u.shape[2]
    leaves = [x.detach().requires_grad_() for x in _kernel_arguments(*inputs, paths)]
    *arguments, shift = leaves
    with torch.enable_grad():  # the kernel comes as an autograd function: its backward needs what its forward saved
        y = selective_scan_fn(*arguments, delta_bias=shift, delta_softplus=delta_softplus)
    grad = _sequences(grad.to(y.dtype), paths).flatten(1, 2)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias = torch.autograd.grad(y, leaves, grad)

    of_tokens = [x.unflatten(1, (directions, -1)) for x in (grad_u, grad_delta)] + [grad_B, grad_C]
    grad_u, grad_delta, grad_B, grad_C = (_map(x, paths, tokens) for x in of_tokens)
    grad_A, grad_D, grad_bias = (x.unflatten(0, (directions, -1)) for x in (grad_A, grad_D, grad_bias))
    gradients = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias)
    return tuple(g.to(x.dtype).contiguous() for g, x in zip(gradients, inputs, strict=True))
