"""How the package's CPU kernels are compiled, by Numba, and shared out among threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from numba import njit
from torch import Tensor

_pool: ThreadPoolExecutor | None = None


def kernel(*freedoms: str) -> Callable[[Callable], Callable]:
    """Compile without the GIL, cached on disk where a cache folder can be written.

    Freedoms are LLVM's fast-math flags. Only "contract" (fused a·b + c), "reassoc" (sums in any order) and "nsz" are used:
    NaN and infinity keep their meaning.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms)}

    def compile_(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as problem:  # raised where neither this folder nor the user's cache can be written
            logging.getLogger(__name__).info("kernels are compiled anew by every process: %s", problem)
            return njit(**options)(function)

    return compile_


def run(kernel: Callable, tasks: int, *arguments: Tensor | bool) -> None:
    """Call kernel(first, last, *arguments) for parts of its tasks, on as many threads as PyTorch uses."""
    global _pool
    arguments = [x.detach().numpy() if isinstance(x, Tensor) else x for x in arguments]
    threads = max(1, min(torch.get_num_threads(), tasks))
    if threads > 1 and _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="merba")
    bounds = [tasks * i // threads for i in range(threads + 1)]
    others = [_pool.submit(kernel, first, last, *arguments) for first, last in zip(bounds[1:-1], bounds[2:], strict=True)]
    kernel(0, bounds[1], *arguments)
    for other in others:
        other.result()


def _forget_pool() -> None:
    """Threads do not survive a fork; the child starts its own."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # Windows has neither
    os.register_at_fork(after_in_child=_forget_pool)
