"""A warning about clips in which the head moves more from onset to apex than an expression does."""

from __future__ import annotations

LIMIT = 0.02
"""The share of the aligned face's side that the head may move without a warning: 4.5 px of 224; expressions move 1 to 3 px."""


def head_warning(length: float, size: int, limit: float = LIMIT) -> str | None:
    """A warning if the head moves much: `length` px of an aligned face that is `size` px wide; None if it moves little.

    `length` is that of `merba.preprocessing.head_motion`, NaN for ready-made flow, for which it isn't known.
    """
    if not length > limit * size:
        return None
    return (
        f"the head moves {length:.1f} px from onset to apex, on a face {size} px wide: more than an expression does. "
        "Check the two frames; the flow may show the head instead of the expression"
    )
