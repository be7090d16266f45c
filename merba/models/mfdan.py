"""MFDAN (Cai et al., IEEE TCSVT 34(12), 2024), our reading of it: a ViT on the apex frame that looks where the flow moves.

Its abstract states two branches, flow and image; a Transformer on the image whose attention is driven by the flow at several
levels; DropKey (Li et al., CVPR 2023); focal loss. It names no sizes. Our choices: ViT-S with timm's names and SLSTT's GELU, in
four levels of three blocks; four convolutions on the flow, and one more for each level, whose map gives every patch a bias for
each head, 0 at the start; the class token has the bias 0 as a key and is never dropped.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_positive, check_ratio
from merba.models.heads import focal_loss
from merba.models.vit import EPSILON, ViT, load_vit

SIZES: dict[str, dict] = {"mfdan": {}, "mfdan_small": {"image_size": 112, "width": 128, "depth": 4, "heads": 2}}
PATCH = 16
"""The side of a patch, px: four convolutions of stride 2 give the flow's maps the size of the image's grid of patches."""
LEVELS = 4


def convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 3×3 convolution, BatchNorm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class FlowEncoder(nn.Module):
    """Flow (B, 2, H, W) → a map for each level, (B, LEVELS, width, H / 16, W / 16)."""

    def __init__(self, width: int):
        super().__init__()
        widths = [2, width // 8, width // 4, width // 2, width]
        self.stem = nn.Sequential(*(convolution(inputs, outputs, 2) for inputs, outputs in pairwise(widths)))
        self.levels = nn.ModuleList(convolution(width, width, 1) for _ in range(LEVELS))

    def forward(self, flow: Tensor) -> Tensor:
        maps = [self.stem(flow)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return torch.stack(maps[1:], 1)


def attention_mask(bias: Tensor, drop: float) -> Tensor:
    """The mask of attention, the class token first, from the bias of each patch as a key (B, heads, patches).

    Each query drops each patch with probability `drop`, independently (DropKey): its mask is −∞. Shape (B, heads, 1 + patches,
    1 + patches); without `drop`, queries share one row: (B, heads, 1, 1 + patches).
    """
    mask = bias[:, :, None]
    if drop:
        mask = mask.expand(-1, -1, 1 + bias.shape[2], -1)
        mask = mask.masked_fill(torch.rand_like(mask, dtype=torch.float32) < drop, -math.inf)
    return F.pad(mask, (1, 0))


class MFDAN(nn.Module):
    """MFDAN; input float (B, 1, 3, image_size, image_size), grey, u and v of the apex; output logits (B, num_classes).

    drop_key: the fraction of the keys that the first block drops in training; it falls linearly to 0 in the last one.
    gamma: of the focal loss.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int = 224,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        drop_key: float = 0.3,
        gamma: float = 2.0,
    ):
        super().__init__()
        check_positive(num_classes=num_classes, width=width, depth=depth)
        if depth % LEVELS or width % 16:
            raise ValueError(f"depth {depth} must be a multiple of {LEVELS}, width {width} one of 16")
        if not 0 <= drop_key < 1:
            raise ValueError(f"drop_key is {drop_key}; it must be at least 0 and below 1")
        if gamma:
            check_ratio("gamma", gamma)
        self.input_shape = (1, 3, image_size, image_size)
        self.gamma = gamma
        self.drop_keys = [drop_key * (depth - 1 - block) / (depth - 1) for block in range(depth)]
        self.vit = ViT(image_size=image_size, patch=PATCH, channels=1, width=width, depth=depth, heads=heads, dropout=0.0)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.flow = FlowEncoder(width // 2)
        self.biases = nn.ModuleList(nn.Conv2d(width // 2, heads, 1) for _ in range(LEVELS))
        for bias in self.biases:  # at first the ViT ignores the flow: weights from a file work as they did
            nn.init.zeros_(bias.weight)
            nn.init.zeros_(bias.bias)
        self.head = nn.Linear(width + width // 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        grey, flow = x[:, 0].split([1, 2], 1)
        maps = self.flow(flow).unbind(1)
        biases = [bias(level).flatten(2) for bias, level in zip(self.biases, maps, strict=True)]
        blocks_a_level = len(self.drop_keys) // LEVELS
        masks = [
            attention_mask(biases[block // blocks_a_level], drop if self.training else 0.0)
            for block, drop in enumerate(self.drop_keys)
        ]
        token = self.norm(self.vit(grey, masks)[:, 0])
        return self.head(torch.cat([token, maps[-1].mean((2, 3))], 1))

    def loss(
        self, logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0, **_: object
    ) -> Tensor:
        """Focal loss; it doesn't change with the progress of training."""
        return focal_loss(logits, labels, gamma=self.gamma, class_weights=class_weights, label_smoothing=label_smoothing)

    def load_pretrained(self, path: str | Path) -> None:
        """Load the ViT from a file with timm's names, such as vit_small_patch16_224; its patch embedding summed over colour."""
        load_vit(self.vit, self.norm, Path(path))
