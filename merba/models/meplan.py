"""ME-PLAN (Zhao et al., Neural Networks 153, 2022), our reading of it: a 3D network with class prototypes, trained in episodes.

Its abstract states a 3D residual prototypical network that is trained in episodes, local-wise attention, sequences of key frames
around the apex, and transfer of expression-related knowledge; no code is public. Our choices: R3D-18 on 16 grey frames of 112 px
(view key16); attention by one map, after stage 3; squared distances from prototypes, as in Snell et al. (NeurIPS 2017); the
numbers of an episode; no transfer, or weights from Kinetics in torchvision's file (`pretrained`); the size `meplan_small`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from merba.models.arguments import check_counts, check_positive
from merba.models.heads import classification_loss
from merba.models.r3d import R3D

SIZES: dict[str, dict] = {
    "meplan": {},
    "meplan_small": {"length": 8, "image_size": 56, "widths": (16, 32, 64, 128), "blocks": 1},
}
PART = 32
"""Clips embedded at a time when the prototypes are made, to save memory."""


class LocalAttention(nn.Module):
    """Emphasises places of a map x (B, channels, T, H, W): x · (1 + sigmoid of a 1×1×1 convolution), at first all alike."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, 1, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.conv(x).sigmoid())


class Prototypes(nn.Module):
    """Logits (B, num_classes) of embeddings (B, features): minus the squared distance from each class's prototype."""

    def __init__(self, num_classes: int, features: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(num_classes, features))  # a buffer: checkpoints keep it

    def forward(self, embeddings: Tensor) -> Tensor:
        return nearness(embeddings, self.means)

    def settle(self, embeddings: Tensor, labels: Tensor) -> None:
        """Each prototype becomes the mean of its class's embeddings (n, features); without any, it is infinitely far away."""
        for label, mean in enumerate(self.means):
            own = embeddings[labels == label]
            mean.copy_(own.mean(0) if len(own) else torch.full_like(mean, torch.inf))


class MEPLAN(nn.Module):
    """ME-PLAN; input float (B, length, 1, image_size, image_size), grey; output logits (B, num_classes), in training embeddings.

    An epoch has `episodes` batches, each with `support` and `queries` clips of every class. widths and blocks: the channels of
    the backbone's four stages, and the blocks of each.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        length: int = 16,
        image_size: int = 112,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 2,
        support: int = 5,
        queries: int = 10,
        episodes: int = 10,
    ):
        super().__init__()
        check_positive(num_classes=num_classes, length=length, image_size=image_size, blocks=blocks)
        check_counts("widths", widths, 4)
        check_positive(support=support, queries=queries, episodes=episodes)
        self.input_shape = (length, 1, image_size, image_size)
        self.support, self.queries, self.episodes = support, queries, episodes
        self.backbone = R3D(1, widths, blocks, LocalAttention(widths[2]))
        self.prototypes = Prototypes(num_classes, widths[3])

    def forward(self, clips: Tensor) -> Tensor:
        embeddings = self.embed(clips)
        return embeddings if self.training else self.prototypes(embeddings)

    def embed(self, clips: Tensor) -> Tensor:
        """The embeddings, float32 (B, widths[3]), of clips (B, length, 1, H, W)."""
        return self.backbone(clips.transpose(1, 2)).float()

    def episode(self, labels: Tensor, random: Generator) -> Tensor:
        """The clips of an episode: indices into `labels`, int64 (b,), class by class, `support` clips before `queries` others.

        If a class has fewer clips, some occur more than once, but none as both support and query, unless it is the only one. A
        class without clips is left out.
        """
        return torch.cat([self._drawn((labels == label).nonzero()[:, 0], random) for label in labels.unique()])

    def _drawn(self, clips: Tensor, random: Generator) -> Tensor:
        shuffled = clips[torch.randperm(len(clips), generator=random)]
        support = min(self.support, max(1, len(clips) * self.support // (self.support + self.queries)))
        queries = shuffled[support:] if len(clips) > 1 else shuffled
        return torch.cat(
            [
                shuffled[torch.arange(self.support) % support],
                queries[torch.arange(self.queries) % len(queries)],
            ]
        )

    def loss(self, embeddings: Tensor, labels: Tensor, *, class_weights: Tensor | None = None, **options: object) -> Tensor:
        """The classification loss of an episode's queries, by prototypes that are the means of its support clips.

        Embeddings and labels are in the order of `episode`; `options` are those of `classification_loss`.
        """
        groups = embeddings.unflatten(0, (-1, self.support + self.queries))
        support, queries = groups.split([self.support, self.queries], 1)
        logits = nearness(queries.flatten(0, 1), support.mean(1))
        classes = labels.view(len(groups), -1)[:, 0]
        if class_weights is not None:
            class_weights = class_weights[classes]
        places = torch.arange(len(groups), device=labels.device).repeat_interleave(self.queries)
        return classification_loss(logits, places, class_weights=class_weights, **options)

    def settle(self, inputs: Tensor, labels: Tensor) -> None:
        """Make the prototypes of the training clips `inputs` (n, length, 1, H, W) and their `labels` (n,)."""
        self.prototypes.settle(torch.cat([self.embed(part) for part in inputs.split(PART)]), labels)

    def load_pretrained(self, path: str | Path) -> None:
        """Load the backbone from torchvision's file of `r3d_18` (see `R3D.load_pretrained`)."""
        self.backbone.load_pretrained(path)


def nearness(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """Minus the squared distances (n, k) of embeddings (n, d) from prototypes (k, d)."""
    return -(embeddings[:, None] - prototypes).square().sum(2)
