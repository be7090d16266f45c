"""Bi-WOOF and a linear SVM (Liong et al., Signal Processing: Image Communication 2018).

From its authors' code (github.com/christy1206/biwoof): TV-L1 flow from onset to apex and its optical strain, 5×5 blocks,
eight bins of 45° over [−180°, 180°), pixels weighted by their magnitude, each block's histogram divided by its sum and
multiplied by the block's sum of strain, the whole vector divided by its norm. Our choices: blocks that don't overlap, an
empty block's histogram of zeros, and the classifier, a linear SVM with C chosen on training subjects (see `LinearSVM`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from merba.models.arguments import check_positive
from merba.models.fitted import FittedModel, strain
from merba.models.svm import COSTS, LinearSVM

SIZES: dict[str, dict] = {"biwoof": {}}


class BiWOOF(FittedModel):
    """Orientation histograms of the flow, weighted twice. Input u, v and, if `in_channels` is 3, their strain.

    With two channels the strain is computed from them.
    """

    candidates = tuple({"cost": cost} for cost in COSTS)
    needs_direction = True

    def __init__(self, num_classes: int = 3, *, in_channels: int = 2, image_size: int = 224, blocks: int = 5, bins: int = 8):
        super().__init__(num_classes)
        check_positive(num_classes=num_classes, image_size=image_size, blocks=blocks, bins=bins)
        if in_channels not in (2, 3):
            raise ValueError(f"in_channels is {in_channels!r}; it must be 2 (u, v) or 3 (u, v, strain)")
        self.input_shape = (in_channels, image_size, image_size)
        self.blocks, self.bins = blocks, bins
        self.svm = LinearSVM(blocks * blocks * bins, num_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Bi-WOOF of each clip, float32 (n, blocks² · bins), block by block in rows."""
        u, v = inputs[:, 0], inputs[:, 1]
        weight = inputs[:, 2] if inputs.shape[1] == 3 else strain(inputs)
        magnitude = torch.hypot(u, v)
        turn = torch.atan2(v, u) / (2 * torch.pi) + 0.5  # 0..1 from −180° to 180°
        orientation = (turn * self.bins).long() % self.bins
        height, width = ([round(i * side / self.blocks) for i in range(self.blocks + 1)] for side in inputs.shape[2:])
        histograms = []
        for top, bottom in zip(height, height[1:], strict=False):
            for left, right in zip(width, width[1:], strict=False):
                block = slice(None), slice(top, bottom), slice(left, right)
                histogram = magnitude.new_zeros(len(inputs), self.bins)
                histogram.scatter_add_(1, orientation[block].flatten(1), magnitude[block].flatten(1))
                histograms.append(F.normalize(histogram, p=1) * weight[block].sum((1, 2))[:, None])
        return F.normalize(torch.cat(histograms, 1))

    def fit(self, features: Tensor, labels: Tensor, rows: Tensor, *, cost: float) -> None:
        self.svm.fit(features[rows], labels[rows], cost=cost)

    def decide(self, features: Tensor) -> Tensor:
        return self.svm(features)
