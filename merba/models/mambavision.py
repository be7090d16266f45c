"""MambaVision (Hatamizadeh & Kautz, CVPR 2025), the paper's baseline, written from its paper.

Numerically the official network, with the official names and shapes of all parameters, so that its published
checkpoints load by name (`merba.models.pretrained`; their licence is non-commercial and none is shipped here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_counts, check_positive, check_ratio
from merba.models.merba import STEM_STRIDES, Attention, Block, ConvBlock, Stem
from merba.scan import selective_scan, window_conv

SIZES: dict[str, dict] = {
    "mambavision_tiny": {"dim": 80, "stem_dim": 32, "depths": (1, 3, 8, 4)},
    "mambavision_tiny2": {"dim": 80, "stem_dim": 32, "depths": (1, 3, 11, 4)},
    "mambavision_small": {"dim": 96, "depths": (3, 3, 7, 5)},
    "mambavision_base": {"layer_scale": 1e-5, "drop_path": 0.3},
    "mambavision_large": {"dim": 196, "heads": (16, 32), "layer_scale": 1e-5, "drop_path": 0.3},
    "mambavision_large2": {
        "dim": 196,
        "depths": (3, 3, 12, 5),
        "heads": (16, 32),
        "layer_scale": 1e-5,
        "drop_path": 0.3,
    },
    "mambavision_large3": {
        "dim": 256,
        "depths": (3, 3, 20, 10),
        "heads": (16, 32),
        "windows": (16, 8),
        "layer_scale": 1e-5,
        "drop_path": 0.5,
    },
    # Not official: the widths, heads and blocks per stage of merba_nano, for comparison with it; windows as large as the maps.
    "mambavision_nano": {
        "image_size": 56,
        "stem_stride": 1,
        "stem_dim": 8,
        "dim": 16,
        "depths": (1, 3, 4, 3),
        "heads": (2, 4),
        "drop_path": 0.1,
    },
}


class PatchEmbed(nn.Module):
    """The stem, under its official name."""

    def __init__(self, in_channels: int, stem_dim: int, dim: int, stride: int):
        super().__init__()
        self.conv_down = Stem(in_channels, stem_dim, dim, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_down(x)


class MambaVisionMixer(nn.Module):
    """Tokens of a window in raster order (B, L, dim) → (B, L, dim)."""

    def __init__(self, dim: int, state: int = 8):
        super().__init__()
        inner, self.sizes = dim // 2, [math.ceil(dim / 16), state, state]
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d_x = nn.Conv1d(inner, inner, 3, groups=inner, bias=False)
        self.conv1d_z = nn.Conv1d(inner, inner, 3, groups=inner, bias=False)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(self.sizes[0], inner)
        # Computed on the CPU: on the meta device, arithmetic makes PyTorch import its compiler, which takes a second.
        levels = torch.arange(1.0, state + 1, device="cpu").log()
        self.A_log = nn.Parameter(torch.empty(inner, state).copy_(levels))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(2 * inner, dim, bias=False)

    def forward(self, tokens: Tensor, where: None) -> Tensor:
        path = torch.arange(tokens.shape[1], dtype=torch.int32, device=tokens.device)[None, None]
        x, z = self.in_proj(tokens).chunk(2, dim=-1)
        x = window_conv(x, self.conv1d_x.weight[:, 0], paths=path)[:, 0]
        z = window_conv(z, self.conv1d_z.weight[:, 0], paths=path)[:, 0]
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)
        A = -torch.exp(self.A_log.float())
        # The official network adds the bias of dt twice, in the projection and in the scan, and was trained like this.
        dt, bias = self.dt_proj(dt), self.dt_proj.bias
        y = selective_scan(x, dt, A, B, C, self.D, delta_bias=bias, delta_softplus=True)
        return self.out_proj(torch.cat([y, z], dim=-1))


class Level(nn.Module):
    """One stage; its downsampling comes last. With a window, blocks work inside each window.

    As in the official network, the map is padded with zeros to a multiple of the window, and these zeros are ordinary tokens.
    """

    def __init__(self, dim: int, blocks: Sequence[nn.Module], window: int | None, downsample: bool):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.window = window
        conv = nn.Conv2d(dim, 2 * dim, 3, 2, 1, bias=False)
        self.downsample = nn.ModuleDict({"reduction": nn.ModuleList([conv])}) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None:
            for block in self.blocks:
                x = block(x)
        else:
            height, width, w = *x.shape[2:], self.window
            x = F.pad(x, (0, -width % w, 0, -height % w))
            rows, columns = x.shape[2] // w, x.shape[3] // w
            x = x.unflatten(3, (columns, w)).unflatten(2, (rows, w))  # (B, C, rows, w, columns, w)
            x = x.permute(0, 2, 4, 3, 5, 1).flatten(0, 2).flatten(1, 2)  # (B · windows, w · w, C)
            for block in self.blocks:
                x = block(x, None)
            x = x.unflatten(1, (w, w)).unflatten(0, (-1, rows, columns)).permute(0, 5, 1, 3, 2, 4)
            x = x.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
        return x if self.downsample is None else self.downsample["reduction"][0](x)


class MambaVision(nn.Module):
    """MambaVision; input float (B, in_channels, image_size, image_size), output logits (B, num_classes).

    The defaults are B's sizes. Levels 1 and 2 are convolution blocks; 3 and 4 mixers, then self-attention in the later
    half of the blocks (the smaller half of an odd number), both inside windows. heads and windows are those of levels 3 and 4.
    stem_stride: 1, 2 or 4; officially 4.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        image_size: int = 224,
        stem_stride: int = 4,
        stem_dim: int = 64,
        dim: int = 128,
        depths: Sequence[int] = (3, 3, 10, 5),
        heads: Sequence[int] = (8, 16),
        windows: Sequence[int] = (14, 7),
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        drop_path: float = 0.2,
    ):
        super().__init__()
        check_counts("depths", depths, 4)
        check_counts("heads", heads, 2)
        check_counts("windows", windows, 2)
        check_positive(
            num_classes=num_classes, in_channels=in_channels, image_size=image_size, stem_dim=stem_dim, dim=dim
        )  # fmt: skip
        check_ratio("mlp_ratio", mlp_ratio)
        if stem_stride not in STEM_STRIDES:
            raise ValueError(f"stem_stride is {stem_stride}; it must be 1, 2 or 4")
        for level, h in enumerate(heads, start=3):
            if (dim << (level - 1)) % h:
                raise ValueError(f"heads of level {level} is {h}; it must be a divisor of {dim << (level - 1)}")
        self.input_shape = (in_channels, image_size, image_size)
        self.patch_embed = PatchEmbed(in_channels, stem_dim, dim, stem_stride)
        self.levels = nn.ModuleList()
        rates = [drop_path * i / (sum(depths) - 1) for i in range(sum(depths))]
        for level, depth in enumerate(depths):
            width, late = dim << level, level >= 2
            own_rates = rates[sum(depths[:level]) :][:depth]
            if late:
                attention = [i > depth // 2 if depth % 2 else i >= depth // 2 for i in range(depth)]
                blocks = [
                    Block(
                        width,
                        Attention(width, heads[level - 2], 0.0) if attend else MambaVisionMixer(width),
                        mlp_ratio,
                        dropout=0.0,
                        drop_path=p,
                        layer_scale=layer_scale,
                    )
                    for attend, p in zip(attention, own_rates, strict=True)
                ]
            else:
                blocks = [ConvBlock(width, p) for p in own_rates]
            self.levels.append(Level(width, blocks, windows[level - 2] if late else None, downsample=level < 3))
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"the input has shape {tuple(x.shape)}; it must be {('batch', *self.input_shape)}")
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        for level in self.levels:
            x = level(x)
        return self.head(self.norm(x).mean((2, 3)))


def _initialise(module: nn.Module) -> None:
    """The official initialisation: weights of all linear layers, dt_proj too, from a narrow normal distribution; biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
