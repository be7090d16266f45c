"""The window convolution on GPU by Triton: a program takes a tile of tokens and channels, in raster order.

The tokens before and after each token on its path come from a table, which a separate kernel makes once from the paths. So the
backward pass, too, reads what it needs instead of adding to it: there are no atomic additions, and directions that share x are
summed in their order.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from merba.scan import reference

TOKENS, CHANNELS = 32, 64  # of one program
SIZES = ("size", "per_direction", "length", "tokens", "directions", "x_directions")
"""Numbers that Triton must not specialise on, see `merba.scan.triton`."""
_tables: dict[tuple, tuple[Tensor, Tensor, Tensor]] = {}
"""Paths and their neighbours, by address and version. Keeping the paths prevents their address from being reused."""


def on_device(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device: make it the tensor's. (The interpreter of the tests runs on the CPU.)"""
    return nullcontext() if x.device.type == "cpu" else torch.get_device_module(x.device).device(x.device)


@triton.jit(do_not_specialize=SIZES)
def _neighbours(paths, before, after, size, per_direction, length, tokens, BLOCK: tl.constexpr):
    """The tokens before and after each token on its path, -1 for none: before, after (K, tokens)."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(paths + place, mask=place < size, other=-1)
    live = token >= 0
    previous = tl.load(paths + place - 1, mask=live & (place % length > 0), other=-1)
    following = tl.load(paths + place + 1, mask=live & (place % length < length - 1), other=-1)
    target = place // per_direction * tokens + token
    tl.store(before + target, previous, mask=live)
    tl.store(after + target, following, mask=live)


@triton.jit
def _rows(x, origin, token, c, channels):
    """Rows of tokens (tokens, channels); 0 for token -1."""
    mask = (token >= 0)[:, None] & (c < channels)[None, :]
    return tl.load(x + (origin + token)[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _taps(weight, k, c, channels):
    """The three weights of a direction's channels."""
    place, mask = (k * channels + c) * 3, c < channels
    first = tl.load(weight + place, mask=mask, other=0.0).to(tl.float32)[None, :]
    second = tl.load(weight + place + 1, mask=mask, other=0.0).to(tl.float32)[None, :]
    return first, second, tl.load(weight + place + 2, mask=mask, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=SIZES)
