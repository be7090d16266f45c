"""Checks of models' arguments: ValueError that names the argument, its value and what it must be."""

from __future__ import annotations

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
    """`values` must be `length` whole numbers of at least 1; None: any number of them but none."""
    fits = isinstance(values, Sequence) and len(values) == (length or max(1, len(values))) and all(map(_counts, values))
    if not fits:
        raise ValueError(f"{name} is {values!r}; it must be {length or 'some'} whole numbers of at least 1")


def check_ratio(name: str, value: object) -> None:
    """`value` must be a number above 0."""
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0")


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and value >= 1
