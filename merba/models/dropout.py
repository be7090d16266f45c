"""Dropout, and the first layer of an MLP with its GELU and dropout as one CPU pass after the matrix product; drop path.

The CPU kernels are in `merba.models.cpu.dropout`. On other devices, with other types and when compiling, the modules use
PyTorch's own functions.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NUMBA = find_spec("numba") is not None


class Dropout(nn.Module):
    """Sets each element to 0 with probability p and scales the others by 1 / (1 − p), in training."""

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is {p}; it must be at least 0 and below 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.p > 0 and for_cpu_kernels(x):
            from merba.models.cpu.dropout import dropout

            return dropout(x, self.p)
        return F.dropout(x, self.p, self.training)


class LinearGELUDropout(nn.Linear):
    """dropout(gelu(linear(x))): the first layer of an MLP."""

    def __init__(self, in_features: int, out_features: int, dropout: float):
        super().__init__(in_features, out_features)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and for_cpu_kernels(x):
            from merba.models.cpu.dropout import gelu_dropout

            return gelu_dropout(F.linear(x, self.weight), self.bias, self.dropout.p)
        return self.dropout(F.gelu(super().forward(x)))


class DropPath(nn.Module):
    """x + branch; in training, the branch of whole samples is dropped at random (stochastic depth, Huang et al. 2016)."""

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop_path is {p}; it must be at least 0 and below 1")
        self.p = p

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x + branch
        keep = x.new_empty((len(x),) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.p) / (1 - self.p)
        return torch.addcmul(x, branch, keep)


def for_cpu_kernels(x: Tensor) -> bool:
    """Whether the models' CPU kernels can take x: float32 that stays so (no autocast), and Numba is installed."""
    if torch.compiler.is_compiling() or not _NUMBA:
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
