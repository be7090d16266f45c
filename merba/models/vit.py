"""ViT's encoder (Dosovitskiy et al., ICLR 2021) with timm's parameter names, so that timm's files can be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.errors import MerbaError
from merba.models.arguments import check_positive

EPSILON = 1e-6
"""Of LayerNorm."""
WIDEST = 1024
"""The width of ViT-L. Up to this, heads are 64 wide; those of ViT-H are 80 wide, and others differ again."""


class PatchEmbed(nn.Module):
    """Patches that don't overlap, each a token: images (B, C, H, W) → (B, patches, width), row by row."""

    def __init__(self, channels: int, patch: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention: tokens (B, L, width) → the same shape.

    `mask`, which broadcasts to (B, heads, L, L), is added to the logits of queries (rows) and keys (columns).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, width / heads) each
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers, between them GELU in its tanh approximation, as in SLSTT's code: within 0.001 of timm's exact GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm block: attention, then the MLP, each with dropout and a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = MLP(width, 4 * width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x), mask))
        return x + self.drop(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """Images (B, channels, image_size, image_size) → tokens (B, 1 + patches, width), the class token first, before the last norm.

    The last norm and the head are left to the code that uses the tokens. `masks` has one for each block (see `Attention`).
    """

    def __init__(
        self,
        *,
        image_size: int = 384,
        patch: int = 16,
        channels: int = 3,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_positive(image_size=image_size, patch=patch, channels=channels, width=width, depth=depth, heads=heads)
        if image_size % patch or width % heads:
            raise ValueError(f"image_size {image_size} must be a multiple of patch {patch}, width {width} one of heads {heads}")
        self.image_size, self.width = image_size, width
        self.patch_embed = PatchEmbed(channels, patch, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (image_size // patch) ** 2, width).mul_(0.02))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))

    def forward(self, images: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.pos_embed
        for block, mask in zip(self.blocks, masks or [None] * len(self.blocks), strict=True):
            x = block(x, mask)
        return x


def read_vit(path: Path) -> dict[str, Tensor]:
    """The tensors of a ViT's file with timm's names, without the head. Raises MerbaError if it is not such a file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise MerbaError(f"pretrained: {path} can't be read as a .safetensors file: {error}") from error
    if "patch_embed.proj.weight" not in state or "norm.weight" not in state:
        raise MerbaError(f"pretrained: {path} holds no ViT with timm's names (patch_embed.proj.weight, norm.weight)")
    return {name: tensor.float() for name, tensor in state.items() if not name.startswith("head.")}


def vit_of(path: Path) -> ViT:
    """The frozen encoder of a file (see `read_vit`), in evaluation mode; its sizes are read from the tensors.

    Heads are 64 wide, as in timm's ViTs up to ViT-L. Raises MerbaError if a tensor is missing or has another size, and for
    wider ViTs: their heads have other widths, which the file doesn't say.
    """
    state = read_vit(path)
    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    if width > WIDEST:
        raise MerbaError(f"pretrained: {path} holds a ViT of width {width}; use one of at most {WIDEST}, such as ViT-B or ViT-L")
    sides = round((state["pos_embed"].shape[1] - 1) ** 0.5) if "pos_embed" in state else 1
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    sizes = {"image_size": patch * sides, "patch": patch, "channels": channels, "width": width, "depth": max(depth, 1)}
    with torch.device("meta"):
        encoder = ViT(**sizes, heads=max(width // 64, 1))
    load_strictly(encoder, {name: tensor for name, tensor in state.items() if not name.startswith("norm.")}, path)
    return encoder.eval().requires_grad_(False)


def load_vit(vit: ViT | None, norm: nn.LayerNorm, path: Path) -> None:
    """Load a file's ViT into `vit`, if there is one, and its last norm into `norm`. MerbaError if names or sizes differ.

    For a ViT of one channel, the patch embedding is summed over the file's colours: as if grey images had three equal ones.
    """
    state = read_vit(path)
    of_norm = {name: state.pop(name) for name in list(state) if name.startswith("norm.")}
    load_strictly(nn.ModuleDict({"norm": norm}), of_norm, path)
    if vit is not None:
        embedding = "patch_embed.proj.weight"
        if vit.patch_embed.proj.in_channels == 1:
            state[embedding] = state[embedding].sum(1, keepdim=True)
        load_strictly(vit, state, path)


def load_strictly(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a file's tensors into `module`; MerbaError if names or sizes differ."""
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise MerbaError(f"pretrained: {path} holds a ViT that doesn't fit the model: {error}") from error
