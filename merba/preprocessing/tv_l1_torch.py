"""`merba.preprocessing.tv_l1` for many pairs at once, in PyTorch's operations: for GPUs.

The steps and the symbols are the same; a pair that has stopped iterating waits for the others. Resizing, remapping and
the median agree with OpenCV's functions, except in the last digits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from merba.preprocessing.flow_settings import FLAT, SMALLEST, FlowSettings


@torch.inference_mode()
def tv_l1_batch(first: Tensor, second: Tensor, settings: FlowSettings) -> Tensor:
    """Flow (n, 2, H, W), float32, px right and px down, that takes each pixel of `first` to its place in `second`.

    Both are grey images (n, H, W), uint8, on the device that computes.
    """
    step = settings.scale_step
    pyramid = [torch.stack([first, second], 1).float()]
    while len(pyramid) < settings.scales:
        size = [round(side * step) for side in pyramid[-1].shape[2:]]
        if min(size) < SMALLEST:
            break
        pyramid.append(resize(pyramid[-1], size, (1 / step, 1 / step)))
    *finer, coarsest = pyramid
    flow = _solve_scale(*coarsest.unbind(1), torch.zeros_like(coarsest), settings)
    for pair in reversed(finer):
        size = pair.shape[2:]
        ratios = [there / here for there, here in zip(flow.shape[2:], size, strict=True)]
        flow = _solve_scale(*pair.unbind(1), resize(flow, size, ratios) / step, settings)
    return flow


def _solve_scale(first: Tensor, second: Tensor, flow: Tensor, settings: FlowSettings) -> Tensor:
    """The improved flow (n, 2, H, W) of one scale's images (n, H, W)."""
    limit, step = settings.lambda_ * settings.theta, settings.tau / settings.theta
    enough = settings.epsilon**2 * first[0].numel()
    image = torch.stack([second, *_central_differences(second)], 1)
    dual = flow.new_zeros(2, *flow.shape)  # p of u and v: along x, along y
    for _ in range(settings.warps):
        warped = remap(image, flow)
        gradient = warped[:, 1:]
        rho = warped[:, 0] - (gradient * flow).sum(1) - first
        square = gradient.square().sum(1).clamp(min=FLAT)
        running = torch.ones_like(flow[:, :1, :1, :1], dtype=torch.bool)
        for iteration in range(settings.outer_iterations * settings.inner_iterations):
            if iteration % settings.inner_iterations == 0 and settings.median > 1:
                flow = torch.where(running, median(flow, settings.median), flow)
            residual = rho + (gradient * flow).sum(1)
            shift = (-residual / square).clamp(-limit, limit)
            move = shift[:, None] * gradient + settings.theta * _divergence(dual)
            flow = torch.where(running, flow + move, flow)
            dual = torch.where(running, _ascend(dual, flow, step), dual)
            running = running & (move.square().sum((1, 2, 3), keepdim=True) > enough)
            if not running.any():
                break
    return flow


def _central_differences(image: Tensor) -> tuple[Tensor, Tensor]:
    """∂/∂x and ∂/∂y of images (n, H, W)."""
    wide = pad(image[:, None], (1, 1, 1, 1), "replicate")[:, 0]
    return (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2, (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2


def _divergence(dual: Tensor) -> Tensor:
    """div p (n, 2, H, W) by backward differences; p is 0 beyond the edges."""
    right, down = dual
    return right - pad(right, (1, 0))[..., :-1] + down - pad(down, (0, 0, 1, 0))[..., :-1, :]


def _ascend(dual: Tensor, flow: Tensor, step: float) -> Tensor:
    """(p + τ/θ ∇u) / (1 + τ/θ |∇u|) for u and v, by forward differences that are 0 at the edges."""
    gradient = torch.stack([pad(flow.diff(dim=3), (0, 1)), pad(flow.diff(dim=2), (0, 0, 0, 1))])
    return (dual + step * gradient) / (1 + step * gradient.square().sum(0).sqrt())


def resize(images: Tensor, size: tuple[int, int], ratios: tuple[float, float]) -> Tensor:
    """Images (n, c, *size), interpolated linearly; `ratios` are the height and width of an output pixel in input pixels."""
    down, right = (_hats(there, here, ratio, images) for there, here, ratio in zip(images.shape[2:], size, ratios, strict=True))
    return down @ images @ right.T


def _hats(there: int, here: int, ratio: float, like: Tensor) -> Tensor:
    """Weights (here, there) of linear interpolation."""
    places = ((torch.arange(here).double() + 0.5) * ratio - 0.5).clamp(0, there - 1)
    return (1 - (places[:, None] - torch.arange(there)).abs()).clamp(min=0).to(like)


def remap(images: Tensor, flow: Tensor) -> Tensor:
    """Images (n, c, H, W) read at x + flow (n, 2, H, W) by cubic convolution; 0 beyond the edges.

    The flow's whole pixels and its fractions are kept apart, so that zero flow reads the pixels exactly; `grid_sample` rounds.
    """
    height, width = flow.shape[2:]
    whole = flow.floor()
    x = torch.arange(width, device=flow.device) + whole[:, 0].long()
    y = torch.arange(height, device=flow.device)[:, None] + whole[:, 1].long()
    across, down = _cubic(flow - whole).unbind(2)
    warped = torch.zeros_like(images)
    for i in range(4):
        for j in range(4):
            row, column = y + (i - 1), x + (j - 1)
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            places = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            pixels = images.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view_as(images)
            warped += (down[i] * across[j] * inside)[:, None] * pixels
    return warped


def _cubic(part: Tensor, a: float = -0.75) -> Tensor:
    """Weights (4, *part.shape) of the pixels at −1, 0, 1 and 2, for reading at `part`, between 0 and 1 (Keys, 1981).

    The value of a is OpenCV's.
    """
    outer = ((a * (part + 1) - 5 * a) * (part + 1) + 8 * a) * (part + 1) - 4 * a
    inner, next_ = (((a + 2) * apart - (a + 3)) * apart**2 + 1 for apart in (part, 1 - part))
    return torch.stack([outer, inner, next_, 1 - outer - inner - next_])


def median(images: Tensor, side: int) -> Tensor:
    """The median of side × side pixels of images (n, c, H, W); edges are repeated.

    By forgetful selection, which needs only minima and maxima: of a few more than half of the values, neither the least nor the
    greatest can be the median; another value takes their place, until one is left.
    """
    height, width = images.shape[2:]
    wide = pad(images, (side // 2,) * 4, "replicate")
    values = [wide[..., y : y + height, x : x + width] for y in range(side) for x in range(side)]
    held, left = values[: side**2 // 2 + 2], values[side**2 // 2 + 2 :]
    while len(held) > 1:
        for i in range(1, len(held)):
            held[0], held[i] = torch.minimum(held[0], held[i]), torch.maximum(held[0], held[i])
        for i in range(1, len(held) - 1):
            held[i], held[-1] = torch.minimum(held[i], held[-1]), torch.maximum(held[i], held[-1])
        held = held[1:-1] + left[:1]
        left = left[1:]
    return held[0]
