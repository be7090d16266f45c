"""Compiling the package's CPU kernels with Numba, without PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable

from numba import njit


def kernel(*freedoms: str, inline: bool = False) -> Callable[[Callable], Callable]:
    """A decorator that compiles a function to run without the GIL, cached on disk if a cache folder can be written.

    `freedoms` are LLVM's fast-math flags. Only "contract" (fused a·b + c), "reassoc" (sums in any order) and "nsz" are used:
    NaN and infinity keep their meaning.

    `inline` is for functions that kernels call. Without it, such a function is compiled on its own and again inside each kernel,
    and the process that compiles runs another copy than those that load the cache: sums may then differ in the last bit.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms), "forceinline": inline}

    def compile_(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as problem:  # raised if this folder and the user's cache are both read-only
            logging.getLogger(__name__).info("every process compiles the kernels again: %s", problem)
            return njit(**options)(function)

    return compile_
