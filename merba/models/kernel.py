"""Kernel ridge regression on twenty descriptions of a clip's flow, without a setting to choose. Our own baseline.

Each clip is described by its flow as it is, and by the flow's mirror-symmetric part. Images scale u and v to the same range, but
the strain shows the ratio of their ranges before; with strain, both are used a second time with this ratio restored. Each of
these has five descriptions, each with its own kernel; the score of a class is the mean over all kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from merba.models.arguments import check_positive
from merba.models.fitted import FittedModel, signed, strain, unit_size

SIZES: dict[str, dict] = {"kernel": {}}
SIDE = 28
RIDGE = 0.1
RATIOS = tuple(2 ** (step / 10) for step in range(-20, 21))
"""Ratios of v's range to u's that are tried."""
BINS = 8
POWERS = (2, 2, 2, 1, 1)
"""For each of the five descriptions: 2 if compared by the squared Euclidean distance, 1 if by the city-block distance."""


class KernelRidge(FittedModel):
    """Kernel ridge regression of targets ±1, one per class; logits are the scores, not calibrated.

    Input u, v and, if `in_channels` is 3, strain, of 28×28 px, in px or as images: it is decoded here (see `signed`). Without
    strain there are ten kernels, and the ranges of u and v are taken as they are, which is right for flow in px. The buffers
    hold the training clips.
    """

    holds_clips = True

    def __init__(self, num_classes: int = 3, *, in_channels: int = 3):
        super().__init__(num_classes)
        check_positive(num_classes=num_classes)
        if in_channels not in (2, 3):
            raise ValueError(f"in_channels is {in_channels!r}; it must be 2 (u, v) or 3 (u, v, strain)")
        self.input_shape = (in_channels, SIDE, SIDE)
        flows = in_channels - 1
        kernels = flows * 2 * len(POWERS)
        self.register_buffer("clips", torch.zeros(0, flows, 2, SIDE, SIDE))
        self.register_buffer("coefficients", torch.zeros(kernels, 0, num_classes))
        self.register_buffer("widths", torch.ones(kernels))
        self.register_buffer("scales", torch.ones(kernels))
        self.known: list[Tensor] | None = None  # the clips' descriptions

    def make_room(self, weights: Mapping[str, Tensor]) -> None:
        clips = len(weights["clips"]) if "clips" in weights else 0
        self.clips = self.clips.new_zeros(clips, *self.clips.shape[1:])
        self.coefficients = self.coefficients.new_zeros(len(self.widths), clips, self.num_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """The decoded flows of each clip, float32 (n, flows, 2, 28, 28): as it is, and with v's range restored."""
        flow = inputs[:, :2]
        if inputs.shape[1] == 2:
            return signed(flow)[:, None]
        stretched = torch.stack([flow[:, 0], flow[:, 1] * range_ratio(inputs)[:, None, None]], 1)
        return torch.stack([signed(flow), signed(stretched)], 1)

    def fit(self, features: Tensor, labels: Tensor, rows: Tensor) -> None:
        counts = torch.bincount(labels[rows], minlength=self.num_classes)
        # Each clip's part of the ridge is divided by its class weight, which is inverse to the class's frequency.
        ridge = torch.diag(RIDGE * self.num_classes * counts[labels[rows]] / len(rows))
        targets = 2.0 * F.one_hot(labels[rows], self.num_classes) - 1
        described, distances = _compared(features.cpu().numpy().tobytes(), tuple(features.shape))
        apart = tuple(torch.triu_indices(len(rows), len(rows), 1))
        solutions = []
        for kernel, (direct, mirrored) in enumerate(distances):
            direct, mirrored = direct[rows][:, rows], mirrored[rows][:, rows]
            self.widths[kernel] = direct[apart].median().clamp_min(torch.finfo(torch.float32).tiny)
            nearness = _nearness(direct, mirrored, self.widths[kernel])
            self.scales[kernel] = nearness.diagonal().mean()
            gram = nearness / self.scales[kernel] + 1
            solutions.append(torch.cholesky_solve(targets, torch.linalg.cholesky(gram + ridge)))
        self.clips, self.coefficients = features[rows].clone(), torch.stack(solutions)
        self.known = [description[rows] for description in described]

    def decide(self, features: Tensor) -> Tensor:
        if self.known is None:  # once for many predictions
            self.known = _described(self.clips)
        scores = features.new_zeros(len(features), self.num_classes)
        for kernel, (direct, mirrored) in enumerate(_distances(features, self.known)):
            nearness = _nearness(direct, mirrored, self.widths[kernel])
            scores += (nearness / self.scales[kernel] + 1) @ self.coefficients[kernel]
        return scores / len(self.widths)


