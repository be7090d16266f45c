"""A linear support vector machine for several classes, fitted by scikit-learn's SVC (LIBSVM)."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""The values of C among which training chooses."""


class LinearSVM(nn.Module):
    """One SVM for each pair of classes, and their vote. The buffers hold the planes, but no clips.

    Input features (n, features); output one score per class, SVC's one-vs-rest `decision_function`: the number of pairs that a
    class wins, and within ±1/3 how clearly. The largest is the class that SVC predicts with `break_ties=True`; the softmax is
    not calibrated.
    """

    def __init__(self, features: int, num_classes: int):
        super().__init__()
        pairs = list(combinations(range(num_classes), 2))
        self.register_buffer("planes", torch.zeros(len(pairs), features))
        self.register_buffer("offsets", torch.zeros(len(pairs)))
        sides = torch.zeros(len(pairs), num_classes)
        for place, (first, second) in enumerate(pairs):
            sides[place, first], sides[place, second] = 1, -1
        self.register_buffer("sides", sides, persistent=False)

    def fit(self, features: Tensor, labels: Tensor, *, cost: float) -> None:
        """Find the planes for features (n, features) and labels, int64 (n,); `cost` is SVC's C.

        A class without clips loses all its pairs.
        """
        classes = labels.unique().tolist()
        known = _planes(features, labels, cost) if len(classes) > 1 else {}
        for place, (first, second) in enumerate(combinations(range(self.sides.shape[1]), 2)):
            absent = torch.zeros(self.planes.shape[1]), float(first in classes) - float(second in classes)
            self.planes[place], self.offsets[place] = known.get((first, second), absent)

    def forward(self, features: Tensor) -> Tensor:
        margins = features @ self.planes.T + self.offsets  # above 0 for a pair's first class
        clearness = margins @ self.sides
        votes = (margins >= 0).float() @ self.sides.clamp_min(0) + (margins < 0).float() @ (-self.sides).clamp_min(0)
        return votes + clearness / (3 * (clearness.abs() + 1))


def _planes(features: Tensor, labels: Tensor, cost: float) -> dict[tuple[int, int], tuple[Tensor, float]]:
    """The plane and the offset of each pair of classes that have clips."""
    from sklearn.svm import SVC  # takes half a second, and predicting doesn't need it

    machine = SVC(kernel="linear", C=cost).fit(features.double().numpy(), labels.numpy())
    pairs = combinations(machine.classes_.tolist(), 2)
    sign = -1 if len(machine.classes_) == 2 else 1  # for two classes, SVC turns the plane around
    return {
        pair: (torch.from_numpy(plane * sign), float(offset) * sign)
        for pair, plane, offset in zip(pairs, machine.coef_, machine.intercept_, strict=True)
    }
