"""Folds of random flow with a signal in it, and a model of one layer: trainings of a second."""

import numpy as np
import torch
from torch import nn

from merba.preprocessing.packs import FlowFormat
from merba.protocols import Split
from merba.training.inputs import prepare
from merba.training.loop import train_fold
from merba.training.settings import TrainingSettings

CPU = torch.device("cpu")
PIXELS = FlowFormat(("u", "v"), "px")
QUICK = TrainingSettings.of({"epochs": 12, "batch_size": 8, "rate": 0.05, "warmup": 2, "cooldown": 2, "patience": 100})


class Small(nn.Module):
    """One linear layer on all pixels, with dropout so that randomness counts."""

    def __init__(self, classes=3, size=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(2 * size * size, classes))

    def forward(self, x):
        return self.layers(x)


def clips(n=48, size=6, seed=0):
    """Flow with the class given by the sign and place of v, plus noise; and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    flow = random.normal(0, 1, (n, 2, size, size))
    for code, rows in enumerate((slice(0, 2), slice(2, 4), slice(4, 6))):
        flow[labels == code, 1, rows] += 1.5
    return flow.astype(np.float16), labels


def split(n=48, validation=True):
    rows = np.arange(n)
    return Split(rows[: n - 12] if validation else rows[: n - 6], rows[n - 12 : n - 6][: 6 * validation], rows[n - 6 :])


def fold(flow, labels, parts, settings=QUICK, seed=1, build=Small):
    data = prepare(flow, labels, parts.train, PIXELS, shape=(2, 6, 6), normalise=True, device=CPU)
    return train_fold(build, data, parts, 3, settings, seed=seed)
