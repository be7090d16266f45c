"""LBP-TOP and a linear SVM (Zhao & Pietikäinen, TPAMI 29(6), 2007), as the baseline of the MEGC2019 challenge.

From the challenge's guide: radii 1, 1 and 4 in XY, XT and YT, which are 1 px in space and 4 frames in time; 4 neighbours;
5×5 blocks that don't overlap; clips of 10 frames by temporal interpolation (see `merba.preprocessing.views.selection`).
From ports of the authors' code: the places of the neighbours; a bit is 1 if the neighbour is at least as bright; centres are
only where all neighbours exist, which leaves two frames of ten. Our choices: faces of 128 px, the whole clip from onset to
offset, histograms of sum 1, and a linear SVM as classifier, with C chosen on training subjects (see `LinearSVM`).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from merba.models.arguments import check_choice, check_positive
from merba.models.fitted import FittedModel
from merba.models.svm import COSTS, LinearSVM

SIZES: dict[str, dict] = {"lbp_top": {}}
NEIGHBOURS = 4
PLANES = ("XY", "XT", "YT")
CLIPS = 16
"""Clips per step, so that their codes don't fill the memory."""


class LBPTOP(FittedModel):
    """Histograms of local binary patterns on three orthogonal planes. Input grey levels (B, length, 1, image_size, image_size).

    bins: `all` (16 patterns), or `uniform` (15 bins; the two patterns with more than two changes share one).
    """

    candidates = tuple({"cost": cost} for cost in COSTS)

    def __init__(
        self,
        num_classes: int = 3,
        *,
        length: int = 10,
        image_size: int = 128,
        blocks: int = 5,
        radius: int = 1,
        interval: int = 4,
        bins: str = "all",
    ):
        super().__init__(num_classes)
        check_positive(num_classes=num_classes, image_size=image_size, blocks=blocks, radius=radius, interval=interval)
        check_choice("bins", bins, ("all", "uniform"))
        if length <= 2 * interval:
            raise ValueError(
                f"length is {length!r}; it must be at least {2 * interval + 1}, for neighbours {interval} frames away"
            )
        self.input_shape = (length, 1, image_size, image_size)
        self.blocks, self.radius, self.interval = blocks, radius, interval
        # Only 0101 and 1010 change four times around the circle; the others are uniform.
        own = [pattern for pattern in range(2**NEIGHBOURS) if bins == "all" or pattern not in (0b0101, 0b1010)]
        bin_of = [own.index(pattern) if pattern in own else len(own) for pattern in range(2**NEIGHBOURS)]
        self.bins = max(bin_of) + 1
        self.register_buffer("bin_of", torch.tensor(bin_of), persistent=False)
        self.svm = LinearSVM(blocks * blocks * len(PLANES) * self.bins, num_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """LBP-TOP of each clip, float32 (n, blocks² · 3 · bins): block by block in rows, XY, XT and YT in each."""
        return torch.cat([self._histograms(part) for part in inputs.split(CLIPS)])

    def _histograms(self, clips: Tensor) -> Tensor:
        codes = self.bin_of[lbp_top_codes(clips[:, :, 0], self.radius, self.interval)]
        height, width = ([round(i * side / self.blocks) for i in range(self.blocks + 1)] for side in codes.shape[3:])
        histograms = []
        for top, bottom in pairwise(height):
            for left, right in pairwise(width):
                block = codes[..., top:bottom, left:right].flatten(2)
                counts = torch.zeros(*block.shape[:2], self.bins).scatter_add_(2, block, torch.ones(block.shape))
                histograms.append(F.normalize(counts, p=1, dim=2))
        return torch.stack(histograms, 1).flatten(1)

    def fit(self, features: Tensor, labels: Tensor, rows: Tensor, *, cost: float) -> None:
        self.svm.fit(features[rows], labels[rows], cost=cost)

    def decide(self, features: Tensor) -> Tensor:
        return self.svm(features)


def lbp_top_codes(clips: Tensor, radius: int, interval: int) -> Tensor:
    """Patterns 0..15 of clips (n, T, H, W) in XY, XT and YT: int64 (n, 3, T − 2 interval, H − 2 radius, W − 2 radius).

    Bit p is 1 if the neighbour at the angle 2πp/4 is at least as bright as the centre. All four neighbours are pixels:
    (x + r, y − r, x − r, y + r) in XY, (x + r, t − L, x − r, t + L) in XT and (y − r, t − L, y + r, t + L) in YT.
    """
    frames, height, width = clips.shape[1:]

    def moved(t: int = 0, y: int = 0, x: int = 0) -> Tensor:
        """For each centre, the grey level `t` frames later, `y` px lower and `x` px further right."""
        t, y, x = interval + t, radius + y, radius + x
        inner = frames - 2 * interval, height - 2 * radius, width - 2 * radius
        return clips[:, t : t + inner[0], y : y + inner[1], x : x + inner[2]]

    r, later = radius, interval
    neighbours = (
        (moved(x=r), moved(y=-r), moved(x=-r), moved(y=r)),
        (moved(x=r), moved(t=-later), moved(x=-r), moved(t=later)),
        (moved(y=-r), moved(t=-later), moved(y=r), moved(t=later)),
    )
    centre = moved()
    planes = [sum((brightness >= centre).long() << p for p, brightness in enumerate(plane)) for plane in neighbours]
    return torch.stack(planes, 1)
