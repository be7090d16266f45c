"""How the models' CPU kernels are shared out among threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_pool: ThreadPoolExecutor | None = None


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
