"""bench/gpu.py's checks: all CUDA paths against the reference, on small batches."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial

import torch
from gpu_scan import scan_problem, scan_with
from gpu_setup import TYPES, WINDOW, Calls, Mismatch, Setup, milliseconds, norm_error
from torch import Tensor
from torch.nn.functional import interpolate

from merba.models import create_model
from merba.preprocessing.flow_settings import FlowSettings
from merba.preprocessing.tv_l1_torch import tv_l1_batch
from merba.scan import BACKEND_VARIABLE, window_conv

TV_L1 = FlowSettings(["u", "v"], "keep", "numba", 0.25, 0.15, 0.3, 5, 5, 0.01, 30, 10, 0.8, 0.0, 5)
"""The schema's defaults, written out, because reading the schema needs PyYAML, which a rented machine may lack."""
TOLERANCES = {"fp32": 2e-5, "bf16": 5e-3, "fp16": 1e-3}  # relative, in the Euclidean norm; halves: their rounding
CHECKED_MODELS = {  # small, and without randomness
    "merba_nano": {"dropout": 0.0, "drop_path": 0.0},
    "mambavision_tiny": {"dim": 16, "stem_dim": 8, "image_size": 112, "drop_path": 0.0},
}


def checks(setup: Setup) -> Calls:
    """Every backend on every map in every type, in special cases, and in models; and TV-L1."""
    calls = {"TV-L1": partial(check_flow, setup.size, min(setup.batch, 32), setup.device)}
    for backend in setup.usable():
        for name, (side, channels, window) in setup.maps.items():
            for kind in TYPES:
                calls[f"{backend}, {name}, {kind}"] = partial(check_scan, backend, side, channels, 2, kind, setup.device, window)
        calls[f"{backend}, NaN and empty batch"] = partial(check_corners, backend, setup.device)
        for model in CHECKED_MODELS:
            calls[f"{backend}, {model}"] = partial(check_model, model, backend, setup.device, setup.compiler)
    return calls


def check_scan(
    backend: str, side: int, channels: int, batch: int, kind: str, device: str, window: int | None = WINDOW
) -> dict[str, float | bool]:
    """Largest relative error of output and gradients, scan and convolution, against the reference in float64.

    Also whether gradients are the same bits when they are computed again, which those of Triton's kernels must be.
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
        results = (y, *torch.autograd.grad(y, given, grad, retain_graph=True))
        again = torch.autograd.grad(y, given, grad)
        wanted = (expected, *torch.autograd.grad(expected, exact, grad.double()))
        errors[name] = max(norm_error(a, b) for a, b in zip(results, wanted, strict=True))
        errors[f"{name} repeats"] = repeats = all(torch.equal(a, b) for a, b in zip(results[1:], again, strict=True))
        if not errors[name] <= TOLERANCES[kind]:
            raise Mismatch(f"{backend}, {name}, {side}×{side}×{channels}, {kind}: relative error {errors[name]:.1e}")
        if backend == "triton" and not repeats:
            raise Mismatch(f"{backend}, {name}, {side}×{side}×{channels}, {kind}: gradients change from run to run")
    return errors


def check_corners(backend: str, device: str) -> dict[str, bool]:
    """NaN stays in its sequence, forward and backward; an empty batch gives an empty result."""
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
    """Within the block, models compute with this backend's scan."""
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
    torch.compiler.reset()  # forget what was compiled for another backend
    forms = {"eager": model, "compiled": torch.compile(model, fullgraph=True, backend=compiler)}
    errors = {form: norm_error(gradients(backend, forward), expected) for form, forward in forms.items()}
    for form, error in errors.items():
        if not error <= 1e-3:
            raise Mismatch(f"{name}, {form}: gradients with {backend} and with the reference differ by {error:.1e}")
    return errors


def check_flow(side: int, pairs: int, device: str) -> dict[str, float]:
    """TV-L1 flow of textures that move ¼ px right and ½ px down: its error, the difference to the CPU's (px), ms per pair."""
    torch.manual_seed(0)
    grey = 128 + 40 * interpolate(torch.randn(pairs, 1, side // 2, side // 2), size=4 * (side + 1), mode="bicubic")[:, 0]
    grey = grey.clamp(0, 255).byte()  # four times as fine, so that a quarter of a pixel is one
    images = [part[:, :side, :side].to(device) for part in (grey[:, 2::4, 1::4], grey[:, ::4, ::4])]
    flow = tv_l1_batch(*images, TV_L1).cpu()
    few = tv_l1_batch(*(image[:2].cpu() for image in images), TV_L1)
    edge = side // 8
    motion = flow[..., edge:-edge, edge:-edge].mean((0, 2, 3))
    figures = {
        "error": (motion - torch.tensor([0.25, 0.5])).norm().item(),
        "difference": (flow[:2] - few).norm(dim=1).mean().item(),
    }
    if not (figures["error"] < 0.05 and figures["difference"] < 0.01):
        raise Mismatch(f"TV-L1: off by {figures['error']:.3f} px, and by {figures['difference']:.3f} px from the CPU's")
    return figures | {"ms_a_pair": milliseconds(lambda: tv_l1_batch(*images, TV_L1), device, 1) / pairs}
