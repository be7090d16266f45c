"""MERba (arXiv 2506.14468): multi-receptive-field MambaVision for micro-expression recognition.

    flow (B, in_channels, H, W)
      → stem                        convolutions down to a map of about 56×56
      → FFE                         stage 1: residual convolution blocks
      → LGFI ×3                     stages 2–4: halve the map, then
          local extractor blocks    Mamba mixers along several paths through each 7×7 window
          attention blocks          self-attention over the whole map
      → norm, average → head        one linear layer, or DGCM

Maps are kept in channels-last memory, so that a map (B, C, H, W) and its tokens (B, H·W, C), listed in raster order,
are two views of the same numbers. Windows are never cut out: the scan reads their tokens by index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_choice, check_counts, check_heads, check_positive, check_ratio, height_and_width
from merba.models.dropout import Dropout, DropPath, LinearGELUDropout
from merba.models.heads import Outputs, make_head
from merba.scan import DIRECTIONS, PRESETS, window_conv, window_paths, window_scan

# The widths, depths and drop paths of MambaVision's B, S and T; of each LGFI stage's blocks the last two are global.
SIZES: dict[str, dict] = {
    "merba_base": {},
    "merba_small": {"dim": 96, "depths": (3, 1, 5, 3), "drop_path": 0.2},
    "merba_tiny": {"stem_dim": 32, "dim": 80, "depths": (1, 1, 6, 2), "drop_path": 0.2},
    "merba_nano": {
        "image_size": 56,
        "stem_dim": 8,
        "dim": 16,
        "depths": (1, 1, 2, 1),
        "heads": (1, 2, 4),
        "drop_path": 0.1,
    },
}


STEM_STRIDES = {4: (2, 2), 2: (2, 1), 1: (1, 1)}
"""Strides of the stem's two convolutions."""


def stride_for(height: int, width: int) -> int:
    """The largest of 4, 2, 1 that leaves a map of at least 56 at its shorter side: 224 → 4, 112 → 2, 56 → 1.

    The maps of stages 2 to 4 are then 28, 14 and 7 for each of these inputs.
    """
    return next((stride for stride in (4, 2) if min(height, width) >= 56 * stride), 1)


class Stem(nn.Sequential):
    """Two 3×3 convolutions, each with batch norm and ReLU; together of stride 4, 2 or 1."""

    def __init__(self, in_channels: int, stem_dim: int, dim: int, stride: int):
        first, second = STEM_STRIDES[stride]
        super().__init__(
            nn.Conv2d(in_channels, stem_dim, 3, first, 1, bias=False),
            nn.BatchNorm2d(stem_dim, eps=1e-4),
            nn.ReLU(),
            nn.Conv2d(stem_dim, dim, 3, second, 1, bias=False),
            nn.BatchNorm2d(dim, eps=1e-4),
            nn.ReLU(),
        )


class ConvBlock(nn.Module):
    """Residual convolution block of stage 1, as in MambaVision."""

    def __init__(self, dim: int, drop_path: float):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norm1(self.conv1(x)), approximate="tanh")
        return self.drop_path(x, self.norm2(self.conv2(y)))


class FFE(nn.Sequential):
    """Stage 1, fine-grained feature extraction: convolution blocks on the stem's map."""

    def __init__(self, dim: int, drop_paths: Sequence[float]):
        super().__init__(*(ConvBlock(dim, p) for p in drop_paths))


