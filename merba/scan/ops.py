"""The scan's PyTorch operators: each backend's functions, registered with fake and autograd rules.

A backend is a module of this folder with four functions on plain tensors:

    scan(u, delta, A, B, C, D, delta_bias, paths, delta_softplus) → y
    scan_backward(grad, u, delta, A, B, C, D, delta_bias, paths, delta_softplus) → gradients of u … delta_bias
    conv(x, weight, paths) → y
    conv_backward(grad, x, weight, paths) → gradients of x, weight

u, delta, y (batch, K, tokens, channels); B, C (batch, K, tokens, n); A (K, channels, n); D, delta_bias (K, channels);
paths (K, windows, length) int32 with -1 for padding; the convolution's x (batch, 1 or K, tokens, channels), weight
(K, channels, 3). Every result is contiguous, and has the type of the input that it belongs to (y: that of u or x).
Backends are imported when first called, so that one may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch._ops import OpOverload

if TYPE_CHECKING:  # imported by name below; `merba.code` reads such lines to find a model's code
    from merba.scan import mamba_ssm, numba, reference, triton  # noqa: F401

BACKENDS = ("reference", "numba", "triton", "mamba_ssm")

_SCAN_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor delta_bias, Tensor paths, bool delta_softplus"
)
_CONV_INPUTS = "Tensor x, Tensor weight, Tensor paths"


def _module(backend: str) -> ModuleType:
    try:
        return import_module(f"{__package__}.{backend}")
    except (ImportError, OSError) as problem:  # the package, or a library that it loads
        raise ValueError(f"the scan backend {backend!r} can't be used here: {problem}; `merba doctor` says more") from problem


def _check_tokens(paths: Tensor, tokens: int) -> None:
    """Raise ValueError if paths miss or repeat tokens. Only on the CPU: on a GPU, the check would cost a synchronisation."""
    if paths.device.type != "cpu" or paths.numel() == 0:
        return
    visited = paths.flatten(1).sort(1).values
    nothing = visited.new_full((visited.shape[1] - tokens,), -1)
    wanted = torch.cat([nothing, torch.arange(tokens, dtype=visited.dtype)])
    live = paths >= 0
    if not torch.equal(visited, wanted.expand_as(visited)) or (live[..., 1:] & ~live[..., :-1]).any():
        raise ValueError(
            f"paths of shape {tuple(paths.shape)} with numbers {visited.min()} to {visited.max()}: every direction must "
            f"visit the tokens 0 to {tokens - 1} once each, with -1 only at the end of a path"
        )


def _empty_like(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs)


def _define(name: str, schema: str, function: Callable) -> OpOverload:
    """The operator `merba::name`, computed by `function` on every device.

    Not by `torch.library.custom_op`: its operators import PyTorch's compiler when first called, which takes a second.
    """
    torch.library.define(f"merba::{name}", schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(f"merba::{name}", "default", function)
    return getattr(torch.ops.merba, name).default


def _register(backend: str, name: str, inputs: str, differentiable: int):
    """Register `merba::window_<name>_<backend>` and its backward; the first `differentiable` inputs get gradients.

    A forward operator's result has the shape of its first input, but as many directions as the paths.
    """
    results = ", ".join(["Tensor"] * differentiable)
    operator = f"window_{name}_{backend}"

    def forward(*args):
        _check_tokens(args[differentiable], args[0].shape[2])
        return getattr(_module(backend), name)(*args)

    def backward(*args):
        return getattr(_module(backend), f"{name}_backward")(*args)

    forward_op = _define(operator, f"({inputs}) -> Tensor", forward)
    backward_op = _define(f"{operator}_backward", f"(Tensor grad, {inputs}) -> ({results})", backward)

    @torch.library.register_fake(forward_op)
    def _(*args):
        paths = args[differentiable]
        batch, _, tokens, channels = args[0].shape
        return args[0].new_empty(batch, paths.shape[0], tokens, channels)

    @torch.library.register_fake(backward_op)
    def _(grad, *args):
        return _empty_like(*args[:differentiable])

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
        ctx.settings = [x for x in inputs if not isinstance(x, Tensor)]

    def autograd(ctx, grad):
        gradients = backward_op(grad, *ctx.saved_tensors, *ctx.settings)
        return *gradients, None, *(None for _ in ctx.settings)

    torch.library.register_autograd(forward_op, autograd, setup_context=setup_context)
    return forward_op


SCAN = {name: _register(name, "scan", _SCAN_INPUTS, 7) for name in BACKENDS}
CONV = {name: _register(name, "conv", _CONV_INPUTS, 2) for name in BACKENDS}
