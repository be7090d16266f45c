"""What an epoch draws at random: the clips of each batch, which of them are mirrored, and how far each is shifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from merba.training.inputs import FoldData, shifted
from merba.training.settings import TrainingSettings


@dataclass(frozen=True)
class Epoch:
    """An epoch's batches, each of b clips.

    rows int64 (b,): of the fold's data; mirrored bool (b,) or None; shifts int64 (b, 2), px up and left, or None.
    """

    settings: TrainingSettings
    rows: Sequence[Tensor]
    mirrored: Sequence[Tensor] | None
    shifts: Sequence[Tensor] | None

    @property
    def steps(self) -> int:
        """The number of batches; the last one may be smaller."""
        return len(self.rows)

    @property
    def clips(self) -> int:
        """The number of clips in all batches."""
        return sum(map(len, self.rows))

    def batch(self, data: FoldData, step: int) -> tuple[Tensor, Tensor]:
        """Inputs float32 (b, …) and labels int64 (b,) of a step, counted from 0."""
        index = self.rows[step]
        inputs = data.inputs[index]
        if self.mirrored is not None:
            mirror = data.mirrored(index, plain=self.settings.plain_flip)
            mirrored = self.mirrored[step].view(-1, *[1] * (inputs.ndim - 1))
            inputs = torch.where(mirrored, mirror, inputs)
        if self.shifts is not None:
            inputs = shifted(inputs, self.shifts[step])
        return inputs, data.labels[index]


def draw_epoch(model: nn.Module, data: FoldData, rows: np.ndarray, settings: TrainingSettings, random: torch.Generator) -> Epoch:
    """An epoch of the clips `rows`, int64 (n,), on the data's device: all of them in batches, or the model's episodes.

    A model that has a function `episode(labels, random)` chooses the clips of each of its `episodes` batches by their labels.
    """
    device = data.inputs.device
    order = torch.from_numpy(rows)
    if hasattr(model, "episode"):
        labels = data.labels.cpu()[order]
        batches = [order[model.episode(labels, random)] for _ in range(model.episodes)]
    else:
        if settings.shuffle:
            order = order[torch.randperm(len(order), generator=random)]
        batches = order.split(settings.batch_size)
    sizes = [len(batch) for batch in batches]

    def in_batches(values: Tensor) -> Sequence[Tensor]:
        return values.to(device).split(sizes)

    # Drawn without a use for them too, so that the shifts don't depend on `flip`.
    mirrored = torch.rand(sum(sizes), generator=random) < 0.5
    shifts = None
    if settings.shift:
        shifts = in_batches(torch.randint(-settings.shift, settings.shift + 1, (sum(sizes), 2), generator=random))
    return Epoch(settings, in_batches(torch.cat(batches)), in_batches(mirrored) if settings.flip else None, shifts)
