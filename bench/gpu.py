"""Everything that MERba does on a CUDA GPU: checked against the reference, then timed.

    python bench/gpu.py [--only check scan mixer training]

Needs PyTorch for CUDA (with its Triton), NumPy and this package, nothing else of what the package uses; where mamba-ssm
is installed with its Mamba-1 kernel, that is checked and timed too. What fails is named and the rest goes on. Writes
bench/results/gpu.json after each part, and ends with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))  # this package, where it is not installed

import torch
from machine import RESULTS, machine, write
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from merba.models import create_model
from merba.models.heads import classification_loss
from merba.models.merba import Mixer
from merba.scan import BACKEND_VARIABLE, PRESETS, backends, window_conv, window_paths, window_scan

GOALS = {"mixer_times_as_fast": 2, "merba_base_flops_utilisation": 0.2}  # on one H100
BATCH, STATES, WINDOW = 128, 8, 7
STAGES = {"stage 2": (28, 128), "stage 3": (14, 256), "stage 4": (7, 512)}  # side of the map, inner channels
# What is checked: side of the map, inner channels, window.
MAPS = {name: (*sizes, WINDOW) for name, sizes in STAGES.items()}
MAPS |= {"edge windows": (10, 40, WINDOW), "whole map": (28, 40, None)}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {"fp32": 2e-5, "bf16": 5e-3, "fp16": 1e-3}  # relative, in the Euclidean norm; halves: their rounding
MODELS = ("merba_base", "mambavision_base")
CHECKED_MODELS = {  # small, and without chance
    "merba_nano": {"dropout": 0.0, "drop_path": 0.0},
    "mambavision_tiny": {"dim": 16, "stem_dim": 8, "image_size": 112, "drop_path": 0.0},
}
# Dense bf16 FLOP/s by data sheet, for the utilisation; another GPU's rate is that of a large matrix product.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200 NVL": 835e12, "H200": 989e12, "A100": 312e12
}  # fmt: skip

Calls = dict[str, Callable[[], dict]]  # label → what finds its figures


class Mismatch(Exception):
    """A CUDA path differs from the reference."""


def gpu_backends() -> list[str]:
    """The backends to measure: those with GPU kernels that are usable here."""
    return [name for name in ("triton", "mamba_ssm") if backends()[name][0]]


def milliseconds(function: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of a call. On a GPU calls wait in its queue behind a pause: as many as fit there hide Python's time."""
    for _ in range(3):
        function()
    if device == "cuda":
        torch.cuda._sleep(200_000_000)  # cycles, about 0.1 s
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for start, end in events:
            start.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return median(start.elapsed_time(end) for start, end in events)
    times = []
    for _ in range(repeats):
        begin = perf_counter()
        function()
        times.append(1e3 * (perf_counter() - begin))
    return median(times)


# ------------------------------------------------------------------------------------------------ the scan


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


