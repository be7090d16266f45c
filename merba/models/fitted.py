"""The base of methods that are fitted by a solver instead of trained by gradients, and their computations on flow maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FittedModel(nn.Module, ABC):
    """A method without gradients. What it learns is in buffers, so that it is saved and loaded like a network.

    A class has its `input_shape`, (C, H, W), or (T, C, H, W) if it takes a view, and its number of classes. `candidates` are
    the settings of `fit` from which training chooses by cross-validation over its subjects. `needs_direction` means that flow
    with an unknown zero can't be used; `holds_clips`, that the buffers contain the training clips themselves.
    """

    input_shape: tuple[int, ...]
    candidates: Sequence[Mapping[str, Any]] = ({},)
    needs_direction = False
    holds_clips = False

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """The features of each of the clips `inputs` (n, *input_shape), float32 (n, …): they depend only on that clip."""

    @abstractmethod
    def fit(self, features: Tensor, labels: Tensor, rows: Tensor, **settings: Any) -> None:
        """Learn only from the clips `rows`, int64 (m,), given all clips' features (n, …) and labels, int64 (n,)."""

    @abstractmethod
    def decide(self, features: Tensor) -> Tensor:
        """Logits, float32 (n, num_classes), of clips by their features."""

    def make_room(self, weights: Mapping[str, Tensor]) -> None:
        """Give the buffers the sizes of those in `weights`, a state dict, which may depend on the number of clips."""

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):  # a solver needs full precision
            return self.decide(self.features(inputs.float()))


def signed(flow: Tensor) -> Tensor:
    """Flow (n, C, H, W), u and v first, made independent of its unit and zero level, clip by clip; float32, same shape.

    The medians over the map are subtracted from u and v, then `unit_size` is applied to all channels. It works for images,
    min–max scaled to 0..255, and for px, commutes with mirroring, and changes nothing if applied twice.
    """
    return unit_size(torch.cat([flow[:, :2] - _quantile(flow[:, :2].flatten(2), 0.5)[..., None, None], flow[:, 2:]], 1))


def unit_size(flow: Tensor) -> Tensor:
    """Flow (n, C, H, W) divided by the 95th percentile of each clip's √(u² + v²); a clip without motion becomes 0."""
    size = _quantile(flow[:, :2].square().sum(1).sqrt().flatten(1), 0.95)[:, None, None, None]
    return torch.where(size > 0, flow / size, 0.0)


def _quantile(values: Tensor, share: float) -> Tensor:
    """Quantiles over the last dimension; PyTorch takes 16 million values at a time."""
    return torch.cat([part.quantile(share, -1) for part in values.split(64)])


def strain(flow: Tensor) -> Tensor:
    """Optical strain magnitude (n, H, W) of flow (n, 2, H, W); see `merba.preprocessing.flow.strain`."""
    (u_y, u_x), (v_y, v_x) = (torch.gradient(flow[:, channel], dim=(1, 2)) for channel in (0, 1))
    return (u_x.square() + v_y.square() + (u_y + v_x).square() / 2).sqrt()
