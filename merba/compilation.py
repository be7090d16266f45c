"""How the package's CPU kernels are compiled, by Numba. Nothing here needs PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable

from numba import njit


def kernel(*freedoms: str, inline: bool = False) -> Callable[[Callable], Callable]:
    """Compile without the GIL, cached on disk where a cache folder can be written.

    Freedoms are LLVM's fast-math flags. Only "contract" (fused a·b + c), "reassoc" (sums in any order) and "nsz" are used:
    NaN and infinity keep their meaning.

    `inline` is for functions that kernels call. Not inlined, such a function is compiled on its own and again inside each kernel,
    and the process that compiles them runs another copy than those that load the cache: sums may then differ in the last bit.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(freedoms), "forceinline": inline}

    def compile_(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as problem:  # raised where this folder and the user's cache are both read-only
            logging.getLogger(__name__).info("kernels are compiled anew by every process: %s", problem)
            return njit(**options)(function)

    return compile_
