"""Dropout and GELU with dropout as one CPU pass: the kernels of `merba.models.dropout`.

PyTorch draws a CPU dropout mask one element after the other; for small models that is the slowest part of a training
step. Here the mask is a hash of the element's index and a key, computed in registers and never stored: the backward
pass hashes again. The key comes from PyTorch's generator, so that seeds and `torch.utils.checkpoint` work as usual.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import uint32
from torch import Tensor
from torch.autograd.function import once_differentiable

from merba.compilation import kernel
from merba.scan.cpu_threads import run

_CHUNK = 1 << 13  # elements of a task, approximately


def dropout(x: Tensor, p: float) -> Tensor:
    """Dropout with a new key."""
    return _HashedDropout.apply(x, p, torch.randint(2**32, (2,)))


def gelu_dropout(x: Tensor, bias: Tensor, p: float) -> Tensor:
    """dropout(gelu(x + bias)) with a new key."""
    return _HashedGELUDropout.apply(x, bias, p, torch.randint(2**32, (2,)))


class _HashedDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, p: float, key: Tensor) -> Tensor:
        ctx.p, ctx.key = p, key
        return _drop(x, p, key)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return _drop(grad, ctx.p, ctx.key), None, None


class _HashedGELUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor, p: float, key: Tensor) -> Tensor:
        ctx.p, ctx.key = p, key
        x = x.contiguous()
        ctx.save_for_backward(x, bias)
        tile, y = _tile(bias), torch.empty_like(x)
        run(_gelu_drop, -(-x.numel() // len(tile)), *_numbers(p, key), x.view(-1), tile, y.view(-1))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, bias = ctx.saved_tensors
        tile, grad_x = _tile(bias), torch.empty_like(x)
        tasks = -(-x.numel() // len(tile))
        partial = torch.zeros(tasks, len(bias))  # the bias's gradient by task, so that threads don't matter
        arrays = (x.view(-1), tile, grad.contiguous().view(-1), grad_x.view(-1), partial)
        run(_gelu_drop_backward, tasks, *_numbers(ctx.p, ctx.key), *arrays)
        return grad_x, partial.sum(0), None, None


def _drop(x: Tensor, p: float, key: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    run(_drop_chunks, -(-x.numel() // _CHUNK), *_numbers(p, key), x.view(-1), y.view(-1))
    return y


def _tile(bias: Tensor) -> Tensor:
    """The bias, repeated up to the length of a task: one long loop is faster than one for each row."""
    return bias.repeat(max(1, _CHUNK // len(bias)))


def _numbers(p: float, key: Tensor) -> tuple[int, int, int, float]:
    """The two halves of the key, the hash below which an element is dropped, and the factor of the others."""
    low, high = key.tolist()
    return low, high, int(p * 2**32), 1 / (1 - p)


# Kernels work on the chunks first ≤ i < last. Loops run over slices from 0 on, because the compiler can vectorise these.

_kernel = kernel("contract")
_HALF, _ONE, _ROOT_HALF = np.float32(0.5), np.float32(1), np.float32(math.sqrt(0.5))
# erf(a) = 1 − 1 / (1 + Σ E_k a^k)^16 for a ≥ 0 to 3e-7 (Abramowitz & Stegun 7.1.28), and 8 √½ times the sum's slope.
_E = tuple(map(np.float32, (0.0705230784, 0.0422820123, 0.0092705272, 0.0001520143, 0.0002765672, 0.0000430638)))
_E1, _E2, _E3, _E4, _E5, _E6 = _E
_S1, _S2, _S3, _S4, _S5, _S6 = (np.float32(8 * math.sqrt(0.5) * k * e) for k, e in enumerate(_E, start=1))


@_kernel
def _multiplier(i, low, high, threshold, scale):
    """0 or scale: a Weyl sequence from one half of the key, then Wellons' "lowbias32" hash with the other in it."""
    h = uint32(uint32(uint32(i) * uint32(0x9E3779B9)) + low)
    h = uint32(uint32(h ^ (h >> uint32(16))) * uint32(0x7FEB352D))
    h = uint32(uint32(h ^ (h >> uint32(15)) ^ high) * uint32(0x846CA68B))
    h = uint32(h ^ (h >> uint32(16)))
    return scale if h >= threshold else np.float32(0)


@_kernel
def _drop_chunks(first, last, low, high, threshold, scale, x, y):
    low, high, threshold, scale = uint32(low), uint32(high), uint32(threshold), np.float32(scale)
    start, stop = first * _CHUNK, min(last * _CHUNK, x.size)
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        y[i] = x[i] * _multiplier(start + i, low, high, threshold, scale)


@_kernel
def _gelu_drop(first, last, low, high, threshold, scale, x, tile, y):
    low, high, threshold, scale = uint32(low), uint32(high), uint32(threshold), np.float32(scale)
    for task in range(first, last):
        start, stop = task * tile.size, min((task + 1) * tile.size, x.size)
        inputs, outputs, bias = x[start:stop], y[start:stop], tile[: stop - start]
        for i in range(inputs.size):
            v = inputs[i] + bias[i]
            a = abs(v) * _ROOT_HALF
            p = _ONE + a * (_E1 + a * (_E2 + a * (_E3 + a * (_E4 + a * (_E5 + a * _E6)))))
            q = _ONE / p
            q = q * q
            q = q * q
            q = q * q
            q = q * q
            normal = _ONE - _HALF * q if v > 0 else _HALF * q
            outputs[i] = v * normal * _multiplier(start + i, low, high, threshold, scale)


@_kernel
def _gelu_drop_backward(first, last, low, high, threshold, scale, x, tile, grad, grad_x, grad_bias):
    low, high, threshold, scale = uint32(low), uint32(high), uint32(threshold), np.float32(scale)
    for task in range(first, last):
        start, stop = task * tile.size, min((task + 1) * tile.size, x.size)
        inputs, gradients = x[start:stop], grad[start:stop]
        results, bias = grad_x[start:stop], tile[: stop - start]
        for i in range(inputs.size):
            v = inputs[i] + bias[i]
            a = abs(v) * _ROOT_HALF
            p = _ONE + a * (_E1 + a * (_E2 + a * (_E3 + a * (_E4 + a * (_E5 + a * _E6)))))
            slope = _S1 + a * (_S2 + a * (_S3 + a * (_S4 + a * (_S5 + a * _S6))))
            r = _ONE / p
            q = r * r
            q = q * q
            q = q * q
            q = q * q
            normal = _ONE - _HALF * q if v > 0 else _HALF * q
            derivative = normal + v * slope * q * r
            results[i] = gradients[i] * derivative * _multiplier(start + i, low, high, threshold, scale)
        sums = grad_bias[task]
        for row in range(results.size // sums.size):
            line = results[row * sums.size : (row + 1) * sums.size]
            for i in range(sums.size):
                sums[i] += line[i]
