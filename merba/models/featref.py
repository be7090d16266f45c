"""FeatRef (Zhou et al., Pattern Recognition 122, 2022), our reading of it: shared features, then one branch per expression.

Its abstract states shared features, attention factors, specific features and a proposal for each expression, and their fusion,
but no sizes. The shared part is its predecessor, Dual-Inception (Zhou et al., FG 2019), as in its public code. Our choices: a
branch of linear layers, 128 specific features, the fusion by a linear layer over all specific features, and binary
cross-entropy for the proposals, with weight 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_positive, check_ratio
from merba.models.heads import classification_loss

SIZES: dict[str, dict] = {"featref": {}}
SHARED, SPECIFIC = 1024, 128
"""Features that the expressions share, and features of one expression."""


class Proposed(NamedTuple):
    """What FeatRef returns in training: logits (B, K) of the classes, and of each class's proposal, yes against no."""

    logits: Tensor
    proposals: Tensor


class Inception(nn.Module):
    """Four parallel paths, ReLU after each convolution: map (B, channels, H, W) → (B, 4 · filters, H, W)."""

    def __init__(self, channels: int, filters: int):
        super().__init__()

        def conv(inputs: int, side: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, filters, side, padding=side // 2), nn.ReLU())

        self.paths = nn.ModuleList(
            [
                conv(channels, 1),
                nn.Sequential(conv(channels, 1), conv(filters, 3)),
                nn.Sequential(conv(channels, 1), conv(filters, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([path(x) for path in self.paths], 1)


class DualInception(nn.Module):
    """The shared features (B, 1024) of flow (B, 2, 28, 28): a stream of two inception blocks for u, another for v."""

    def __init__(self):
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(Inception(1, 6), nn.MaxPool2d(2), Inception(24, 16), nn.MaxPool2d(2), nn.Flatten()) for _ in "uv"
        )
        self.linear = nn.Linear(2 * 64 * 7 * 7, SHARED)

    def forward(self, flow: Tensor) -> Tensor:
        streams = zip(self.streams, flow.split(1, 1), strict=True)
        return F.relu(self.linear(torch.cat([stream(x) for stream, x in streams], 1)))


class Branch(nn.Module):
    """One expression: shared features (B, 1024) → its specific features (B, 128) and its proposal's logit (B, 1)."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Linear(SHARED, SHARED)
        self.specific = nn.Linear(SHARED, SPECIFIC)
        self.proposal = nn.Linear(SPECIFIC, 1)

    def forward(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.specific(self.attention(shared).sigmoid() * shared))
        return features, self.proposal(features)


class FeatRef(nn.Module):
    """FeatRef; input float (B, 2, 28, 28), u and v; output logits (B, num_classes), in training `Proposed`.

    divisor: what the input is divided by; 255 for raw values of ready-made images, as its predecessor takes them.
    proposal_weight: weight of the proposals' loss relative to the classes'; 0 gives Dual-Inception with more parameters.
    """

    def __init__(self, num_classes: int, *, divisor: float = 1.0, proposal_weight: float = 1.0):
        super().__init__()
        check_positive(num_classes=num_classes)
        check_ratio("divisor", divisor)
        if proposal_weight:
            check_ratio("proposal_weight", proposal_weight)
        self.input_shape = (2, 28, 28)
        self.divisor, self.proposal_weight = divisor, proposal_weight
        self.shared = DualInception()
        self.branches = nn.ModuleList(Branch() for _ in range(num_classes))
        self.fusion = nn.Linear(num_classes * SPECIFIC, num_classes)

    def forward(self, flow: Tensor) -> Tensor | Proposed:
        if flow.shape[1:] != self.input_shape:
            raise ValueError(f"the input has shape {tuple(flow.shape)}; it must be {('batch', *self.input_shape)}")
        shared = self.shared(flow / self.divisor)
        features, proposals = zip(*(branch(shared) for branch in self.branches), strict=True)
        logits = self.fusion(torch.cat(features, 1))
        return Proposed(logits, torch.cat(proposals, 1)) if self.training else logits

    def loss(self, outputs: Proposed, labels: Tensor, **options: object) -> Tensor:
        """Cross-entropy of the logits (with `options`) plus the weighted mean binary cross-entropy of the proposals."""
        right = F.one_hot(labels, outputs.proposals.shape[1]).float()
        proposal_loss = F.binary_cross_entropy_with_logits(outputs.proposals.float(), right)
        return classification_loss(outputs.logits, labels, **options) + self.proposal_weight * proposal_loss
