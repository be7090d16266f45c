"""How a fold is trained: the settings of a configuration, and the learning rate that they give each step.

Source of every setting: the paper's experiments section, or the "decided" lines of docs/decisions.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from merba.config.validation import Section


@dataclass(frozen=True)
class TrainingSettings(Section, name="training"):
    """An experiment's `training`; merba/config/schemas/config.schema.yaml describes each and has its default."""

    epochs: int
    batch_size: int
    optimizer: str
    rate: float
    min_rate: float
    schedule: str
    warmup: int
    cooldown: int
    weight_decay: float
    patience: int
    label_smoothing: float
    class_weights: str
    convex_loss: bool
    flip: bool
    plain_flip: bool
    shift: int
    weight_average: float
    mirror_average: bool
    shuffle: bool
    normalise: bool


def rate_at(epoch: float, settings: TrainingSettings) -> float:
    """Learning rate after `epoch` epochs (fractions too): linear warm-up, cosine decay, cool-down at the minimum.

    With `step` it is the peak rate until the cool-down.
    """
    low, high = settings.min_rate, settings.rate
    if settings.schedule == "constant":
        return high
    if settings.schedule == "step":
        return high if epoch < settings.epochs - settings.cooldown else low
    if epoch < settings.warmup:
        return low + (high - low) * epoch / settings.warmup
    decay = max(settings.epochs - settings.warmup - settings.cooldown, 1)
    progress = min((epoch - settings.warmup) / decay, 1.0)
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2
