"""UF1, UAR and ACC as MEGC2019 defines them: from confusion counts summed over all folds.

See et al., "MEGC 2019 – The Second Facial Micro-Expressions Grand Challenge", FG 2019, section III.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
"""Bootstrap draws."""
TAILS = (0.025, 0.975)
"""The quantiles of a 95 % interval."""
UNKNOWN = ((float("nan"), float("nan")), (float("nan"), float("nan")))
"""The intervals of UF1 and UAR if they can't be estimated, because no dataset has two subjects."""


@dataclass(frozen=True)
class Scores:
    """Scores in 0..1, and the number of clips they come from."""

    uf1: float
    uar: float
    acc: float
    n: int


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 (classes, classes): rows are true classes, columns predicted ones."""
    pairs = np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F1 and recall of every class from counts (..., classes, classes); NaN for a class absent from the truth.

    F1 = 2 TP / (2 TP + FP + FN), recall = TP / (TP + FN).
    """
    counts = np.asarray(counts, np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hits / (true + predicted)
        recall = hits / true
    return np.where(true > 0, f1, np.nan), recall


def unweighted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UF1 and UAR (...) from counts (..., classes, classes): the means over the classes that occur in the truth.

    A class that no clip truly has is left out of both means, as in the challenge's evaluation; predicting it still lowers
    the true class's recall. NaN if there are no clips at all.
    """
    f1, recall = class_scores(counts)
    present = np.isfinite(recall)
    number = present.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            np.where(present, f1, 0).sum(-1) / number,
            np.where(present, recall, 0).sum(-1) / number,
        )


def scores(counts: np.ndarray) -> Scores:
    """All scores of one confusion matrix (classes, classes)."""
    uf1, uar = unweighted(counts)
    n = int(np.sum(counts))
    return Scores(float(uf1), float(uar), float(np.trace(counts) / n) if n else float("nan"), n)


def subject_counts(true: np.ndarray, predicted: np.ndarray, subjects: Sequence[str], classes: int) -> np.ndarray:
    """Confusion counts of every subject, int64 (subjects, classes, classes), in order of the subjects' names."""
    names, owner = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    flat = (owner * classes + np.asarray(true, np.int64)) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=len(names) * classes**2).reshape(len(names), classes, classes)


def bootstrap_interval(
    counts: np.ndarray, strata: Sequence[str] | None = None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile intervals of UF1 and UAR when whole subjects are drawn with replacement.

    `counts` (subjects, classes, classes), or (seeds, subjects, classes, classes) for the mean over seeds, each of which
    is scored on the same subjects. Clips of one person resemble each other, so subjects, not clips, are the independent
    units. `strata` names each subject's dataset: from each dataset, as many are drawn as it has, because the composite's
    number of subjects from each is fixed (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 8.3). Returns
    ((low, high) of UF1, (low, high) of UAR); NaN if no stratum has two subjects.
    """
    if (weights := _draws(counts, strata)) is None:
        return UNKNOWN
    return _intervals(_drawn_scores(counts, weights))


def paired_bootstrap(
    counts: np.ndarray,
    others: np.ndarray,
    strata: Sequence[str] | None = None,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile intervals of the differences in UF1 and UAR of two methods on the same subjects, `counts` minus `others`.

    Both as in `bootstrap_interval`, with the same subjects in the same order; each draw takes the same subjects of both.
    """
    if (weights := _draws(counts, strata)) is None:
        return UNKNOWN
    mine, theirs = (_drawn_scores(method, weights) for method in (counts, others))
    return _intervals([a - b for a, b in zip(mine, theirs, strict=True)])


def _draws(counts: np.ndarray, strata: Sequence[str] | None) -> np.ndarray | None:
    """How often each draw takes each subject, int64 (DRAWS, subjects); None if every stratum has a single subject."""
    number = counts.shape[-3]
    names, owner = np.unique(np.zeros(number) if strata is None else np.asarray(strata), return_inverse=True)
    sizes = np.bincount(owner, minlength=len(names))
    if sizes.max(initial=0) < 2:
        return None
    random = np.random.default_rng(0)
    weights = np.empty((DRAWS, number), np.int64)
    for stratum, size in enumerate(sizes):
        weights[:, owner == stratum] = random.multinomial(size, np.full(size, 1 / size), size=DRAWS)
    return weights


def _drawn_scores(counts: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """UF1 and UAR (DRAWS,) of the drawn subjects, means over seeds."""
    drawn = np.einsum("ds,...sij->...dij", weights, counts)
    return [score.reshape(-1, len(weights)).mean(0) for score in unweighted(drawn)]


def _intervals(scores: Sequence[np.ndarray]) -> tuple[tuple[float, float], tuple[float, float]]:
    return tuple(tuple(float(q) for q in np.nanquantile(score, TAILS)) for score in scores)
