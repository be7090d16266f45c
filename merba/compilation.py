"""How the package's CPU kernels are compiled, by Numba. Nothing here needs PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable

from numba import njit


def kernel(*freedoms: str) -> Callable[[Callable], Callable]:
    """Compile without the GIL, cached on disk where a cache folder can be written.

    Freedoms are LLVM's fast-math flags. Only "contract" (fused a·b + c), "reassoc" (sums in any order) and "nsz" are used:
    NaN and infinity keep their meaning.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms)}

    def compile_(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as problem:  # raised where this folder and the user's cache are both read-only
            logging.getLogger(__name__).info("kernels are compiled anew by every process: %s", problem)
            return njit(**options)(function)

    return compile_
