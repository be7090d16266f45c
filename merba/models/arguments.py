"""Checks of models' arguments: ValueError that names the argument, its value and what it must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """`value` must be one of the known words."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it must be {' or '.join(map(repr, known))}")


def check_positive(**values: object) -> None:
    """Each must be a whole number of at least 1."""
    for name, value in values.items():
        if not _counts(value):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")


def check_counts(name: str, values: object, length: int | None = None) -> None:
    """`values` must be `length` whole numbers of at least 1; with None, one or more of them."""
    fits = isinstance(values, Sequence) and len(values) == (length or max(1, len(values))) and all(map(_counts, values))
    if not fits:
        raise ValueError(f"{name} is {values!r}; it must be {length or 'some'} whole numbers of at least 1")


def check_ratio(name: str, value: object) -> None:
    """`value` must be a number above 0."""
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0")


def height_and_width(image_size: int | Sequence[int]) -> Sequence[int]:
    """Height and width, px, of an `image_size`: one number for both, or the two."""
    if isinstance(image_size, Sequence):
        check_counts("image_size", image_size, 2)
        return image_size
    check_positive(image_size=image_size)
    return image_size, image_size


def check_heads(heads: Sequence[int], dim: int) -> None:
    """The heads of stages 2 to 4 must divide their channels, which double with each stage."""
    check_positive(dim=dim)
    check_counts("heads", heads, 3)
    for stage, number in enumerate(heads, start=2):
        channels = dim << (stage - 1)
        if channels % number:
            raise ValueError(
                f"heads of stage {stage} is {number}, which does not divide its {channels} channels (dim {dim}); "
                f"{math.gcd(channels, number)} would"
            )


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and value >= 1
