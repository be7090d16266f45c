"""Everything that MERba does on a CUDA GPU: checked against the reference, then timed.

    python bench/gpu.py [--only check scan mixer training]

Needs PyTorch for CUDA (with its Triton), NumPy and this package; where mamba-ssm is installed with its Mamba-1 kernel,
that is checked and timed too. Writes bench/results/gpu.json. The goals on one H100: the four-direction mixer at least
twice as fast as with mamba-ssm's kernel, training of merba_base at 20 % model-FLOPs utilisation in bf16.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from statistics import median
from time import perf_counter

import torch
from machine import machine, write
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from merba.models import create_model
from merba.models.heads import classification_loss
from merba.models.merba import Mixer
from merba.scan import PRESETS, VARIABLE, backends, window_conv, window_paths, window_scan

BATCH, STATES, WINDOW = 128, 8, 7
STAGES = {"stage 2": (28, 128), "stage 3": (14, 256), "stage 4": (7, 512)}  # side of the map, inner channels
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODELS = ("merba_base", "mambavision_base")
# Dense bf16 FLOP/s by data sheet, for the utilisation; another GPU's rate is that of a large matrix product.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
TOLERANCES = {"fp32": 2e-5, "bf16": 2e-2}  # relative, in the Euclidean norm


def gpu_backends() -> list[str]:
    """The backends to measure: those with GPU kernels that are usable here."""
    return [name for name in ("triton", "mamba_ssm") if backends()[name][0]]


def milliseconds(function: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of a call, on the GPU by events on its stream."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            function()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            begin = perf_counter()
            function()
            times.append(1e3 * (perf_counter() - begin))
    return median(times)


# ------------------------------------------------------------------------------------------------ the scan


def scan_problem(side: int, channels: int, batch: int, kind: torch.dtype, device: str, window: int = WINDOW):
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


def scan_with(backend: str, inputs: list[Tensor], paths: Tensor) -> Tensor:
    return window_scan(*inputs[:6], paths=paths, delta_bias=inputs[6], delta_softplus=True, backend=backend)


def norm_error(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖; not finite where either has NaN."""
    return ((found.double() - expected).norm() / expected.norm()).item()


def check_scan(backend: str, side: int, channels: int, batch: int, kind: str, device: str, window: int = WINDOW) -> dict:
    """Largest relative error of output and gradients, scan and convolution, against the reference in float64."""
    inputs, paths, grad = scan_problem(side, channels, batch, TYPES[kind], device, window)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    u, weight = inputs[0][:, 0].detach().requires_grad_(), torch.randn(channels, 3, device=device, requires_grad=True)
    calls = {
        "scan": (lambda arguments, name: scan_with(name, arguments, paths), inputs, exact),
        "conv": (
            lambda arguments, name: window_conv(*arguments, paths=paths, backend=name),
            [u, weight], [x.detach().double().requires_grad_() for x in (u, weight)],
        ),
    }  # fmt: skip
    errors = {}
    for name, (call, arguments, exact_arguments) in calls.items():
        y, expected = call(arguments, backend), call(exact_arguments, "reference")
        found = (y, *torch.autograd.grad(y, arguments, grad, retain_graph=True))
        again = torch.autograd.grad(y, arguments, grad)
        wanted = (expected, *torch.autograd.grad(expected, exact_arguments, grad.double()))
        errors[name] = max(norm_error(a, b) for a, b in zip(found, wanted, strict=True))
        errors[f"{name} repeats"] = all(torch.equal(a, b) for a, b in zip(found[1:], again, strict=True))
        if not errors[name] <= TOLERANCES[kind]:
            raise SystemExit(f"{backend} {name} {side}×{side}×{channels} {kind}: relative error {errors[name]:.1e}")
    return errors


@contextmanager
def scan_by(backend: str):
    """Models compute with this backend's scan meanwhile."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})


def check_model(backend: str, device: str) -> float:
    """Relative difference of a whole model's gradients with the backend's scan and with the reference, in float32."""
    torch.manual_seed(0)
    model = create_model("merba_nano", 3, dropout=0.0, drop_path=0.0).to(device)
    flow = torch.randn(4, *model.input_shape, device=device)
    gradients = []
    for name in (backend, "reference"):
        model.zero_grad()
        with scan_by(name):
            model(flow).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    error = norm_error(gradients[0], gradients[1].double())
    if not error <= 1e-3:
        raise SystemExit(f"merba_nano's gradients with {backend} and with the reference differ by {error:.1e}")
    return error


def time_scan(backend: str, side: int, channels: int, batch: int, kind: str, device: str) -> dict[str, float]:
    """Milliseconds of the forward and of the backward pass of a stage's scan in four directions."""
    inputs, paths, grad = scan_problem(side, channels, batch, TYPES[kind], device)
    with torch.no_grad():
        forward = milliseconds(lambda: scan_with(backend, inputs, paths), device)
    y = scan_with(backend, inputs, paths)
    backward = milliseconds(lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True), device)
    return {"forward_ms": forward, "backward_ms": backward}


# ------------------------------------------------------------------------------------------------ the mixer