def norm_error(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖; not finite where either has NaN."""
    return ((found.double() - expected).norm() / expected.norm()).item()


def check_scan(
    backend: str, side: int, channels: int, batch: int, kind: str, device: str, window: int | None = WINDOW
) -> dict[str, float | bool]:
    """Largest relative error of output and gradients, scan and convolution, against the reference in float64.

    Also whether gradients are the same bits when they are computed again: of Triton's kernels they must be.
    """
    inputs, paths, grad = scan_problem(side, channels, batch, TYPES[kind], device, window)
    positive = [x.detach().abs() if i in (1, 6) else x.detach() for i, x in enumerate(inputs)]  # Δ as it is, and its bias
    weights = torch.randn(len(paths), channels, 3, device=device)
    calls = {  # a function of arguments and backend, and the arguments
        "scan": (lambda x, by: scan_with(by, x, paths), inputs),
        "scan without softplus": (lambda x, by: scan_with(by, x, paths, softplus=False), positive),
        "conv": (lambda x, by: window_conv(*x, paths=paths, backend=by), [inputs[0][:, 0], weights[0]]),
        "conv of each direction's own": (lambda x, by: window_conv(*x, paths=paths, backend=by), [inputs[0], weights]),
    }
    errors = {}
    for name, (call, arguments) in calls.items():
        given = [x.detach().requires_grad_() for x in arguments]
        exact = [x.detach().double().requires_grad_() for x in arguments]
        y, expected = call(given, backend), call(exact, "reference")
        found = (y, *torch.autograd.grad(y, given, grad, retain_graph=True))
        again = torch.autograd.grad(y, given, grad)
        wanted = (expected, *torch.autograd.grad(expected, exact, grad.double()))
        errors[name] = max(norm_error(a, b) for a, b in zip(found, wanted, strict=True))
        errors[f"{name} repeats"] = repeats = all(torch.equal(a, b) for a, b in zip(found[1:], again, strict=True))
        if not errors[name] <= TOLERANCES[kind]:
            raise Mismatch(f"{backend}, {name}, {side}×{side}×{channels}, {kind}: relative error {errors[name]:.1e}")
        if backend == "triton" and not repeats:
            raise Mismatch(f"{backend}, {name}, {side}×{side}×{channels}, {kind}: gradients change from run to run")
    return errors


def check_corners(backend: str, device: str) -> dict[str, bool]:
    """NaN stays in its sequence, forward and backward; a batch of nothing gives nothing."""
    inputs, paths, grad = scan_problem(10, 40, 2, torch.float32, device)
    runs = []
    for broken in (False, True):
        given = [x.detach().clone() for x in inputs]
        if broken:
            given[0][1, 0, 0, 3] = torch.nan  # u of the first token, in a window at the top left
        given = [x.requires_grad_() for x in given]
        y = scan_with(backend, given, paths)
        runs.append([y, *torch.autograd.grad(y, given, grad)])
    (y, *_), (broken_y, *gradients) = runs
    apart = torch.ones(y.shape[:3], dtype=torch.bool, device=device)
    apart[1, 0, paths[0, 0][paths[0, 0] >= 0].long()] = False
    if not (broken_y[1, 0, :, 3].isnan().any() and torch.equal(broken_y[apart], y[apart])):
        raise Mismatch(f"{backend}: NaN in one sequence is lost, or changes others")
    if not all(gradients[i][apart].isfinite().all() for i in (0, 1, 3, 4)):
        raise Mismatch(f"{backend}: NaN in one sequence reaches the gradients of others")

    empty = [x.detach()[:0] if i in (0, 1, 3, 4) else x.detach() for i, x in enumerate(inputs)]
    empty = [x.requires_grad_() for x in empty]
    y = scan_with(backend, empty, paths)
    gradients = torch.autograd.grad(y, empty, grad[:0])
    if y.shape[0] or any(g.abs().sum() > 0 for g in gradients):
        raise Mismatch(f"{backend}: an empty batch has results")
    return {"NaN": True, "empty": True}


@contextmanager
def scan_by(backend: str):
    """Models compute with this backend's scan meanwhile."""
    before = os.environ.get(BACKEND_VARIABLE)
    os.environ[BACKEND_VARIABLE] = backend
    try:
        yield
    finally:
        os.environ.pop(BACKEND_VARIABLE) if before is None else os.environ.update({BACKEND_VARIABLE: before})


def check_model(name: str, backend: str, device: str, compiler: str = "inductor") -> dict[str, float]:
    """Relative difference of a model's gradients, eager and compiled whole, to those with the reference, in float32."""
    torch.manual_seed(0)
    model = create_model(name, 3, **CHECKED_MODELS[name]).to(device)
    flow = torch.randn(4, *model.input_shape, device=device)

    def gradients(scan: str, forward: Callable[[Tensor], Tensor]) -> Tensor:
        model.zero_grad()
        with scan_by(scan), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 has 10 bits
            forward(flow).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    expected = gradients("reference", model).double()
    torch.compiler.reset()  # what was compiled for another backend
    forms = {"eager": model, "compiled": torch.compile(model, fullgraph=True, backend=compiler)}
    errors = {form: norm_error(gradients(backend, forward), expected) for form, forward in forms.items()}
    for form, error in errors.items():
        if not error <= 1e-3:
            raise Mismatch(f"{name}, {form}: gradients with {backend} and with the reference differ by {error:.1e}")
    return errors


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
    times = {name: milliseconds(lambda call=call: run(call), device) for name, call in calls.items()}
    return times if len(times) == 1 else {**times, "times_as_fast": times["mamba_ssm_ms"] / times["merba_ms"]}


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
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.is_user_annotation and not event.name.startswith(("Memcpy", "Memset")) for event in events)


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