class Mixer(nn.Module):
    """MambaVision's mixer along K paths at once, without its last linear layer.

    Tokens (B, L, dim) → two halves (B, K, L, dim / 2), each token's result at its own place. `sets` is 1 if all
    directions share the weights (the input projection is then computed once for all), or K; it is every parameter's
    first axis.
    """

    def __init__(self, dim: int, sets: int, state: int):
        super().__init__()
        inner, rank = dim // 2, math.ceil(dim / 16)
        self.sizes = [rank, state, state]

        def weight(rows: int, columns: int) -> nn.Parameter:
            bound = columns**-0.5  # as in nn.Linear and nn.Conv1d
            return nn.Parameter(torch.empty(sets, rows, columns).uniform_(-bound, bound))

        self.in_proj = weight(2 * inner, dim)  # rows of x, then of z
        self.conv = weight(2 * inner, 3)  # one kernel per channel: those of x, then of z
        self.x_proj = weight(sum(self.sizes), inner)
        self.dt_proj = weight(inner, rank)
        # Mamba's initialisation: the bias is the inverse softplus of time steps spread evenly in logarithm from 0.001 to 0.1.
        # Computed on the CPU: on the meta device, arithmetic makes PyTorch import its compiler, which takes a second.
        dt = torch.empty(sets, inner, device="cpu").uniform_(math.log(0.001), math.log(0.1)).exp()
        self.dt_bias = nn.Parameter(torch.empty(sets, inner).copy_(dt + torch.log(-torch.expm1(-dt))))
        levels = torch.arange(1.0, state + 1, device="cpu").log()
        self.A_log = nn.Parameter(torch.empty(sets, inner, state).copy_(levels))
        self.D = nn.Parameter(torch.ones(sets, inner))

    def forward(self, tokens: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
        def each(parameter: Tensor) -> Tensor:
            return parameter.expand(len(paths), *parameter.shape[1:])

        # x and z by separate products: halves of one product would have to be copied, because the kernels read whole rows.
        x, z = (
            window_conv(_project(tokens.unsqueeze(1), weight), each(kernel), paths=paths)
            for weight, kernel in zip(self.in_proj.chunk(2, 1), self.conv.chunk(2, 1), strict=True)
        )
        dt, B, C = _project(x, self.x_proj).split(self.sizes, dim=-1)
        y = window_scan(
            x,
            _project(dt, self.dt_proj),
            each(-torch.exp(self.A_log.float())),
            B,
            C,
            each(self.D),
            paths=paths,
            delta_bias=each(self.dt_bias),
            delta_softplus=True,
        )
        return y, z


def _project(x: Tensor, weight: Tensor) -> Tensor:
    """Linear map of x (B, 1 or K, L, in) by the weight (1, out, in) of all directions, or by each one's (K, out, in)."""
    if len(weight) == 1:
        return F.linear(x, weight[0])
    return torch.einsum("bkli,koi->bklo", x.expand(-1, len(weight), -1, -1), weight)


class LocalExtractor(nn.Module):
    """The mixer along several paths through each window, fused per token; then MambaVision's last linear layer of the mixer."""

    def __init__(self, dim: int, directions: int, mixer: str, fusion: str, state: int, dropout: float):
        super().__init__()
        self.mixer = Mixer(dim, directions if mixer == "per_direction" else 1, state)
        self.fusion = fusion
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, paths: Tensor) -> Tensor:
        fuse = torch.mean if self.fusion == "mean" else torch.sum
        fused = torch.cat([fuse(part, dim=1) for part in self.mixer(tokens, paths)], dim=-1)
        return self.dropout(self.out_proj(fused))


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, or, given windows (W, length) of token indices, inside each one."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, windows: Tensor | None) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if windows is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            # Padding (-1) reads the last token, but nothing attends to it and its own result is dropped.
            mask = None if windows.numel() == tokens.shape[1] else (windows >= 0).unsqueeze(1)
            q, k, v = (t[:, :, windows] for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            place_of_token = windows.flatten().argsort()[-tokens.shape[1] :]
            y = y.flatten(2, 3)[:, :, place_of_token]
        return self.dropout(self.proj(y.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """Two linear layers with GELU and dropout, of tokens (…, dim)."""

    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.fc1 = LinearGELUDropout(dim, hidden, dropout)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.fc1(x)))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); the token mixer is a local extractor or self-attention."""

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        mlp_ratio: float,
        *,
        dropout: float,
        drop_path: float,
        layer_scale: float | None,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dropout)
        self.drop_path = DropPath(drop_path)
        for branch in ("gamma_1", "gamma_2"):
            gamma = None if layer_scale is None else nn.Parameter(torch.full((dim,), float(layer_scale)))
            self.register_parameter(branch, gamma)

    def forward(self, x: Tensor, where: Tensor | None) -> Tensor:
        """`where`: the token mixer's second argument, the paths or windows in which it works."""
        x = self.drop_path(x, _scale(self.mixer(self.norm1(x), where), self.gamma_1))
        return self.drop_path(x, _scale(self.mlp(self.norm2(x)), self.gamma_2))


