"""What an epoch draws at random: the order of its clips, which of them are mirrored, and how far each is shifted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from merba.training.inputs import FoldData, shifted
from merba.training.settings import TrainingSettings


@dataclass(frozen=True)
class Epoch:
    """An epoch's clips in batches.

    order int64 (n,): rows of the fold's data; mirrored bool (n,) or None; shifts int64 (n, 2), px up and left, or None.
    """

    settings: TrainingSettings
    order: Tensor
    mirrored: Tensor | None
    shifts: Tensor | None

    @property
    def steps(self) -> int:
        """The number of batches; the last one may be smaller."""
        return math.ceil(len(self.order) / self.settings.batch_size)

    def batch(self, data: FoldData, step: int) -> tuple[Tensor, Tensor]:
        """Inputs float32 (b, …) and labels int64 (b,) of a step, counted from 0."""
        part = slice(step * self.settings.batch_size, (step + 1) * self.settings.batch_size)
        index = self.order[part]
        inputs = data.inputs[index]
        if self.mirrored is not None:
            mirror = data.mirrored(index, plain=self.settings.plain_flip)
            mirrored = self.mirrored[part].view(-1, *[1] * (inputs.ndim - 1))
            inputs = torch.where(mirrored, mirror, inputs)
        if self.shifts is not None:
            inputs = shifted(inputs, self.shifts[part])
        return inputs, data.labels[index]


def draw_epoch(rows: np.ndarray, settings: TrainingSettings, random: torch.Generator, device: torch.device) -> Epoch:
    """An epoch of the clips `rows`, int64 (n,), on the device."""
    order = torch.from_numpy(rows)
    if settings.shuffle:
        order = order[torch.randperm(len(order), generator=random)]
    # Drawn without a use for them too, so that the shifts don't depend on `flip`.
    mirrored = torch.rand(len(order), generator=random) < 0.5
    shifts = None
    if settings.shift:
        shifts = torch.randint(-settings.shift, settings.shift + 1, (len(order), 2), generator=random).to(device)
    return Epoch(settings, order.to(device), mirrored.to(device) if settings.flip else None, shifts)
