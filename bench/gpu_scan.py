"""bench/gpu.py's times of the scan: each stage, the backward pass with other launches, and MERba's mixer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from gpu_setup import STATES, TYPES, WINDOW, Calls, Mismatch, Setup, milliseconds, norm_error
from torch import Tensor
from torch.nn import functional as F

from merba.models.merba import Mixer
from merba.scan import PRESETS, window_paths, window_scan


def scans(setup: Setup) -> Calls:
    """Forward and backward pass of every stage's scan."""
    return {
        f"{stage}, {kind}, {backend}": partial(time_scan, backend, *sizes, setup.batch, kind, setup.device, setup.repeats)
        for stage, sizes in setup.stages.items()
        for kind in ("fp32", "bf16")
        for backend in setup.usable()
    }


def launches(setup: Setup) -> Calls:
    """The backward scan with other channels per program, warps and registers than in merba/scan/triton.py."""
    return {
        f"channels {channels}, warps {warps}, registers {most or 'any'}": partial(time_launch, setup, channels, warps, most)
        for channels, warps, most in setup.launches
    }


def mixers(setup: Setup) -> Calls:
    """MERba's mixer, and the same around mamba-ssm's kernel if that is installed."""
    selective_scan_fn = None
    if "mamba_ssm" in setup.usable():
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    return {
        stage: partial(time_mixer, *sizes, setup.batch, setup.device, selective_scan_fn, setup.repeats)
        for stage, sizes in setup.stages.items()
    }


def scan_problem(side: int, channels: int, batch: int, kind: torch.dtype, device: str, window: int | None = WINDOW):
    """A stage's scan: inputs u, delta, B, C of `kind`, A, D, delta_bias in float32; paths; gradient of the output."""
    random = torch.Generator(device).manual_seed(side)
    paths = torch.from_numpy(window_paths(PRESETS["merba"], side, side, window)).to(device)
    directions, tokens = len(paths), (batch, len(paths), side * side)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, device=device)

    u, delta, grad = (normal(*tokens, channels).to(kind) for _ in range(3))
    B, C = (normal(*tokens, STATES).to(kind) for _ in range(2))
    A = -8 * torch.rand(directions, channels, STATES, generator=random, device=device)
    inputs = [u, delta, A, B, C, normal(directions, channels), normal(directions, channels)]
    return [x.requires_grad_() for x in inputs], paths, grad


def scan_with(backend: str, inputs: list[Tensor], paths: Tensor, softplus: bool = True) -> Tensor:
    return window_scan(*inputs[:6], paths=paths, delta_bias=inputs[6], delta_softplus=softplus, backend=backend)


def time_scan(backend: str, side: int, channels: int, batch: int, kind: str, device: str, repeats: int = 20) -> dict[str, float]:
    """Milliseconds of the forward and of the backward pass of a stage's scan in four directions."""
    inputs, paths, grad = scan_problem(side, channels, batch, TYPES[kind], device)
    with torch.no_grad():
        forward = milliseconds(lambda: scan_with(backend, inputs, paths), device, repeats)
    y = scan_with(backend, inputs, paths)
    backward = milliseconds(lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True), device, repeats)
    return {"forward_ms": forward, "backward_ms": backward}


def time_launch(setup: Setup, channels: int, warps: int, registers: int | None) -> dict[str, float]:
    """Milliseconds of the backward pass of every stage's scan in bf16 with this launch; gradients must stay the same."""
    from merba.scan import triton

    usual = triton.BACKWARD
    launch = {"BLOCK_C": channels, "num_warps": warps} | ({} if registers is None else {"maxnreg": registers})
    times = {}
    for stage, (side, inner) in setup.stages.items():
        inputs, paths, grad = scan_problem(side, inner, setup.batch, torch.bfloat16, setup.device)
        y = scan_with("triton", inputs, paths)

        def backward(y=y, inputs=inputs, grad=grad) -> tuple[Tensor, ...]:
            return torch.autograd.grad(y, inputs, grad, retain_graph=True)

        expected = backward()
        try:
            triton.BACKWARD = launch
            for ours, theirs in zip(backward(), expected, strict=True):
                if not norm_error(ours, theirs.double()) <= 1e-3:
                    raise Mismatch(f"{stage}: gradients differ by {norm_error(ours, theirs.double()):.1e}")
            times[f"{stage}_ms"] = milliseconds(backward, setup.device, setup.repeats)
        finally:
            triton.BACKWARD = usual
    return {**times, "all_ms": sum(times.values())}


