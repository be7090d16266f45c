"""PCA and linear discriminant analysis of flow maps: the simplest method that uses where a face moves. Our own baseline.

Fisher's discriminant on principal components is known as "Fisherfaces" (Belhumeur et al., TPAMI 19(7), 1997).
"""

from __future__ import annotations

import torch
from torch import Tensor

from merba.models.arguments import check_positive
from merba.models.fitted import FittedModel

SIZES: dict[str, dict] = {"lda": {}}


class LDA(FittedModel):
    """Linear discriminant analysis with uniform priors on the first principal components of the pixels.

    There are at most as many components as training clips minus classes, so that the spread within classes has full rank.
    Input float (B, in_channels, image_size, image_size). Both steps are linear, so only one plane per class is stored. The
    logits are log-posteriors under LDA's assumptions, up to a constant.
    """

    def __init__(self, num_classes: int = 3, *, in_channels: int = 3, image_size: int = 28, components: int = 60):
        super().__init__(num_classes)
        check_positive(num_classes=num_classes, in_channels=in_channels, image_size=image_size, components=components)
        self.input_shape = (in_channels, image_size, image_size)
        self.components = components
        self.register_buffer("planes", torch.zeros(num_classes, in_channels * image_size * image_size))
        self.register_buffer("offsets", torch.zeros(num_classes))

    def features(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)

    def fit(self, features: Tensor, labels: Tensor, rows: Tensor) -> None:
        """The planes of the clips `rows`. A class without clips is never predicted."""
        x, classes = features[rows].double(), labels[rows]
        mean = x.mean(0)
        x = x - mean
        counts = torch.bincount(classes, minlength=self.num_classes)
        # The components from the eigenvectors of the clips' products: there are fewer clips than pixels.
        products, vectors = torch.linalg.eigh(x @ x.T)
        kept = products > products[-1] * 1e-10
        kept[: len(x) - min(self.components, len(x) - int((counts > 0).sum()))] = False
        axes = x.T @ vectors[:, kept] / products[kept].sqrt()
        x = x @ axes
        means = x.new_zeros(self.num_classes, x.shape[1]).index_add_(0, classes, x) / counts.clamp_min(1)[:, None]
        within = x - means[classes]
        planes = means @ torch.linalg.pinv(within.T @ within / len(x), hermitian=True)
        offsets = -(planes * means).sum(1) / 2
        planes = planes @ axes.T
        self.planes.copy_(planes)
        self.offsets.copy_(torch.where(counts > 0, offsets - planes @ mean, -torch.inf))

    def decide(self, features: Tensor) -> Tensor:
        return features @ self.planes.T + self.offsets
