"""HTNet (Wang et al., Neurocomputing 2024): a hierarchical transformer over four facial regions of the flow.

Names and shapes of all parameters are its authors', so that their weight files load with `strict=True`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_counts, check_positive

SIZES: dict[str, dict] = {"htnet": {}}


def htnet_regions(flow: Tensor, points: Tensor) -> Tensor:
    """HTNet's input: four regions of half the image's side, around the eyes and the corners of the mouth.

    flow (B, C, H, W), H and W even; points (B, 5, 2), eye centres, nose tip and mouth corners, image left first, x and y
    in the flow's pixels. The result has the shape of flow: the image-left eye at top left, its mouth corner at top right, the
    image-right eye and mouth corner below them. Regions are moved inside the image; sizes that don't fit raise ValueError.
    A deviation from the authors: x is the column (their code takes it for the row, which moves a region by the difference
    of x and y).
    """
    batch, _, height, width = flow.shape
    if height % 2 or width % 2:
        raise ValueError(f"flow is {height}×{width}; height and width must be even")
    if points.shape != (batch, 5, 2):
        raise ValueError(f"points has shape {tuple(points.shape)}; it must be ({batch}, 5, 2)")
    centres = points[:, [0, 3, 1, 4]].to(flow.device)
    half = torch.tensor([width // 2, height // 2], device=flow.device)
    corners = (centres.floor() - half / 2).long().clamp(min=torch.zeros_like(half), max=half)
    rows = corners[..., 1, None] + torch.arange(height // 2, device=flow.device)  # (B, 4, H / 2)
    columns = corners[..., 0, None] + torch.arange(width // 2, device=flow.device)
    sample = torch.arange(batch, device=flow.device)[:, None, None, None]
    regions = flow.permute(0, 2, 3, 1)[sample, rows[..., None], columns[:, :, None]]  # (B, 4, H / 2, W / 2, C)
    regions = regions.unflatten(1, (2, 2)).permute(0, 5, 1, 3, 2, 4)
    return regions.reshape(flow.shape)


class LayerNorm(nn.Module):
    """Layer norm over the channels of a map (B, dim, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.g.flatten(), self.b.flatten(), 1e-5)
        return x.permute(0, 3, 1, 2)


class PreNorm(nn.Module):
    """The layer `fn` after a layer norm over channels, of maps (B, dim, H, W)."""

    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.norm = LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class FeedForward(nn.Module):
    """Two linear layers at each position of a map (B, dim, H, W), with a GELU between them."""

    def __init__(self, dim: int, mlp_ratio: int, dropout: float):
        super().__init__()
        hidden = dim * mlp_ratio
        self.net = nn.Sequential(
            nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.Dropout(dropout), nn.Conv2d(hidden, dim, 1), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Attention(nn.Module):
    """Self-attention among the positions of a map; heads that don't divide dim use the largest multiple below it."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        inner = dim // heads * heads
        self.heads, self.dropout = heads, dropout
        self.to_qkv = nn.Conv2d(dim, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, dim, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        # (B, 3, heads, channels, positions) → three of (B, heads, positions, channels)
        q, k, v = self.to_qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.to_out(y.transpose(2, 3).flatten(1, 2).unflatten(2, size))


class Transformer(nn.Module):
    """`depth` layers of attention and feed-forward on maps (B, dim, H, W); positions: H times W."""

    def __init__(self, dim: int, positions: int, depth: int, heads: int, mlp_ratio: int, dropout: float):
        super().__init__()
        self.pos_emb = nn.Parameter(torch.randn(positions))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PreNorm(dim, Attention(dim, heads, dropout)),
                    PreNorm(dim, FeedForward(dim, mlp_ratio, dropout)),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_emb.view(x.shape[2:])
        for attention, feed_forward in self.layers:
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class HTNet(nn.Module):
    """Patches, then a transformer within each of 4^l blocks of the map, l = 2, 1, 0; between levels the map is halved.

    Input float (B, in_channels, image_size, image_size): a face's flow after `arrange`, which cuts out the four regions
    (`htnet_regions`). Output logits (B, num_classes). image_size must be a multiple of 4 patches: 28, 56, … with patches
    of 7. Width and heads double at each level.
    """

    arrange = staticmethod(htnet_regions)

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        image_size: int = 28,
        patch_size: int = 7,
        dim: int = 256,
        heads: int = 3,
        depths: Sequence[int] = (2, 2, 10),
        mlp_ratio: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive(
            num_classes=num_classes, in_channels=in_channels, patch_size=patch_size, dim=dim,
            heads=heads, mlp_ratio=mlp_ratio,
        )  # fmt: skip
        check_counts("depths", depths)
        blocks = 2 ** (len(depths) - 1)
        unit = patch_size * blocks
        if image_size < unit or image_size % unit:
            nearest = max(1, round(image_size / unit)) * unit
            raise ValueError(f"image_size is {image_size}; it must be a multiple of {unit}, such as {nearest}")
        self.input_shape, self.patch_size = (in_channels, image_size, image_size), patch_size
        positions = (image_size // unit) ** 2
        patches = nn.Conv2d(in_channels * patch_size**2, dim, 1)
        self.to_patch_embedding = nn.ModuleList([nn.Identity(), patches])
        self.layers = nn.ModuleList()
        for level, depth in enumerate(depths):
            width, next_width = dim << level, dim << (level + 1)
            transformer = Transformer(width, positions, depth, heads << level, mlp_ratio, dropout)
            last = level == len(depths) - 1
            self.layers.append(nn.ModuleList([transformer, nn.Identity() if last else _halve(width, next_width)]))
        self.mlp_head = nn.ModuleList([LayerNorm(width), nn.Identity(), nn.Linear(width, num_classes)])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"the input has shape {tuple(x.shape)}; it must be {('batch', *self.input_shape)}")
        # A patch's pixels become channels, the colour channel fastest.
        x = F.pixel_unshuffle(x, self.patch_size).unflatten(1, (x.shape[1], -1)).transpose(1, 2).flatten(1, 2)
        x = self.to_patch_embedding[1](x)
        for level, (transformer, halve) in enumerate(self.layers):
            blocks = 2 ** (len(self.layers) - 1 - level)
            x = x.unflatten(3, (blocks, -1)).unflatten(2, (blocks, -1))  # (B, C, blocks, h, blocks, w)
            x = transformer(x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
            x = x.unflatten(0, (-1, blocks, blocks)).permute(0, 3, 1, 4, 2, 5)
            x = halve(x.flatten(4, 5).flatten(2, 3))
        norm, _, linear = self.mlp_head
        return linear(norm(x).mean((2, 3)))


def _halve(dim: int, dim_out: int) -> nn.Sequential:
    """Block aggregation: a convolution joins neighbouring blocks, then max pooling with stride 2 halves the map."""
    return nn.Sequential(nn.Conv2d(dim, dim_out, 3, padding=1), LayerNorm(dim_out), nn.MaxPool2d(3, 2, 1))
