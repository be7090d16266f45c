"""The scan as a plain loop over tokens in PyTorch: any device, any float type. The slow reference for tests.

For each channel with its state h (n numbers, 0 before the first token), step t of a path does

    Δ = softplus(delta_t + delta_bias)                  (or without softplus)
    h = exp(Δ A) h + Δ B_t u_t                          (Gu & Dao 2023, "Mamba", equations 2 and 4)
    y_t = C_t · h + D u_t

Arguments are those of `merba.scan.ops`; arithmetic is float32, or float64 if an input is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SOFTPLUS_IS_IDENTITY_ABOVE = 20.0


def arithmetic_type(*tensors: Tensor) -> torch.dtype:
    """float64 if any of the tensors is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def gather(x: Tensor, paths: Tensor) -> Tensor:
    """(batch, 1 or K, tokens, channels) read along the paths → (batch, K, windows, length, channels); padding is 0."""
    directions, windows, length = paths.shape
    batch, _, tokens, channels = x.shape
    flat = paths.reshape(1, directions, windows * length, 1).long()
    index = flat.clamp(min=0).expand(batch, -1, -1, channels)
    read = x.expand(-1, directions, -1, -1).gather(2, index).masked_fill(flat < 0, 0)
    return read.reshape(batch, directions, windows, length, channels)


def scatter(x: Tensor, paths: Tensor, tokens: int) -> Tensor:
    """(batch, K, windows, length, channels) written back to each token's place → (batch, K, tokens, channels)."""
    batch, directions, windows, length, channels = x.shape
    flat = paths.reshape(1, directions, windows * length, 1).long()
    index = flat.where(flat >= 0, tokens).expand(batch, -1, -1, channels)  # padding goes to one place past the end
    written = x.new_zeros(batch, directions, tokens + 1, channels)
    written.scatter_(2, index, x.reshape(batch, directions, windows * length, channels))
    return written[:, :, :tokens].contiguous()


def _steps(u, delta, A, B, C, D, delta_bias, paths, delta_softplus):
    """Everything the recurrence needs, in its arithmetic type and in scan order; Δ before and after softplus."""
    kind = arithmetic_type(u, delta, A, B, C, D, delta_bias)
    u, delta, B, C = (gather(x.to(kind), paths) for x in (u, delta, B, C))
    A, D, delta_bias = A.to(kind)[:, None], D.to(kind)[:, None], delta_bias.to(kind)[:, None]
    raw = delta + delta_bias[:, :, None]
    dt = F.softplus(raw, threshold=SOFTPLUS_IS_IDENTITY_ABOVE) if delta_softplus else raw
    return u, raw, dt, A, B, C, D


def _states(u: Tensor, dt: Tensor, A: Tensor, B: Tensor):
    """Yield the state (batch, K, windows, channels, n) after each token."""
    batch, directions, windows, length, channels = u.shape
    state = u.new_zeros(batch, directions, windows, channels, B.shape[-1])
    for t in range(length):
        decay = torch.exp(dt[..., t, :, None] * A)
        state = decay * state + (dt * u)[..., t, :, None] * B[..., t, None, :]
        yield state


def scan(u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> Tensor:
    """Forward pass; see `merba.scan.window_scan`."""
    tokens, out_type = u.shape[2], u.dtype
    u, _, dt, A, B, C, D = _steps(u, delta, A, B, C, D, delta_bias, paths, delta_softplus)
    y = D[:, :, None] * u
    for t, state in enumerate(_states(u, dt, A, B)):
        y[..., t, :] += (state * C[..., t, None, :]).sum(-1)
    return scatter(y, paths, tokens).to(out_type)


def scan_backward(grad, u, delta, A, B, C, D, delta_bias, paths, delta_softplus: bool) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C, D, delta_bias, each in its input's type."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    tokens = u.shape[2]
    u, raw, dt, A, B, C, D = _steps(*inputs, paths, delta_softplus)
    grad = gather(grad.to(u.dtype), paths)
    states = list(_states(u, dt, A, B))

    grad_u, grad_dt = D[:, :, None] * grad, torch.zeros_like(u)
    grad_A, grad_B, grad_C = torch.zeros_like(A), torch.zeros_like(B), torch.zeros_like(C)
    grad_state = u.new_zeros(*u.shape[:3], *A.shape[2:])
    for t in reversed(range(len(states))):
        grad_C[..., t, :] = (grad[..., t, :, None] * states[t]).sum(-2)
        grad_state = grad_state + grad[..., t, :, None] * C[..., t, None, :]
        grad_B[..., t, :] = (grad_state * (dt * u)[..., t, :, None]).sum(-2)
        grad_product = (grad_state * B[..., t, None, :]).sum(-1)
        grad_u[..., t, :] += grad_product * dt[..., t, :]
        grad_dt[..., t, :] = grad_product * u[..., t, :]
        grad_state = grad_state * torch.exp(dt[..., t, :, None] * A)
        if t > 0:
            grad_exponent = grad_state * states[t - 1]
            grad_dt[..., t, :] += (grad_exponent * A).sum(-1)
            grad_A = grad_A + (grad_exponent * dt[..., t, :, None]).sum((0, 2))[:, None]
    if delta_softplus:
        grad_dt = torch.where(raw > SOFTPLUS_IS_IDENTITY_ABOVE, grad_dt, grad_dt * torch.sigmoid(raw))

    gradients = (
        scatter(grad_u, paths, tokens),
        scatter(grad_dt, paths, tokens),
        grad_A[:, 0],
        scatter(grad_B, paths, tokens),
        scatter(grad_C, paths, tokens),
        (grad * u).sum((0, 2, 3)),
        grad_dt.sum((0, 2, 3)),
    )
    return tuple(g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True))


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """The previous and the next token of every token of a path (..., length, channels); 0 beyond its ends."""
    return F.pad(x, (0, 0, 1, 0))[..., :-1, :], F.pad(x, (0, 0, 0, 1))[..., 1:, :]


def _preactivation(x: Tensor, weight: Tensor) -> Tensor:
    previous, following = _neighbours(x)
    taps = weight[:, None, None]
    return taps[..., 0] * previous + taps[..., 1] * x + taps[..., 2] * following


def conv(x: Tensor, weight: Tensor, paths: Tensor) -> Tensor:
    """Forward pass; see `merba.scan.window_conv`."""
    kind = arithmetic_type(x, weight)
    y = F.silu(_preactivation(gather(x.to(kind), paths), weight.to(kind)))
    return scatter(y, paths, x.shape[2]).to(x.dtype)


def conv_backward(grad: Tensor, x: Tensor, weight: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, each in its input's type."""
    kind = arithmetic_type(x, weight)
    read, taps = gather(x.to(kind), paths), weight.to(kind)
    p = _preactivation(read, taps)
    sigmoid = torch.sigmoid(p)
    grad_p = gather(grad.to(kind), paths) * (sigmoid * (1 + p * (1 - sigmoid)))

    previous, following = _neighbours(grad_p)  # tap 0 takes a token to the next one, so its gradient comes from there
    grad_x = taps[:, None, None, :, 0] * following + taps[:, None, None, :, 1] * grad_p
    grad_x = scatter(grad_x + taps[:, None, None, :, 2] * previous, paths, x.shape[2])
    grad_x = grad_x.sum(1, keepdim=True) if x.shape[1] == 1 else grad_x
    before, after = _neighbours(read)
    grad_weight = torch.stack([(grad_p * shifted).sum((0, 2, 3)) for shifted in (before, read, after)], dim=-1)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)