def _conv_forward(
    x, weight, before, after, y, directions, x_directions, tokens, channels,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Programs: (batch × K, blocks of tokens, blocks of channels); only a grid's first axis goes beyond 65,535."""
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    token = tl.where(token < tokens, token, -1)
    b, k = tl.program_id(0) // directions, tl.program_id(0) % directions
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    origin = (b * x_directions + k % x_directions).to(tl.int64) * tokens
    previous = tl.load(before + k * tokens + token, mask=token >= 0, other=-1)
    following = tl.load(after + k * tokens + token, mask=token >= 0, other=-1)

    first, second, third = _taps(weight, k, c, channels)
    p = first * _rows(x, origin, previous, c, channels) + second * _rows(x, origin, token, c, channels)
    p += third * _rows(x, origin, following, c, channels)
    target = tl.program_id(0).to(tl.int64) * tokens + token
    mask = (token >= 0)[:, None] & (c < channels)[None, :]
    tl.store(y + target[:, None] * channels + c[None, :], p / (1.0 + tl.exp(-p)), mask=mask)


@triton.jit
def _grad_sum(grad, x, taps, grad_origin, origin, previous, token, following, c, channels):
    """Gradient of the weighted sum under SiLU, and the rows that were summed."""
    row_0, row_1 = _rows(x, origin, previous, c, channels), _rows(x, origin, token, c, channels)
    row_2 = _rows(x, origin, following, c, channels)
    p = taps[0] * row_0 + taps[1] * row_1 + taps[2] * row_2
    s = 1.0 / (1.0 + tl.exp(-p))
    return _rows(grad, grad_origin, token, c, channels) * (s + p * s * (1.0 - s)), row_0, row_1, row_2


@triton.jit(do_not_specialize=SIZES)
def _conv_backward(
    grad, x, weight, before, after, grad_x, partial, directions, x_directions, tokens, channels,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Programs: (batch × directions of x, blocks of tokens, blocks of channels); directions that share x in order.

    partial (blocks of tokens, batch, K, 3, channels) for the gradient of the weights.
    """
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    token = tl.where(token < tokens, token, -1)
    b, i = tl.program_id(0) // x_directions, tl.program_id(0) % x_directions
    batch, shares = tl.num_programs(0) // x_directions, directions // x_directions
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    origin = tl.program_id(0).to(tl.int64) * tokens

    total = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for k in range(i * shares, (i + 1) * shares):
        taps = _taps(weight, k, c, channels)
        here = (b * directions + k).to(tl.int64) * tokens
        previous = tl.load(before + k * tokens + token, mask=token >= 0, other=-1)
        following = tl.load(after + k * tokens + token, mask=token >= 0, other=-1)
        earlier = tl.load(before + k * tokens + previous, mask=previous >= 0, other=-1)
        later = tl.load(after + k * tokens + following, mask=following >= 0, other=-1)

        g, row_0, row_1, row_2 = _grad_sum(grad, x, taps, here, origin, previous, token, following, c, channels)
        place = partial + ((tl.program_id(1) * batch + b).to(tl.int64) * directions + k) * 3 * channels + c
        tl.store(place, tl.sum(g * row_0, axis=0), mask=c < channels)
        tl.store(place + channels, tl.sum(g * row_1, axis=0), mask=c < channels)
        tl.store(place + 2 * channels, tl.sum(g * row_2, axis=0), mask=c < channels)
        total += taps[1] * g
        g, _, _, _ = _grad_sum(grad, x, taps, here, origin, token, following, later, c, channels)
        total += taps[0] * g
        g, _, _, _ = _grad_sum(grad, x, taps, here, origin, earlier, previous, token, c, channels)
        total += taps[2] * g

    mask = (token >= 0)[:, None] & (c < channels)[None, :]
    tl.store(grad_x + (origin + token)[:, None] * channels + c[None, :], total, mask=mask)


def _prepare(x: Tensor, weight: Tensor, paths: Tensor) -> tuple[Tensor, ...]:
    """Inputs as the kernels read them: x, weight, and the tokens before and after every token (K, tokens)."""
    return x.contiguous(), weight.contiguous(), *_neighbours_along(paths, x.shape[2])


def _neighbours_along(paths: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """The tokens before and after every token, int32 (K, tokens) each; made once for the same paths."""
    version = 0 if paths.is_inference() else paths._version
    key = (paths.device, paths.data_ptr(), paths.shape, paths.stride(), version, tokens)
    if key not in _tables:
        if len(_tables) >= 64:  # a model has one for each of its maps
            _tables.clear()
        directions, windows, length = paths.shape
        before, after = paths.new_empty(2, directions, tokens)
        block = 256
        grid = (triton.cdiv(paths.numel(), block),)
        _neighbours[grid](paths.contiguous(), before, after, paths.numel(), windows * length, length, tokens, BLOCK=block)
        _tables[key] = paths, before, after
    return _tables[key][1:]


def conv(x: Tensor, weight: Tensor, paths: Tensor) -> Tensor:
    """Forward pass; see `merba.scan.window_conv`."""
    if reference.arithmetic_type(x, weight) == torch.float64:
        return reference.conv(x, weight, paths)
    (batch, x_directions, tokens, channels), directions = x.shape, paths.shape[0]
    y = x.new_empty(batch, directions, tokens, channels)
    if y.numel() > 0:
        with on_device(x):
            inputs = _prepare(x, weight, paths)
            grid = (batch * directions, triton.cdiv(tokens, TOKENS), triton.cdiv(channels, CHANNELS))
            _conv_forward[grid](*inputs, y, directions, x_directions, tokens, channels, TOKENS, CHANNELS)
    return y


def conv_backward(grad: Tensor, x: Tensor, weight: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, each in its input's type."""
    if reference.arithmetic_type(x, weight) == torch.float64:
        return reference.conv_backward(grad, x, weight, paths)
    (batch, x_directions, tokens, channels), directions = x.shape, paths.shape[0]
    grad_x = x.new_empty(x.shape)
    if x.numel() == 0:
        return grad_x, torch.zeros_like(weight).contiguous()
    with on_device(x):
        inputs = _prepare(x, weight, paths)
        blocks = triton.cdiv(tokens, TOKENS)
        partial = x.new_empty(blocks * batch, directions, 3, channels, dtype=torch.float32)
        grid = (batch * x_directions, blocks, triton.cdiv(channels, CHANNELS))
        arguments = (grad.contiguous(), *inputs, grad_x, partial, directions, x_directions, tokens, channels)
        # With four warps a thread of a tile has too many numbers for its registers (sm_90: 232 bytes in memory).
        _conv_backward[grid](*arguments, TOKENS, CHANNELS, num_warps=8)
    return grad_x, partial.sum(0).transpose(1, 2).to(weight.dtype).contiguous()
