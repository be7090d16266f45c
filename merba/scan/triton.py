"""The scan on GPU by Triton: one program walks a window with the state in registers.

Sequences are short (49 tokens in MERba) and many, so a program of one warp takes some channels of one sequence and
walks it token by token, reading each by its index in the path and writing its result to the same place. The state
is a tuple of n tensors (channels,), so that a thread has all n numbers of its channels and y needs no other thread. The
backward pass keeps the state before every fourth token and recomputes the three between. Sums over the batch and over
blocks of channels are written as partial sums and added by PyTorch: results do not change from run to run.

Arithmetic is float32; if an input is float64, the reference does the work.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from merba.scan import reference
from merba.scan.triton_conv import conv, conv_backward, on_device

__all__ = ["conv", "conv_backward", "scan", "scan_backward"]

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
CHUNK = tl.constexpr(4)
FORWARD = {"BLOCK_C": 64, "num_warps": 1}  # for one program: two channels per thread
BACKWARD = {"BLOCK_C": 64, "num_warps": 1}  # `bench/gpu.py` times others too
SIZES = ("sequences", "tokens", "windows", "length", "size_B")
"""Numbers that Triton must not specialise on: each that happens to be 1 or a multiple of 16 would compile another kernel."""
GROUPS = 512  # partial sums of a parameter's gradient; times directions and channel blocks, enough to fill a GPU


@triton.jit
def _softplus_and_slope(x):
    """log(1 + exp(x)) and its derivative; the logarithm by a polynomial that is exact for the smallest Δ too."""
    e = tl.exp(-tl.abs(x))
    ratio = e / (2.0 + e)
    square = ratio * ratio
    series = 0.400249093770981 + square * (0.2796060144901276 + square * 0.2817833423614502)
    series = 2.0 + square * (0.66666316986084 + square * series)
    return tl.maximum(x, 0.0) + ratio * series, tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def _numbers(place, live, N: tl.constexpr):
    """N neighbouring numbers; 0 where not live."""
    numbers = ()
    for i in tl.static_range(N):
        numbers += (tl.load(place + i, mask=live, other=0.0).to(tl.float32),)
    return numbers


@triton.jit
def _zeros(N: tl.constexpr, BLOCK_C: tl.constexpr):
    """A state of zeros."""
    states = ()
    for _ in tl.static_range(N):
        states += (tl.zeros((BLOCK_C,), tl.float32),)
    return states


@triton.jit
def _parameters(A, D, bias, k, c, channels, N: tl.constexpr):
    """A, for each of N states, times log2(e); D and bias of one direction."""
    place, mask = k * channels + c, c < channels
    rates = ()
    for i in tl.static_range(N):
        rates += (tl.load(A + place * N + i, mask=mask, other=0.0).to(tl.float32) * LOG2E,)
    skip = tl.load(D + place, mask=mask, other=0.0).to(tl.float32)
    return rates, skip, tl.load(bias + place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _step(t, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS: tl.constexpr, N: tl.constexpr):
    """Step t of a path: the token's row (-1 past the end), u, Δ, the slope of Δ, B. Past the end Δ is 0: no change."""
    token = tl.load(path + t, mask=t < length, other=-1)
    live = token >= 0
    row = tl.where(live, origin + token, -1)
    mask = live & (c < channels)
    x = tl.load(u + row * channels + c, mask=mask, other=0.0).to(tl.float32)
    dt = tl.load(delta + row * channels + c, mask=mask, other=0.0).to(tl.float32) + shift
    slope = tl.full(dt.shape, 1.0, tl.float32)
    if SOFTPLUS:
        dt, slope = _softplus_and_slope(dt)
    return row, x, tl.where(live, dt, 0.0), slope, _numbers(B + row * N, live, N)


@triton.jit
def _advance(h, step, rates, N: tl.constexpr):
    """The state after a step, from that before it."""
    _, x, dt, _, b = step
    after = ()
    for i in tl.static_range(N):
        after += (tl.exp2(dt * rates[i]) * h[i] + dt * x * b[i],)
    return after


