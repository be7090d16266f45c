"""SLSTT (Zhang et al., IEEE TAFFC 13(4), 2022): short- and long-range relations by a ViT and an LSTM over long-term flows.

From its authors' code (github.com/Vision-Intelligence-and-Robots-Group/SLSTT): eleven frames around the apex, each as
Farneback's flow from the onset, drawn as an image (hue: direction; brightness: length, scaled per frame); ViT-B/16 at 384 px,
pretrained and never trained, because its blocks run without gradients; over the class tokens, an LSTM of three layers and
two linear layers, or the mean of a linear layer's logits. Our choices: faces aligned as for all methods; flow at 224 px,
enlarged to 384; in clips of fewer than eleven frames, the missing ones interpolated linearly, not by RIFE; tokens cached by the
view, in evaluation mode and before the last norm, which is trained; the sizes `slstt_small` and, for the demo, `slstt_demo`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_choice, check_positive
from merba.models.vit import EPSILON, ViT, load_vit, vit_of

SIZES: dict[str, dict] = {
    "slstt": {},
    "slstt_small": {"encoder": "train", "flow_size": 112, "image_size": 112, "width": 192, "depth": 6, "heads": 3, "hidden": 128},
    "slstt_demo": {
        "encoder": "train",
        "flow_size": 112,
        "image_size": 56,
        "patch": 8,
        "width": 96,
        "depth": 3,
        "heads": 3,
        "hidden": 64,
    },
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels."""


class SLSTT(nn.Module):
    """SLSTT; output logits (B, num_classes).

    encoder: `cached`: the input is class tokens (B, length, width) of the view's frozen encoder; `frozen`: the input is u and v
    (B, length, 2, flow_size, flow_size), px, and the encoder runs without gradients; `train`: the same input, and the encoder is
    trained too.
    aggregator: `lstm`, or `mean` of the frames' logits.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        encoder: str = "cached",
        aggregator: str = "lstm",
        length: int = 11,
        flow_size: int = 224,
        image_size: int = 384,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_positive(num_classes=num_classes, length=length, flow_size=flow_size, width=width, hidden=hidden)
        check_choice("encoder", encoder, ("cached", "frozen", "train"))
        check_choice("aggregator", aggregator, ("lstm", "mean"))
        sizes = {"image_size": image_size, "patch": patch, "width": width, "depth": depth, "heads": heads, "dropout": dropout}
        self.whole = sizes | {"aggregator": aggregator, "length": length, "flow_size": flow_size, "hidden": hidden}
        self.input_shape = (length, width) if encoder == "cached" else (length, 2, flow_size, flow_size)
        self.num_classes, self.frozen = num_classes, encoder == "frozen"
        self.needs_pretrained = encoder != "train"
        self.encoder = None if encoder == "cached" else ViT(**sizes).requires_grad_(not self.frozen)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.aggregator = LSTM(width, hidden, num_classes) if aggregator == "lstm" else Mean(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.aggregator(self.norm(x if self.encoder is None else self.tokens(x)))

    def tokens(self, flow: Tensor) -> Tensor:
        """The class tokens (B, length, width) of flow (B, length, 2, H, W), frame by frame."""
        images = flow_images(flow.flatten(0, 1), self.encoder.image_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder(images)[:, 0].unflatten(0, flow.shape[:2])

    def train(self, mode: bool = True) -> SLSTT:
        """Set the mode, but leave a frozen encoder in evaluation mode, without dropout."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def uncached(self) -> SLSTT:
        """The whole method with its encoder, to count its parameters and FLOPs."""
        return self if self.encoder is not None else SLSTT(self.num_classes, encoder="frozen", **self.whole)

    def load_pretrained(self, path: str | Path) -> None:
        """Load the last norm, and the encoder if the model has one, from a ViT's file with timm's names."""
        load_vit(self.encoder, self.norm, Path(path))
        if self.encoder is not None:
            self.encoder.requires_grad_(not self.frozen)


class LSTM(nn.Module):
    """Three LSTM layers over the tokens of the frames (B, T, width), two linear layers on the last output: (B, classes)."""

    def __init__(self, width: int, hidden: int, num_classes: int):
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, num_layers=3, batch_first=True)
        self.fc1 = nn.Linear(hidden, hidden // 2)
        self.fc2 = nn.Linear(hidden // 2, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs, _ = self.lstm(tokens)
        return self.fc2(F.relu(self.fc1(outputs[:, -1])))


class Mean(nn.Module):
    """The mean over frames of a linear layer's logits: tokens (B, T, width) → (B, classes)."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(tokens).mean(1)


def flow_images(flow: Tensor, side: int) -> Tensor:
    """Flow (n, 2, H, W), px, as the images (n, 3, side, side) that ViT sees, normalised as ImageNet's.

    HSV: hue is the direction (0°: to the right, red; 120°, green, is down and left), saturation full, brightness the length,
    scaled from the frame's shortest to its longest.
    """
    u, v = flow.float().unbind(1)
    sextant = torch.atan2(v, u) * (3 / math.pi) % 6
    length = torch.hypot(u, v)
    shortest, longest = length.amin((1, 2), keepdim=True), length.amax((1, 2), keepdim=True)
    brightness = torch.where(longest > shortest, (length - shortest) / (longest - shortest), 0.0)
    # At full saturation, a colour channel depends only on how far the hue is from the channel's own third of the circle.
    turns = torch.stack([sextant, sextant + 4, sextant + 2], 1) % 6
    rgb = ((turns - 3).abs() - 1).clamp(0, 1) * brightness[:, None]
    if rgb.shape[2] != side:
        rgb = F.interpolate(rgb, (side, side), mode="bilinear")
    mean, std = (rgb.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (rgb - mean) / std


def frozen_encoder(path: Path, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a clip's flow (T, 2, H, W), px, to class tokens, float32 (T, width), before the last norm."""
    encoder = vit_of(path).to(device)

    @torch.inference_mode()
    def encode(flow: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(np.float32(flow)).to(device).split(1)  # one at a time: little memory, and no slower
        return torch.cat([encoder(flow_images(frame, encoder.image_size))[:, 0] for frame in frames]).cpu().numpy()

    return encode