def gathered_mixer(mixer: Mixer, tokens: Tensor, paths: Tensor, selective_scan_fn: Callable) -> tuple[Tensor, Tensor]:
    """What Mixer computes, as one writes it around mamba-ssm's kernel.

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


def time_mixer(side: int, inner: int, batch: int, device: str, selective_scan_fn: Callable | None) -> dict[str, float]:
    """Milliseconds forward and backward of the four-direction mixer in bf16, ours and, given its scan, mamba-ssm's."""
    torch.manual_seed(0)
    mixer = Mixer(2 * inner, sets=1, state=STATES).to(device)
    paths = torch.from_numpy(window_paths(PRESETS["merba"], side, side, WINDOW)).to(device)
    tokens = torch.randn(batch, side * side, 2 * inner, device=device, requires_grad=True)
    leaves = [tokens, *mixer.parameters()]

    def run(forward: Callable) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            y, z = forward()
        gradients = torch.autograd.grad([y, z], leaves, [torch.ones_like(y), torch.ones_like(z)])
        return torch.cat([y.detach().flatten(), z.detach().flatten(), *(g.flatten() for g in gradients)])

    calls = {"merba_ms": lambda: mixer(tokens, paths)}
    if selective_scan_fn is not None:
        calls["mamba_ssm_ms"] = lambda: gathered_mixer(mixer, tokens, paths, selective_scan_fn)
        ours, theirs = (run(call) for call in calls.values())
        if not norm_error(ours, theirs.double()) <= 3e-2:
            raise SystemExit(f"the two mixers of side {side} differ by {norm_error(ours, theirs.double()):.1e}")
    return {name: milliseconds(lambda call=call: run(call), device) for name, call in calls.items()}


# ------------------------------------------------------------------------------------------------ training


def peak_rate(device: str) -> tuple[float, str]:
    """FLOP/s that the GPU could do in bf16, and where that number is from."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for known, rate in PEAKS.items():
        if known in name:
            return rate, "data sheet"
    size = 8192 if device == "cuda" else 256
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / (1e-3 * milliseconds(lambda: a @ a, device)), "a matrix product"


def step_flops(model: torch.nn.Module, batch: int, device: str) -> int:
    """FLOPs of a training step by the usual rule: three times those of the forward pass's matrices."""
    flow = torch.zeros(1, *model.input_shape, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(flow)
    return 3 * batch * counter.get_total_flops()


def kernel_launches(step: Callable[[], object]) -> int:
    """GPU kernels that a call starts."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    names = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in names)


def time_training(name: str, batch: int, device: str, compiled: bool, rate: float) -> dict[str, float]:
    """A training step (bf16 autocast, channels-last, fused AdamW): samples/s, utilisation, peak memory, launches."""
    torch.manual_seed(0)
    model = create_model(name, 7).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    flow = torch.randn(batch, *model.input_shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(7, (batch,), device=device)
    flops = step_flops(model.eval(), batch, device)
    forward = torch.compile(model.train()) if compiled else model.train()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(flow)
        loss = classification_loss(outputs, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = 1e-3 * milliseconds(step, device)
    return {
        "samples_per_s": batch / seconds,
        "flops_utilisation": flops / seconds / rate,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
        "kernel_launches": kernel_launches(step) if on_gpu else None,
    }


# ------------------------------------------------------------------------------------------------ the command


def check(device: str) -> dict:
    """All checks on small batches; also a map that windows of 7 do not fill."""
    figures = {}
    for backend in gpu_backends():
        for stage, (side, channels) in {**STAGES, "edge windows": (10, 40)}.items():
            for kind in TYPES:
                figures[f"{backend}, {stage}, {kind}"] = errors = check_scan(backend, side, channels, 2, kind, device)
                print(f"  {backend:9} {stage:13} {kind}", *(f"{name} {error:.1e}" for name, error in errors.items()))
        figures[f"{backend}, merba_nano"] = check_model(backend, device)
    return figures


def scans(device: str) -> dict:
    figures = {}
    for stage, (side, channels) in STAGES.items():
        for kind in TYPES:
            for backend in gpu_backends():
                row = figures[f"{stage}, {kind}, {backend}"] = time_scan(backend, side, channels, BATCH, kind, device)
                print(f"  {stage} {kind} {backend:9} " + ", ".join(f"{key} {ms:.3f}" for key, ms in row.items()))
    return figures


def mixers(device: str) -> dict:
    selective_scan_fn = None
    if "mamba_ssm" in gpu_backends():
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    figures = {}
    for stage, (side, inner) in STAGES.items():
        row = figures[stage] = time_mixer(side, inner, BATCH, device, selective_scan_fn)
        if len(row) == 2:
            row["times_as_fast"] = row["mamba_ssm_ms"] / row["merba_ms"]
        print(f"  {stage} " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    return figures


def training(device: str) -> dict:
    rate, source = peak_rate(device)
    figures = {"peak_tflops": rate / 1e12, "peak_from": source}
    for name in MODELS:
        for compiled in (False, True):
            label = f"{name}, {'compiled' if compiled else 'eager'}"
            row = figures[label] = time_training(name, BATCH, device, compiled, rate)
            print(f"  {label:27} " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    return figures


PARTS = {"check": check, "scan": scans, "mixer": mixers, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu.py measures CUDA kernels, but PyTorch sees no CUDA device here; nothing was measured")

    figures = {"machine": machine("triton", "mamba-ssm"), "batch": BATCH, "states": STATES, "window": WINDOW}
    print(figures["machine"]["gpu"])
    for name, (usable, reason) in backends().items():
        print(f"  {name:9} {'usable' if usable else 'not usable'}: {reason}")
    for part in options.only:
        print(part)
        figures[part] = PARTS[part]("cuda")
        torch.cuda.empty_cache()
    print("written:", write("gpu.json", figures).name)


if __name__ == "__main__":
    main()