@triton.jit(do_not_specialize=SIZES)
def _scan_forward(
    u, delta, A, B, C, D, bias, paths, y, tokens, channels, windows, length,
    SOFTPLUS: tl.constexpr, N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Programs: (batch × windows, K, blocks of channels)."""
    k, directions = tl.program_id(1), tl.num_programs(1)
    b, w = tl.program_id(0) // windows, tl.program_id(0) % windows
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    path = paths + (k * windows + w) * length
    origin = (b * directions + k).to(tl.int64) * tokens
    rates, skip, shift = _parameters(A, D, bias, k, c, channels, N)

    h = _zeros(N, BLOCK_C)
    step = _step(0, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
    for t in range(length):
        # The next token is loaded before this one is processed.
        following = _step(t + 1, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
        row = step[0]
        c_n = _numbers(C + row * N, row >= 0, N)
        h = _advance(h, step, rates, N)
        result = skip * step[1]
        for i in tl.static_range(N):
            result += h[i] * c_n[i]
        tl.store(y + row * channels + c, result, mask=(row >= 0) & (c < channels))
        step = following


@triton.jit
def _retreat(
    h, sums, step, rates, skip, c, channels, grad, C, grad_u, grad_delta, grad_B, grad_C, N: tl.constexpr
):  # fmt: skip
    """One step backwards: takes the state before it and the sums over the steps after it, returns the sums with it.

    Sums: gradients of the state (n), of A (n), of D and of the bias.
    """
    grad_h, grad_rates, grad_D, grad_bias = sums
    row, x, dt, slope, b_n = step
    live = row >= 0
    g = tl.load(grad + row * channels + c, mask=live & (c < channels), other=0.0).to(tl.float32)
    c_n = _numbers(C + row * N, live, N)
    dt_x = dt * x
    grad_dt, grad_dt_x = tl.zeros(dt.shape, tl.float32), tl.zeros(dt.shape, tl.float32)
    new_grad_h, new_grad_rates = (), ()
    for i in tl.static_range(N):
        decay = tl.exp2(dt * rates[i])
        carry = decay * h[i]
        tl.store(grad_C + row * N + i, tl.sum((carry + dt_x * b_n[i]) * g, axis=0), mask=live)
        grad_i = grad_h[i] + c_n[i] * g
        tl.store(grad_B + row * N + i, tl.sum(grad_i * dt_x, axis=0), mask=live)
        grad_dt_x += grad_i * b_n[i]
        grad_dt += grad_i * carry * rates[i]
        new_grad_h += (grad_i * decay,)
        new_grad_rates += (grad_rates[i] + grad_i * carry * dt,)
    grad_raw = tl.where(live, (grad_dt * LN2 + grad_dt_x * x) * slope, 0.0)
    tl.store(grad_u + row * channels + c, grad_dt_x * dt + skip * g, mask=live & (c < channels))
    tl.store(grad_delta + row * channels + c, grad_raw, mask=live & (c < channels))
    return new_grad_h, new_grad_rates, grad_D + g * x, grad_bias + grad_raw


@triton.jit(do_not_specialize=SIZES)
def _scan_backward(
    grad, u, delta, A, B, C, D, bias, paths, grad_u, grad_delta, grad_B, grad_C, partial, kept,
    sequences, tokens, channels, windows, length, size_B,
    SOFTPLUS: tl.constexpr, N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Programs: (groups of sequences, K, blocks of channels); each sums into its own places.

    grad_B, grad_C (blocks, batch, K, tokens, n), size_B numbers a block; partial (groups, K, n + 2, channels) for the
    gradients of A, D and bias; kept (programs, chunks, n, BLOCK_C) for the states before each chunk.
    """
    group, groups, k, directions = tl.program_id(0), tl.num_programs(0), tl.program_id(1), tl.num_programs(1)
    block, blocks = tl.program_id(2), tl.num_programs(2)
    inside = tl.arange(0, BLOCK_C)
    c = block * BLOCK_C + inside
    rates, skip, shift = _parameters(A, D, bias, k, c, channels, N)
    grad_B += block.to(tl.int64) * size_B
    grad_C += block.to(tl.int64) * size_B
    chunks = tl.cdiv(length, CHUNK)
    kept += ((group * directions + k) * blocks + block).to(tl.int64) * chunks * N * BLOCK_C

    sums = (_zeros(N, BLOCK_C), _zeros(N, BLOCK_C), tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32))
    for sequence in range(group * sequences // groups, (group + 1) * sequences // groups):
        path = paths + (k * windows + sequence % windows) * length
        origin = (sequence // windows * directions + k).to(tl.int64) * tokens

        h = _zeros(N, BLOCK_C)
        for i in range(chunks):
            for j in tl.static_range(N):
                tl.store(kept + (i * N + j) * BLOCK_C + inside, h[j])
            for j in tl.static_range(CHUNK):
                t = i * CHUNK + j
                step = _step(t, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
                h = _advance(h, step, rates, N)
        tl.debug_barrier()  # other threads may read what was kept

        sums = (_zeros(N, BLOCK_C), sums[1], sums[2], sums[3])
        for i in range(chunks - 1, -1, -1):
            t = i * CHUNK
            h_0 = ()
            for j in tl.static_range(N):
                h_0 += (tl.load(kept + (i * N + j) * BLOCK_C + inside),)
            step_0 = _step(t, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
            step_1 = _step(t + 1, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
            step_2 = _step(t + 2, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
            step_3 = _step(t + 3, path, length, origin, c, channels, u, delta, B, shift, SOFTPLUS, N)
            h_1 = _advance(h_0, step_0, rates, N)
            h_2 = _advance(h_1, step_1, rates, N)
            h_3 = _advance(h_2, step_2, rates, N)
            sums = _retreat(h_3, sums, step_3, rates, skip, c, channels, grad, C, grad_u, grad_delta, grad_B, grad_C, N)
            sums = _retreat(h_2, sums, step_2, rates, skip, c, channels, grad, C, grad_u, grad_delta, grad_B, grad_C, N)
            sums = _retreat(h_1, sums, step_1, rates, skip, c, channels, grad, C, grad_u, grad_delta, grad_B, grad_C, N)
            sums = _retreat(h_0, sums, step_0, rates, skip, c, channels, grad, C, grad_u, grad_delta, grad_B, grad_C, N)
        tl.debug_barrier()  # before the next sequence's states overwrite these

    partial += (group * directions + k).to(tl.int64) * (N + 2) * channels
    for i in tl.static_range(N):
        tl.store(partial + i * channels + c, sums[1][i], mask=c < channels)
    tl.store(partial + N * channels + c, sums[2], mask=c < channels)
    tl.store(partial + (N + 1) * channels + c, sums[3], mask=c < channels)


def scan(u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> Tensor:
    """Forward pass; see `merba.scan.window_scan`."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if reference.arithmetic_type(*inputs) == torch.float64:
        return reference.scan(*inputs, paths, delta_softplus)
    inputs = [x.contiguous() for x in (*inputs, paths)]
    (batch, directions, tokens, channels), n = u.shape, B.shape[-1]
    windows, length = paths.shape[1:]
    y = torch.empty_like(inputs[0])
    if y.numel() > 0:
        grid = (batch * windows, directions, triton.cdiv(channels, FORWARD["BLOCK_C"]))
        with on_device(u):
            _scan_forward[grid](*inputs, y, tokens, channels, windows, length, SOFTPLUS=delta_softplus, N=n, **FORWARD)
    return y


def scan_backward(grad, u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C, D, delta_bias, each in its input's type."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if reference.arithmetic_type(*inputs) == torch.float64:
        return reference.scan_backward(grad, *inputs, paths, delta_softplus)
    types = [x.dtype for x in inputs]
    inputs = [x.contiguous() for x in (*inputs, paths)]
    (batch, directions, tokens, channels), n = u.shape, B.shape[-1]
    windows, length = paths.shape[1:]
    sequences, blocks = batch * windows, triton.cdiv(channels, BACKWARD["BLOCK_C"])
    groups = min(GROUPS, sequences) if u.numel() > 0 else 0
    grad_u, grad_delta = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
    grad_B, grad_C = u.new_empty(2, blocks, batch, directions, tokens, n, dtype=torch.float32)
    partial = u.new_empty(groups, directions, n + 2, channels, dtype=torch.float32)
    if u.numel() > 0:
        chunks = groups * directions * blocks * triton.cdiv(length, CHUNK.value)
        kept = u.new_empty(chunks, n, BACKWARD["BLOCK_C"], dtype=torch.float32)
        outputs = (grad_u, grad_delta, grad_B, grad_C, partial, kept)
        numbers = (sequences, tokens, channels, windows, length, grad_B[0].numel())
        settings = {"SOFTPLUS": delta_softplus, "N": n, **BACKWARD}
        with on_device(u):
            _scan_backward[groups, directions, blocks](grad.contiguous(), *inputs, *outputs, *numbers, **settings)

    grad_A, grad_D, grad_bias = (x.clone() for x in partial.sum(0).split([n, 1, 1], dim=1))
    gradients = (
        grad_u, grad_delta, grad_A.transpose(1, 2), grad_B.sum(0), grad_C.sum(0), grad_D[:, 0], grad_bias[:, 0]
    )  # fmt: skip
    return tuple(g.to(kind).contiguous() for g, kind in zip(gradients, types, strict=True))
