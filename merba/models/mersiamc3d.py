"""MERSiamC3D (Zhao et al., Neurocomputing 448, 2021), our reading of it: a 3D CNN that learns from pairs, then from classes.

Its abstract states two stages: in prior learning, a siamese 3D CNN learns from pairs; target learning adjusts structure and
parameters, and uses focal loss. The input is a sequence of key frames. Our choices: the key frames, by a rule instead of the
paper's adaptive network; the widths of C3D, and average pooling instead of its large linear layers; all pairs of a batch, in
the first half of the epochs; in the second half, the first two convolutions stay as they are, with their BatchNorms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_positive, check_ratio
from merba.models.heads import focal_loss

SIZES: dict[str, dict] = {"mersiamc3d": {}, "mersiamc3d_small": {"length": 8, "image_size": 56, "width": 16}}
PAIRS_UNTIL = 0.5
"""The fraction of the training, from its start, that learns from pairs."""


class Siamese(NamedTuple):
    """What MERSiamC3D returns in training: logits (B, classes), and the features (B, features) that pairs compare."""

    logits: Tensor
    features: Tensor


def block(inputs: int, outputs: int, pool: int | tuple[int, int, int]) -> nn.Sequential:
    """A 3×3×3 convolution, BatchNorm, ReLU, and max pooling over `pool` frames, rows and columns."""
    convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU(), nn.MaxPool3d(pool))


class MERSiamC3D(nn.Module):
    """MERSiamC3D; input float (B, length, 1, image_size, image_size), grey key frames; output logits (B, num_classes).

    In training the output is `Siamese`. width: of the first convolution; each further one is twice as wide. features: what
    pairs compare. gamma: of the focal loss. `classifies` says whether training is in its second stage, that of the classifier.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        length: int = 16,
        image_size: int = 112,
        width: int = 64,
        features: int = 256,
        gamma: float = 2.0,
    ):
        super().__init__()
        check_positive(num_classes=num_classes, length=length, image_size=image_size, width=width, features=features)
        if length < 8 or image_size < 16:
            raise ValueError(f"length is {length}, image_size {image_size}; four poolings need at least 8 frames of 16 px")
        if gamma:
            check_ratio("gamma", gamma)
        self.input_shape = (length, 1, image_size, image_size)
        self.gamma, self.classifies = gamma, False
        self.early = nn.Sequential(block(1, width, (1, 2, 2)), block(width, 2 * width, 2))
        self.late = nn.Sequential(block(2 * width, 4 * width, 2), block(4 * width, 8 * width, 2))
        self.linear = nn.Linear(8 * width, features)
        self.same = nn.Linear(features, 1)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor | Siamese:
        maps = self.late(self.early(x.transpose(1, 2)))
        features = F.relu(self.linear(maps.mean((2, 3, 4))))
        logits = self.classifier(features)
        return Siamese(logits, features) if self.training else logits

    def begin_epoch(self, progress: float) -> None:
        """Before an epoch that ends at `progress`, 0 to 1: in the second stage, keep the first two convolutions as they are.

        Their BatchNorms then use the statistics of the first stage and leave them, so that their features don't change.
        """
        self.classifies = progress > PAIRS_UNTIL
        self.early.requires_grad_(not self.classifies).train(not self.classifies)

    def loss(
        self,
        outputs: Siamese,
        labels: Tensor,
        *,
        progress: float = 0.0,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        **_: object,
    ) -> Tensor:
        """`pair_loss` in the first stage; in the second the focal loss, which class weights and label smoothing belong to."""
        if progress <= PAIRS_UNTIL:
            return self.pair_loss(outputs.features, labels)
        return focal_loss(outputs.logits, labels, gamma=self.gamma, class_weights=class_weights, label_smoothing=label_smoothing)

    def pair_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy of "the same class" over all pairs of a batch: features (B, features), labels (B,) int64.

        It is the average of two means, over pairs of the same class and over all other pairs, so that both kinds weigh the same.
        If one kind is absent, it is the mean over the other; for a single clip it is 0.
        """
        first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
        features = features.float()  # outside autocast
        logits = self.same((features[first] - features[second]).abs()).squeeze(1)
        same = (labels[first] == labels[second]).float()
        losses = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
        weights = same / same.sum().clamp_min(1) + (1 - same) / (1 - same).sum().clamp_min(1)
        return (losses * weights).sum() / weights.sum().clamp_min(1)