def best_launch(figures: dict[str, dict]) -> dict:
    """The fastest of the measured launches over all stages, and the usual one's time."""
    times = {label: row["all_ms"] for label, row in figures.items() if "all_ms" in row}
    if not times:
        return {}
    best = min(times, key=times.get)
    return {"best": best, "best_ms": times[best], "usual_ms": times.get(next(iter(figures)))}


def gathered_mixer(mixer: Mixer, tokens: Tensor, paths: Tensor, selective_scan_fn: Callable) -> tuple[Tensor, Tensor]:
    """What Mixer computes, as it is usually written around mamba-ssm's kernel.

    After the input projection the tokens of all paths are gathered, every window of every direction is a batch item
    (channels, length), and results are gathered back to their places. The windows must fill the map.
    """
    (directions, windows, _), count = paths.shape, tokens.shape[1]
    order = paths.flatten(1).long()
    place = order.argsort(1) + count * torch.arange(directions, device=order.device)[:, None]
    xz = F.linear(tokens, mixer.in_proj[0]).index_select(1, order.flatten())
    xz = xz.unflatten(1, (directions * windows, -1)).flatten(0, 1).mT.contiguous()
    x, z = F.silu(F.conv1d(xz, mixer.conv[0][:, None].to(xz.dtype), padding=1, groups=xz.shape[1])).chunk(2, dim=1)
    dt, B, C = F.linear(x.mT, mixer.x_proj[0]).split(mixer.sizes, dim=-1)
    dt, B, C = F.linear(dt, mixer.dt_proj[0]).mT.contiguous(), B.mT.contiguous(), C.mT.contiguous()
    A, D, bias = -torch.exp(mixer.A_log[0].float()), mixer.D[0].float(), mixer.dt_bias[0].float()
    y = selective_scan_fn(x.contiguous(), dt, A, B, C, D, delta_bias=bias, delta_softplus=True)
    parts = (part.mT.reshape(len(tokens), directions * count, -1) for part in (y, z))
    return tuple(part.index_select(1, place.flatten()).unflatten(1, (directions, count)) for part in parts)


def time_mixer(
    side: int, inner: int, batch: int, device: str, selective_scan_fn: Callable | None, repeats: int = 20
) -> dict[str, float]:
    """Milliseconds forward and backward of the four-direction mixer in bf16, ours and, given its scan, mamba-ssm's."""
    torch.manual_seed(0)
    mixer = Mixer(2 * inner, sets=1, state=STATES).to(device)
    paths = torch.from_numpy(window_paths(PRESETS["merba"], side, side, WINDOW)).to(device)
    tokens = torch.randn(batch, side * side, 2 * inner, device=device, requires_grad=True)
    leaves = [tokens, *mixer.parameters()]

    def run(forward: Callable) -> list[Tensor]:
        with torch.autocast(device, torch.bfloat16):
            y, z = forward()
        return [y, z, *torch.autograd.grad([y, z], leaves, [torch.ones_like(y), torch.ones_like(z)])]

    calls = {"merba_ms": lambda: mixer(tokens, paths)}
    if selective_scan_fn is not None:
        calls["mamba_ssm_ms"] = lambda: gathered_mixer(mixer, tokens, paths, selective_scan_fn)
        ours, theirs = (torch.cat([x.detach().flatten() for x in run(call)]) for call in calls.values())
        if not norm_error(ours, theirs.double()) <= 3e-2:
            raise Mismatch(f"the two mixers of side {side} differ by {norm_error(ours, theirs.double()):.1e}")
    times = {name: milliseconds(lambda call=call: run(call), device, repeats) for name, call in calls.items()}
    return times if len(times) == 1 else {**times, "times_as_fast": times["mamba_ssm_ms"] / times["merba_ms"]}
