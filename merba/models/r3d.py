"""R3D-18 (Tran et al., CVPR 2018), a residual network of 3D convolutions, with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from merba.errors import MerbaError

STEM = "stem.0.weight"


class Block(nn.Module):
    """Two 3×3×3 convolutions and a residual connection: map (B, inputs, T, H, W) → (B, outputs, T / stride, …)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Sequential(_conv(inputs, outputs, stride), nn.BatchNorm3d(outputs), nn.ReLU())
        self.conv2 = nn.Sequential(_conv(outputs, outputs, 1), nn.BatchNorm3d(outputs))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.conv2(self.conv1(x)) + shortcut).relu()


class R3D(nn.Module):
    """The features (B, widths[3]) of clips (B, channels, T, H, W): a stem, four stages of `blocks` blocks, average pooling.

    The stem halves height and width, stages 2 to 4 halve time as well. `attention` is a module between stages 3 and 4 that
    leaves a map's shape as it is.
    """

    def __init__(self, channels: int, widths: Sequence[int], blocks: int, attention: nn.Module | None = None):
        super().__init__()
        stem = nn.Conv3d(channels, widths[0], (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm3d(widths[0]), nn.ReLU())
        self.layer1 = _stage(widths[0], widths[0], blocks, stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks, stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks, stride=2)
        self.attention = attention or nn.Identity()
        self.layer4 = _stage(widths[2], widths[3], blocks, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.bias is None:  # all but the attention's
                # As `nn.init.kaiming_normal_`, which on the meta device loads PyTorch's compiler: that takes a second.
                fan_out = module.out_channels * prod(module.kernel_size)
                module.weight = nn.Parameter(torch.randn(module.weight.shape).mul_((2 / fan_out) ** 0.5))

    def forward(self, clips: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(clips))))
        return self.layer4(self.attention(x)).mean((2, 3, 4))

    def load_pretrained(self, path: str | Path) -> None:
        """Load all but the attention from torchvision's file of `r3d_18`, the first layer summed over colour for grey clips.

        So a grey clip gives what its three equal colour channels would. Raises MerbaError if a tensor is missing, too many, or
        of another size.
        """
        from merba.models.pretrained import read_tensors

        state = {name: tensor for name, tensor in read_tensors(path).items() if not name.startswith("fc.")}
        if STEM in state and self.stem[0].in_channels == 1:
            state[STEM] = state[STEM].sum(1, keepdim=True)
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith("attention.")}
        try:
            self.load_state_dict(state | own)
        except RuntimeError as error:
            raise MerbaError(
                f"pretrained: {path} doesn't hold an R3D of the model's size with torchvision's names: {error}"
            ) from error


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, stride), *rest)
