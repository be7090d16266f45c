"""TV-L1 optical flow, fused for the CPU (Zach, Pock & Bischof, "A duality based approach for realtime TV-L1 optical flow",
DAGM 2007).

The flow (u, v) minimises ∫ |∇u| + |∇v| + λ |ρ(u, v)|, where ρ = I₁(x + u₀) + ∇I₁(x + u₀) · (u − u₀) − I₀ is the difference of
grey levels, linear around the flow u₀ that I₁ is warped by. With dual variables p one iteration is

    u ← TH(u) + θ div p                        TH moves u along ∇I₁ towards ρ = 0, by at most λθ |∇I₁|
    p ← (p + τ/θ ∇u) / (1 + τ/θ |∇u|)          the same for v

from coarse to fine on a pyramid, with a median filter between rounds of iterations. Parameters, their defaults, and what the
paper leaves open are those of OpenCV's `DualTVL1OpticalFlow`, which reads the images a dozen times per iteration. Here one
iteration is one pass over the rows: a row of u and v, then p of the row above it, which needs no later row. The pyramid,
remapping and the median are OpenCV's.
"""

from __future__ import annotations

import cv2
import numpy as np

from merba.compilation import kernel
from merba.preprocessing import flow_settings
from merba.preprocessing.flow_settings import SMALLEST, FlowSettings

FLAT = np.float32(flow_settings.FLAT)
ONE = np.float32(1)

FREEDOMS = "reassoc", "contract", "nsz"  # sums in any order can use vector units
_fused = kernel(*FREEDOMS)
_part = kernel(*FREEDOMS, inline=True)  # called by the kernels, see `merba.compilation.kernel`


def tv_l1(first: np.ndarray, second: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Flow (2, H, W), float32, px right and px down, that takes each pixel of `first` to its place in `second`.

    Both are grey images (H, W), uint8, of one size; ValueError otherwise. The result doesn't depend on the number of threads.
    """
    if (first.dtype, first.ndim) != (np.uint8, 2) or (second.dtype, second.shape) != (first.dtype, first.shape):
        about = " and ".join(f"{image.dtype} {image.shape}" for image in (first, second))
        raise ValueError(f"TV-L1 takes two grey images, uint8 (H, W), of one size, not {about}")
    pyramid = [[first.astype(np.float32), second.astype(np.float32)]]
    while len(pyramid) < settings.scales:
        smaller = [cv2.resize(image, None, fx=settings.scale_step, fy=settings.scale_step) for image in pyramid[-1]]
        if min(smaller[0].shape) < SMALLEST:
            break
        pyramid.append(smaller)
    *finer, coarsest = pyramid
    flow = np.zeros((2, *coarsest[0].shape), np.float32)
    _solve_scale(*coarsest, flow, settings)
    for pair in reversed(finer):
        flow = np.stack([cv2.resize(part, pair[0].shape[::-1]) for part in flow]) * np.float32(1 / settings.scale_step)
        _solve_scale(*pair, flow, settings)
    return flow


def _solve_scale(first: np.ndarray, second: np.ndarray, flow: np.ndarray, settings: FlowSettings) -> None:
    """Improve the flow (2, H, W) of one scale's images (H, W), in place."""
    height, width = first.shape
    gradients = (cv2.Sobel(second, -1, *axis, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE) for axis in ((1, 0), (0, 1)))
    image = cv2.merge([second, *gradients])
    warped = np.empty_like(image)
    data = np.empty((4, height, width), np.float32)
    grid = np.mgrid[:height, :width][::-1].astype(np.float32)
    places = np.empty_like(grid)
    # The divergence reads the pixels to the left and above: with a column and a row of zeros, edges need no special case.
    right, down = np.zeros((2, height, width + 1), np.float32), np.zeros((2, height + 1, width), np.float32)
    theta, limit, step = np.float32([settings.theta, settings.lambda_ * settings.theta, settings.tau / settings.theta])
    enough = np.float32(settings.epsilon**2 * first.size)
    for _ in range(settings.warps):
        cv2.remap(image, *np.add(grid, flow, out=places), cv2.INTER_CUBIC, dst=warped)
        _linearise(first, warped, flow, data)
        for _ in range(settings.outer_iterations):
            if settings.median > 1:
                for part in flow:
                    cv2.medianBlur(part, settings.median, dst=part)
            if _iterate(settings.inner_iterations, enough, flow, data, right, down, theta, limit, step) <= enough:
                break


@_fused
def _linearise(first, warped, flow, data):
    """Data (4, H, W) from `warped` (H, W, 3) = I₁, ∂I₁/∂x, ∂I₁/∂y: both derivatives, ρ at flow 0, |∇I₁|²."""
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            dx, dy = warped[y, x, 1], warped[y, x, 2]
            data[0, y, x], data[1, y, x] = dx, dy
            data[2, y, x] = warped[y, x, 0] - dx * flow[0, y, x] - dy * flow[1, y, x] - first[y, x]
            data[3, y, x] = max(dx * dx + dy * dy, FLAT)


@_fused
def _iterate(rounds, enough, flow, data, right, down, theta, limit, step):
    """Up to so many iterations, until the summed squared change of one is no more than `enough`; returns the last one's."""
    last = flow.shape[1] - 1
    change = np.float32(np.inf)
    for _ in range(rounds):
        change = np.float32(0)
        for y in range(last + 1):
            change += _primal_row(y, flow, data, right, down, theta, limit)
            if y > 0:
                _dual_row(y - 1, y, flow, right, down, step)
        _dual_row(last, last, flow, right, down, step)
        if change <= enough:
            break
    return change


@_part
def _primal_row(y, flow, data, right, down, theta, limit):
    """Row y of u ← TH(u) + θ div p; returns its summed squared change."""
    u, v = flow[0, y], flow[1, y]
    dx, dy, rho, square = data[0, y], data[1, y], data[2, y], data[3, y]
    u_left, u_right, u_above, u_down = right[0, y, :-1], right[0, y, 1:], down[0, y], down[0, y + 1]
    v_left, v_right, v_above, v_down = right[1, y, :-1], right[1, y, 1:], down[1, y], down[1, y + 1]
    change = np.float32(0)
    for x in range(u.size):
        residual = rho[x] + dx[x] * u[x] + dy[x] * v[x]
        move = min(max(-residual / square[x], -limit), limit)
        u_move = move * dx[x] + theta * (u_right[x] - u_left[x] + u_down[x] - u_above[x])
        v_move = move * dy[x] + theta * (v_right[x] - v_left[x] + v_down[x] - v_above[x])
        u[x] += u_move
        v[x] += v_move
        change += u_move * u_move + v_move * v_move
    return change


@_part
def _dual_row(y, below, flow, right, down, step):
    """Row y of p ← (p + τ/θ ∇u) / (1 + τ/θ |∇u|) for u and v, by forward differences that are 0 at the edges."""
    for part in range(2):
        here, under, p, q = flow[part, y], flow[part, below], right[part, y, 1:], down[part, y + 1]
        beside = here[1:]
        last = beside.size
        for x in range(last):
            p[x], q[x] = _ascend(p[x], q[x], beside[x] - here[x], under[x] - here[x], step)
        p[last], q[last] = _ascend(p[last], q[last], np.float32(0), under[last] - here[last], step)


@_part
def _ascend(p, q, dx, dy, step):
    shrink = ONE + step * np.sqrt(dx * dx + dy * dy)
    return (p + step * dx) / shrink, (q + step * dy) / shrink