def range_ratio(inputs: Tensor) -> Tensor:
    """The ratio of v's range to u's, (n,), before u, v and strain (n, 3, H, W) were scaled to the same range.

    It is the one of RATIOS for which the strain of (u, ratio · v) has the highest correlation with the given strain.
    """
    given = inputs[:, 2].flatten(1)
    fits = []
    for ratio in RATIOS:
        computed = strain(torch.stack([inputs[:, 0], ratio * inputs[:, 1]], 1)).flatten(1)
        fits.append(F.cosine_similarity(computed - computed.mean(1, keepdim=True), given - given.mean(1, keepdim=True)))
    return inputs.new_tensor(RATIOS)[torch.stack(fits).argmax(0)]


def descriptions(flow: Tensor) -> list[Tensor]:
    """The five descriptions (n, d) of flows (n, 2, 28, 28), as POWERS compares them."""
    return [
        _smoothed(flow).flatten(1),
        _smoothed(flow.sign() * flow.abs().sqrt()).flatten(1),
        orientations(flow, 14).sqrt().flatten(1),
        orientations(flow, 7).sqrt().flatten(1),
        flow.flatten(1),
    ]


def orientations(flow: Tensor, cells: int) -> Tensor:
    """Histograms (n, 8, cells, cells) of the flow's (n, 2, H, W) directions, weighted by its magnitude.

    A pixel is divided between the two bins with the nearest centres (0°, 45°, …).
    """
    magnitude = flow.square().sum(1, keepdim=True).sqrt()
    place = torch.atan2(flow[:, 1:], flow[:, :1]) / (2 * torch.pi) * BINS % BINS
    below, share = place.floor().long() % BINS, place.frac()
    maps = magnitude.new_zeros(len(flow), BINS, *flow.shape[2:])
    maps.scatter_add_(1, below, magnitude * (1 - share)).scatter_add_(1, (below + 1) % BINS, magnitude * share)
    side = flow.shape[-1] // cells
    return F.avg_pool2d(maps, side, divisor_override=1)


def _smoothed(flow: Tensor) -> Tensor:
    """Maps (n, 2, H, H) after a Gaussian of 1 px, cut off at 4 px; edges are mirrored."""
    # The filter as a matrix (H, H): for small maps, products with it are many times as fast as convolutions.
    weights = torch.exp(-torch.arange(-4.0, 5.0, device=flow.device).square() / 2)
    identity = torch.eye(flow.shape[-1], device=flow.device)
    matrix = F.conv1d(F.pad(identity, (4, 4), "reflect")[:, None], (weights / weights.sum()).expand(1, 1, -1))[:, 0]
    return matrix.mT @ flow @ matrix


def _mirrored(flow: Tensor) -> Tensor:
    """Decoded flow (…, 2, H, W) of the mirrored faces."""
    return flow.flip(-1) * flow.new_tensor([-1.0, 1.0])[:, None, None]


def _described(features: Tensor) -> list[Tensor]:
    """All descriptions of clips by their `features`: of each flow, five of itself and five of its mirror-symmetric part."""
    parts = (part for flow in features.unbind(1) for part in (flow, unit_size((flow + _mirrored(flow)) / 2)))
    return [description for part in parts for description in descriptions(part)]


def _distances(features: Tensor, known: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each kernel, the distances (n, m) of clips from `known` descriptions (m, d), and those of the mirrored clips."""
    distances = []
    views = zip(_described(features), _described(_mirrored(features)), known, strict=True)
    for number, (here, mirrored, there) in enumerate(views):
        flow, kind = divmod(number, len(POWERS))
        direct = torch.cdist(here, there, p=POWERS[kind]) ** POWERS[kind]
        # Every second flow is a mirror-symmetric part, which is its own mirror image.
        distances.append((direct, direct if flow % 2 else torch.cdist(mirrored, there, p=POWERS[kind]) ** POWERS[kind]))
    return distances


@lru_cache(maxsize=1)
def _compared(features: bytes, shape: tuple[int, ...]) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """The descriptions of all clips, and the distances between all pairs. The folds of an experiment share them."""
    clips = torch.frombuffer(bytearray(features), dtype=torch.float32).reshape(shape)
    described = _described(clips)
    return described, _distances(clips, described)


def _nearness(direct: Tensor, mirrored: Tensor, width: Tensor) -> Tensor:
    return torch.exp(-direct / width) + torch.exp(-mirrored / width)