def checks(device: str) -> Calls:
    """All CUDA paths, on small batches."""
    calls = {}
    for backend in gpu_backends():
        for name, (side, channels, window) in MAPS.items():
            for kind in TYPES:
                calls[f"{backend}, {name}, {kind}"] = partial(check_scan, backend, side, channels, 2, kind, device, window)
        calls[f"{backend}, NaN and empty batch"] = partial(check_corners, backend, device)
        for model in CHECKED_MODELS:
            calls[f"{backend}, {model}"] = partial(check_model, model, backend, device)
    return calls


def scans(device: str) -> Calls:
    return {
        f"{stage}, {kind}, {backend}": partial(time_scan, backend, side, channels, BATCH, kind, device)
        for stage, (side, channels) in STAGES.items()
        for kind in ("fp32", "bf16")
        for backend in gpu_backends()
    }


def mixers(device: str) -> Calls:
    selective_scan_fn = None
    if "mamba_ssm" in gpu_backends():
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    return {stage: partial(time_mixer, side, inner, BATCH, device, selective_scan_fn) for stage, (side, inner) in STAGES.items()}


def trainings(device: str) -> Calls:
    rate, source = peak_rate(device)
    return {"peak": lambda: {"tflops": rate / 1e12, "from": source}} | {
        f"{name}, {'compiled' if compiled else 'eager'}": partial(time_training, name, BATCH, device, compiled, rate)
        for name in MODELS
        for compiled in (False, True)
    }


PARTS = {"check": checks, "scan": scans, "mixer": mixers, "training": trainings}


def measure(calls: Calls) -> tuple[dict[str, dict], list[str]]:
    """Figures of all calls, printed as they come, and what failed: time on a GPU is too dear to stop there."""
    figures, failed = {}, []
    for label, call in calls.items():
        try:
            figures[label] = call()
        except Exception as problem:  # a kernel that doesn't compile, memory that doesn't suffice, a wrong result
            figures[label] = {"failed": f"{type(problem).__name__}: {problem}"}
            failed.append(label)
        row = figures[label].items()
        cells = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row)
        print(f"  {label:32}", ", ".join(cells), flush=True)
    return figures, failed


def kept(figures: dict) -> dict:
    """What an earlier run of this script, with --only, has measured on the same machine with the same versions."""
    written = RESULTS / "gpu.json"
    before = json.loads(written.read_text()) if written.exists() else {"machine": {}}
    same = ("processor", "gpu", "python", "versions")
    return before if all(before["machine"].get(key) == figures["machine"][key] for key in same) else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu.py measures CUDA kernels, but PyTorch sees no CUDA device here; nothing was measured")

    figures = {"machine": machine("triton", "mamba-ssm"), "goals": GOALS, "batch": BATCH, "states": STATES, "window": WINDOW}
    figures = kept(figures) | figures
    print(figures["machine"]["gpu"])
    for name, (usable, reason) in backends().items():
        print(f"  {name:9} {'usable' if usable else 'not usable'}: {reason}")
    failed = []
    for part in options.only:
        print(part)
        figures[part], failed_here = measure(PARTS[part]("cuda"))
        failed += failed_here
        print("written:", write("gpu.json", figures).name)
        torch.cuda.empty_cache()
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
