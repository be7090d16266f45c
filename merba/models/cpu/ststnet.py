"""STSTNet's training pass up to its linear layer as one CPU kernel each way.

PyTorch's operators read the 256×16×30×30 activations nine times per step, and nearly all the time goes into moving
them. Here one clip at a time goes from pixels to pooled maxima (and back) inside the cache; the maps are never
stored, and the backward pass computes them again. Batch norm comes after the pooling: it is one affine map per channel, so
it commutes with the maximum (with the minimum, if its weight is negative). Partial sums are kept per clip and added
in the order of the clips, so that results don't depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from merba.compilation import kernel
from merba.scan.cpu_threads import run

_fast = kernel("reassoc", "contract", "nsz", inline=True)  # sums in any order can use vector units
_exact = kernel()
_part = kernel(inline=True)  # called by the kernels, see `merba.compilation.kernel`


@_part
def _pad(x, padded, width):
    """Clip (channels, H, W) into rows of W + 4, zeros around it: a 3×3 tap is then one constant offset."""
    for c in range(x.shape[0]):
        for i in range(x.shape[1]):
            start = (i + 2) * width + 2
            padded[c, start : start + x.shape[2]] = x[c, i]


@_fast
def _conv_relu(padded, kernel, bias, width, out):
    """out = relu(3×3 convolution) of one output channel, over the flattened rows (their last two columns unused)."""
    size = out.size
    out[:] = bias
    for c in range(padded.shape[0]):
        for i in range(3):
            k0, k1, k2 = kernel[c, i, 0], kernel[c, i, 1], kernel[c, i, 2]
            start = i * width
            left, middle, right = (
                padded[c, start : start + size],
                padded[c, start + 1 : start + 1 + size],
                padded[c, start + 2 : start + 2 + size],
            )
            for t in range(size):
                out[t] += k0 * left[t] + k1 * middle[t] + k2 * right[t]
    for t in range(size):
        out[t] = max(out[t], np.float32(0))


@_fast
def _kernel_gradient(padded, gradient, width, out):
    """out (channels, 3, 3) = correlation of the padded clip with the gradient of one output channel."""
    size = gradient.size
    for c in range(padded.shape[0]):
        for i in range(3):
            start = i * width
            left, middle, right = (
                padded[c, start : start + size],
                padded[c, start + 1 : start + 1 + size],
                padded[c, start + 2 : start + 2 + size],
            )
            a = b = d = np.float32(0)
            for t in range(size):
                g = gradient[t]
                a += g * left[t]
                b += g * middle[t]
                d += g * right[t]
            out[c, i, 0], out[c, i, 1], out[c, i, 2] = a, b, d


@_fast
def _row_sums(row):
    total = squares = np.float32(0)
    for t in range(row.size):
        total += row[t]
        squares += row[t] * row[t]
    return total, squares


@_fast
def _window_maxima(y, first, last, width, sign, column, pooled):
    """Maxima of sign · y over rows first ≤ r < last and the columns 3j − 1, 3j, 3j + 1; column[0] stands for −1."""
    inner = column[1:-1]
    inner[:] = -np.inf
    for r in range(first, last):
        line = y[r * width : r * width + inner.size]
        for t in range(inner.size):
            inner[t] = max(inner[t], sign * line[t])
    for j in range(pooled.size):
        pooled[j] = sign * max(column[3 * j], column[3 * j + 1], column[3 * j + 2])


@_exact
def _pool(first, last, x, weight, bias, sign, pooled, sums):
    """Of clips first ≤ n < last: pooled ReLU responses before batch norm, and sums for the batch statistics.

    sign is −1 for filters whose norm has a negative weight: their maximum after it is the minimum before it.
    """
    _, channels, height, columns = x.shape
    filters, width, rows = weight.shape[0], columns + 4, height + 2
    for n in range(first, last):
        padded = np.zeros((channels, (height + 4) * width + 2), np.float32)
        _pad(x[n], padded, width)
        y = np.empty(rows * width, np.float32)
        column = np.full(columns + 4, -np.inf, np.float32)
        for f in range(filters):
            _conv_relu(padded, weight[f], bias[f], width, y)
            for i in range(rows):
                total, squares = _row_sums(y[i * width : i * width + columns + 2])
                sums[n, 0, f] += total
                sums[n, 1, f] += squares
            for i in range(pooled.shape[2]):
                top, bottom = max(3 * i - 1, 0), min(3 * i + 2, rows)
                _window_maxima(y, top, bottom, width, sign[f], column, pooled[n, f, i])


@_part
def _unpool(y, pooled, gradient, width, dy):
    """Add each gradient to dy where its window first holds the pooled value in raster order, as PyTorch breaks ties.

    y and dy begin with width + 1 zeros, so that the window (i, j) begins at 3 · (i · width + j). The search looks at
    all nine places and has no branch to mispredict.
    """
    for i in range(pooled.shape[0]):
        for j in range(pooled.shape[1]):
            value = pooled[i, j]
            place = start = 3 * (i * width + j)
            for r in range(3):  # from the last place to the first
                t = start + (2 - r) * width
                place = t + 2 if y[t + 2] == value else place
                place = t + 1 if y[t + 1] == value else place
                place = t if y[t] == value else place
            dy[place] += gradient[i, j]


@_fast
def _response_gradient(y, slope, offset, out):
    for t in range(y.size):
        out[t] = slope * y[t] + offset


@_fast
def _through_relu(y, dy):
    total = np.float32(0)
    for t in range(y.size):
        dy[t] = dy[t] if y[t] > 0 else np.float32(0)
        total += dy[t]
    return total


@_exact
def _backward(first, last, x, weight, bias, pooled, gradient, slope, offset, weight_gradient, bias_gradient):
    """Of clips first ≤ n < last: gradients of the filters and their biases.

    `gradient` belongs to the pooled responses; the batch statistics add slope · response + offset everywhere.
    """
    _, channels, height, columns = x.shape
    filters, width, rows = weight.shape[0], columns + 4, height + 2
    for n in range(first, last):
        padded = np.zeros((channels, (height + 4) * width + 2), np.float32)
        _pad(x[n], padded, width)
        before, size = width + 1, rows * width
        y_full = np.zeros(before + size + width, np.float32)
        dy_full = np.zeros_like(y_full)
        y, dy = y_full[before : before + size], dy_full[before : before + size]
        for f in range(filters):
            _conv_relu(padded, weight[f], bias[f], width, y)
            for i in range(rows):
                y[i * width + columns + 2 : (i + 1) * width] = 0
            _response_gradient(y, slope[f], offset[f], dy)
            _unpool(y_full, pooled[n, f], gradient[n, f], width, dy_full)
            bias_gradient[n, f] = _through_relu(y, dy)
            _kernel_gradient(padded, dy, width, weight_gradient[n, f])


class ConvNormPool(torch.autograd.Function):
    """Convolution (3×3, padding 2) → ReLU → batch norm by batch statistics → max pooling 3, stride 3, padding 1.

    x float32 (B, channels, H, W); weight (filters, channels, 3, 3); bias, gamma, beta (filters,). Returns the pooled
    maps (B, filters, ⌊(H+1)/3⌋+1, ⌊(W+1)/3⌋+1) and the batch's mean and biased variance (filters,). x gets no gradient.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, gamma, beta, eps):
        batch, _, height, width = x.shape
        sign = torch.where(gamma < 0, -1.0, 1.0)
        pooled = x.new_empty(batch, len(weight), (height + 1) // 3 + 1, (width + 1) // 3 + 1)
        sums = x.new_zeros(batch, 2, len(weight), dtype=torch.float64)
        run(_pool, batch, x.contiguous(), weight.contiguous(), bias.contiguous(), sign, pooled, sums)
        count = batch * (height + 2) * (width + 2)
        mean, squares = sums.sum(0) / count
        variance = (squares - mean.square()).clamp_(min=0)
        mean, variance = mean.float(), variance.float()
        scale = gamma / torch.sqrt(variance + eps)
        ctx.save_for_backward(x, weight, bias, pooled, mean, variance, scale)
        ctx.count, ctx.eps = count, eps
        ctx.mark_non_differentiable(mean, variance)
        column = (-1, 1, 1)
        return pooled * scale.view(column) + (beta - mean * scale).view(column), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
        x, weight, bias, pooled, mean, variance, scale = ctx.saved_tensors
        deviation = torch.sqrt(variance + ctx.eps)
        total = gradient.sum((0, 2, 3))
        gamma_gradient = ((gradient * pooled).sum((0, 2, 3)) - mean * total) / deviation
        # Every response moves the batch's mean and variance, and with them every output.
        slope = -scale * gamma_gradient / (ctx.count * deviation)
        offset = -scale * total / ctx.count - slope * mean
        pixels = gradient * scale.view(-1, 1, 1)
        weights = x.new_empty(len(x), *weight.shape)
        biases = x.new_empty(len(x), len(weight))
        inputs = (t.contiguous() for t in (x, weight, bias, pooled, pixels, slope, offset))
        run(_backward, len(x), *inputs, weights, biases)
        return None, weights.sum(0), biases.sum(0), gamma_gradient, total, None