def _scale(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


class LGFI(nn.Module):
    """Stages 2–4, local-global feature integration: downsampling, local extractor blocks, global attention blocks.

    Map (B, dim / 2, H, W) → (B, dim, ⌈H/2⌉, ⌈W/2⌉). Paths run through windows (`local`) or through the whole map
    (`global`); attention likewise. If windows don't divide the map, those at its edge hold only real tokens.
    """

    def __init__(
        self,
        dim: int,
        size: tuple[int, int],
        window: int,
        heads: int,
        drop_paths: Sequence[float],
        global_blocks: int,
        *,
        extractor: str,
        attention: str,
        directions: Sequence[str],
        mixer: str,
        fusion: str,
        state: int,
        mlp_ratio: float,
        dropout: float,
        layer_scale: float | None,
    ):
        super().__init__()
        self.size = size
        self.extractor_window = window if extractor == "local" else None
        self.attention_window = window if attention == "local" else None
        self.downsample = nn.Conv2d(dim // 2, dim, 3, 2, 1, bias=False)
        paths = window_paths(directions, *size, self.extractor_window)
        self.register_buffer("paths", torch.from_numpy(paths), persistent=False)
        windows = window_paths(["hr"], *size, window)[0] if attention == "local" else None
        windows = None if windows is None else torch.from_numpy(windows).long()
        self.register_buffer("windows", windows, persistent=False)
        token_mixers = [
            Attention(dim, heads, dropout) if last else LocalExtractor(dim, len(paths), mixer, fusion, state, dropout)
            for last in [False] * (len(drop_paths) - global_blocks) + [True] * global_blocks
        ]
        self.blocks = nn.ModuleList(
            Block(dim, token_mixer, mlp_ratio, dropout=dropout, drop_path=p, layer_scale=layer_scale)
            for token_mixer, p in zip(token_mixers, drop_paths, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, self.windows if isinstance(block.mixer, Attention) else self.paths)
        return tokens.transpose(1, 2).unflatten(2, self.size)


class MERba(nn.Module):
    """MERba; input float (B, in_channels, *image_size), output logits (B, num_classes) or DGCM's pair of logits.

    The defaults are merba_base: MambaVision-B's sizes (paper, Table I). What the ablations change:

    - `extractor`, `attention`: "local" (inside windows) or "global" (the whole map) — Table VI
    - `directions`: a list of scan directions, their names in one string, or a preset (`merba.scan.PRESETS`) — Table VII
    - `fusion`: "mean" or "sum" of the directions; `mixer`: "shared" or "per_direction" weights
    - `head`: "linear", or "dgcm" for the seven-class task

    stem_stride: 1, 2 or 4; None chooses it by the input (`stride_for`). depths: convolution blocks of stage 1, then local
    extractor blocks of stages 2–4; heads: of stages 2–4. Dropout is in the MLPs, after the attention's projection and after
    the extractor's last linear layer. Drop path rises linearly from 0 at the first block to `drop_path` at the last. Values
    that don't fit raise ValueError.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 2,
        image_size: int | tuple[int, int] = 224,
        stem_stride: int | None = None,
        stem_dim: int = 64,
        dim: int = 128,
        depths: Sequence[int] = (3, 1, 8, 3),
        global_blocks: int = 2,
        heads: Sequence[int] = (4, 8, 16),
        window: int = 7,
        state: int = 8,
        mlp_ratio: float = 4.0,
        extractor: str = "local",
        attention: str = "global",
        directions: str | Sequence[str] = "merba",
        mixer: str = "shared",
        fusion: str = "mean",
        head: str = "linear",
        layer_scale: float | None = None,
        dropout: float = 0.1,
        drop_path: float = 0.3,
    ):
        super().__init__()
        height, width = height_and_width(image_size)
        check_choice("extractor", extractor, ("local", "global"))
        check_choice("attention", attention, ("local", "global"))
        check_choice("mixer", mixer, ("shared", "per_direction"))
        check_choice("fusion", fusion, ("mean", "sum"))
        check_counts("depths", depths, 4)
        check_positive(in_channels=in_channels, stem_dim=stem_dim, global_blocks=global_blocks, window=window, state=state)
        check_ratio("mlp_ratio", mlp_ratio)
        check_heads(heads, dim)
        if stem_stride not in (None, *STEM_STRIDES):
            raise ValueError(f"stem_stride is {stem_stride}; it must be 1, 2, 4, or none to go by image_size")
        directions = _directions(directions)

        stride = stem_stride or stride_for(height, width)
        size = (-(-height // stride), -(-width // stride))
        blocks = [depths[0], *(depth + global_blocks for depth in depths[1:])]
        rates = [drop_path * i / (sum(blocks) - 1) for i in range(sum(blocks))]
        self.input_shape = (in_channels, height, width)
        self.stem = Stem(in_channels, stem_dim, dim, stride)
        self.stage1 = FFE(dim, rates[: blocks[0]])
        for stage in (2, 3, 4):
            dim, size = 2 * dim, (-(-size[0] // 2), -(-size[1] // 2))
            first = sum(blocks[: stage - 1])
            lgfi = LGFI(
                dim, size, window, heads[stage - 2], rates[first : first + blocks[stage - 1]], global_blocks,
                extractor=extractor, attention=attention, directions=directions, mixer=mixer, fusion=fusion,
                state=state, mlp_ratio=mlp_ratio, dropout=dropout, layer_scale=layer_scale,
            )  # fmt: skip
            setattr(self, f"stage{stage}", lgfi)
        self.norm = nn.BatchNorm2d(dim)
        self.head = make_head(head, dim, num_classes)

    def forward(self, flow: Tensor) -> Outputs:
        if flow.shape[1:] != self.input_shape:
            raise ValueError(
                f"the input has shape {tuple(flow.shape)}; this model was made for (batch, "
                f"{', '.join(map(str, self.input_shape))}): resize the flow, or set in_channels and image_size"
            )
        x = self.stem(flow.contiguous(memory_format=torch.channels_last))
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.head(self.norm(x).mean((2, 3)))


def _directions(directions: str | Sequence[str]) -> Sequence[str]:
    """The scan directions by name, of a preset or given one by one."""
    if isinstance(directions, str):
        directions = PRESETS.get(directions) or directions.split()
    for name in directions:
        if name not in DIRECTIONS:
            raise ValueError(
                f"directions: unknown scan direction {name!r}; choose from {', '.join(DIRECTIONS)}, or one of the presets "
                f"{', '.join(PRESETS)}"
            )
    return directions
