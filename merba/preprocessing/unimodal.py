"""Unimodal regression: the rising-then-falling curve that is closest to a series in least squares.

Stout, "Unimodal regression via prefix isotonic regression", Computational Statistics & Data Analysis 53, 2008.
"""

from __future__ import annotations

import numpy as np


def isotonic(y: np.ndarray) -> np.ndarray:
    """The non-decreasing series closest to `y` (n,) in least squares, by pooling adjacent violators."""
    _, starts, means = _prefix_isotonic(y)
    return np.repeat(means, np.diff([*starts, len(y)]))


def _prefix_isotonic(y: np.ndarray) -> tuple[np.ndarray, list[int], list[float]]:
    """Squared error of the isotonic fit of every prefix, (n + 1,), and the blocks of the whole series: starts and means.

    One pass: a prefix's blocks are those of the prefix before it with the new value pooled in, so that the errors of
    all n prefixes cost as much as one fit.
    """
    errors = np.zeros(len(y) + 1)
    starts: list[int] = []
    counts: list[int] = []
    means: list[float] = []
    total = 0.0
    for i, value in enumerate(np.asarray(y, np.float64).tolist()):
        start, count, mean = i, 1, value
        while means and means[-1] >= mean:
            # Joining two blocks adds the squared distance of their means, weighted by their harmonic size.
            n, m = counts.pop(), means.pop()
            total += (m - mean) ** 2 * n * count / (n + count)
            mean = (n * m + count * mean) / (n + count)
            count += n
            start = starts.pop()
        starts.append(start)
        counts.append(count)
        means.append(mean)
        errors[i + 1] = total
    return errors, starts, means


def unimodal(y: np.ndarray) -> tuple[int, np.ndarray]:
    """The best rising-then-falling fit of `y` (n,): the index of its peak, and the fit (n,).

    Every split of the series into a rising front and a falling back is tried; O(n) in all. If the fit's top is a plateau,
    the peak is the largest value of `y` on it.
    """
    y = np.asarray(y, np.float64)
    front, back = _prefix_isotonic(y)[0], _prefix_isotonic(y[::-1])[0][::-1]
    split = int(np.argmin(front + back))
    fit = np.concatenate([isotonic(y[:split]), isotonic(y[split:][::-1])[::-1]])
    top = np.flatnonzero(fit == fit.max())
    return int(top[np.argmax(y[top])]), fit
