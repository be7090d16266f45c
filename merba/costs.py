"""Estimates of what a training costs, without PyTorch: parameters, multiply-accumulates, time, memory and disk.

A network is a list of layers. Each layer has its parameters, the number of places in one clip's maps where they are applied, and
the number of values that it keeps for the backward pass. Sizes and defaults are read from the model's file as text. The
parameters are exact, the rest is estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from types import SimpleNamespace
from typing import Any

from merba.code import model_arguments

SMALL = 5_000_000
"""By default, weights of models with at most this many parameters are kept: 20 MB per fold."""
CPU_RATES = {1e9: 25e9, float("inf"): 50e9}
"""Training speed of one CPU core at 2.8 GHz: largest multiply-accumulates per clip → multiply-accumulates per second.

Measured: 10 (HTNet) to 45 billion (HTNet-small), and 46 to 50 billion (MERba-tiny, MERba-base)."""
GPU_RATE = 2e12
"""The same for a GPU: assumed, not measured."""
START_SECONDS = 4.0
"""Start-up time of a training job (bench/results/train.json)."""
PROGRAM_MB = 600
"""Memory of a training job, without its clips and network."""
LEAST_MB = 4000
"""The least memory that a training job asks for; MERba-nano at 56 px with batches of 128 used 3500 on the CPU."""
LEAST_MINUTES = 240
"""The shortest time that a training job asks for."""
LONG_HOURS = 24
"""A plan without a GPU warns about experiments that take more CPU hours than this."""
PREPROCESSING = {"faces": 0.11, "apex": 0.26, "flow": 0.07}
"""CPU seconds per clip of 20 frames of 2040×1088 px (bench/results/preprocess.json)."""


@dataclass(frozen=True)
class Layer:
    """Parameters, places that apply them, values kept per place, and operations per place beyond one per parameter (`more`)."""

    parameters: int
    places: int
    values: int
    more: int = 0


@dataclass(frozen=True)
class Network:
    """Cost of one clip: parameters, multiply-accumulates of a forward pass, values kept for the backward pass."""

    parameters: int
    operations: int
    values: int

    @property
    def megabytes(self) -> float:
        """Size of the weights."""
        return 4 * self.parameters / 1e6

    def job_memory_mb(self, batch: int) -> int:
        """Memory in MB that a training job asks for, without its clips: 1.5 times that of a step, because arrays leave gaps."""
        return max(LEAST_MB, PROGRAM_MB + self.step_memory_mb(batch) * 3 // 2)

    def step_memory_mb(self, batch: int) -> int:
        """Memory of a training step in MB, float32: kept values of the batch; weights, gradients, the optimiser's two moments."""
        return int((4 * batch * self.values + 16 * self.parameters) / 1e6)

    def seconds(self, clips: int, epochs: int, *, on_gpu: bool) -> float:
        """Time of a training, on one core or one GPU: a backward pass costs two forward passes."""
        cpu_rate = next(rate for most, rate in CPU_RATES.items() if self.operations <= most)
        return START_SECONDS + 3 * self.operations * clips * epochs / (GPU_RATE if on_gpu else cpu_rate)


def network(model: Mapping[str, Any], num_classes: int) -> Network | None:
    """The cost of an experiment's `model`; None if it is not one of merba's models."""
    family, arguments = model_arguments(model.get("name", ""))
    if family not in _LAYERS:
        return None
    layers = list(_LAYERS[family](SimpleNamespace(**{**arguments, **model}), num_classes))
    return Network(
        sum(layer.parameters for layer in layers),
        sum((layer.parameters + layer.more) * layer.places for layer in layers),
        sum(layer.values * layer.places for layer in layers),
    )


def keeps_weights(config: Mapping[str, Any]) -> bool:
    """Whether every fold's weights are kept: as configured; by default, if all models are known and small."""
    if config["keep_weights"] is not None:
        return config["keep_weights"]
    costs = [network(experiment["model"], 7) for experiment in config["experiments"].values()]
    return all(cost is not None and cost.parameters <= SMALL for cost in costs)


def slow_without_gpu(experiment: str, cost: Network, hours: float, folds: int) -> str:
    """The warning about an experiment that takes this many hours on a CPU."""
    smaller = "Take a smaller model, such as `model: {name: merba_nano}`, or a machine with a GPU"
    return (
        f"experiment {experiment} trains {cost.parameters / 1e6:.1f} million parameters without a GPU: about {hours / 24:.1f} "
        f"days of one core for {folds} folds. {smaller}"
    )


def _stem(channels: int, stem: int, dim: int, places: int) -> Layer:
    return Layer(9 * channels * stem + 2 * stem + 9 * stem * dim + 2 * dim, places, 3 * (stem + dim))


def _convolutions(dim: int, depth: int, places: int) -> Layer:
    return Layer(depth * (18 * dim**2 + 6 * dim), places, depth * 6 * dim)


def _blocks(dim: int, count: int, places: int, mixer: Layer, mlp_ratio: float, layer_scale: float | None) -> Layer:
    """Blocks of a token mixer and an MLP; `mixer` has the mixer's costs at one place."""
    hidden = int(dim * mlp_ratio)
    around = 4 * dim + 2 * dim * hidden + hidden + dim + (0 if layer_scale is None else 2 * dim)
    return Layer(count * (mixer.parameters + around), places, count * (mixer.values + 3 * dim + 2 * hidden), count * mixer.more)


def _mamba(dim: int, *, state: int = 8, directions: int = 1, sets: int = 1) -> Layer:
    inner, rank = dim // 2, ceil(dim / 16)
    along = 3 * dim + inner * (2 * rank + 3 * state + 2)  # for the tokens of each direction
    values = dim + directions * (3 * dim + rank + 2 * state)
    return Layer(dim**2 + sets * (dim**2 + along), 1, values, directions * (along + 2 * inner * state) - sets * along)


def _attention(dim: int) -> Layer:
    return Layer(4 * dim**2 + 4 * dim, 1, 5 * dim)


def _halved(*sides: int) -> tuple[int, ...]:
    return tuple(ceil(side / 2) for side in sides)


def _merba(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    height, width = a.image_size if isinstance(a.image_size, list | tuple) else (a.image_size, a.image_size)
    # The same rule as merba.models.merba.stride_for, which can't be imported without PyTorch.
    stride = a.stem_stride or next((stride for stride in (4, 2) if min(height, width) >= 56 * stride), 1)
    size, dim = (ceil(height / stride), ceil(width / stride)), a.dim
    directions = 4 if a.directions == "merba" else len(a.directions.split() if isinstance(a.directions, str) else a.directions)
    yield _stem(a.in_channels, a.stem_dim, dim, size[0] * size[1])
    yield _convolutions(dim, a.depths[0], size[0] * size[1])
    for depth in a.depths[1:]:
        dim, size = 2 * dim, _halved(*size)
        places = size[0] * size[1]
        sets = directions if a.mixer == "per_direction" else 1
        mamba = _mamba(dim, state=a.state, directions=directions, sets=sets)
        yield Layer(9 * dim // 2 * dim, places, dim)
        yield _blocks(dim, depth, places, mamba, a.mlp_ratio, a.layer_scale)
        yield _blocks(dim, a.global_blocks, places, _attention(dim), a.mlp_ratio, a.layer_scale)
    yield Layer(2 * dim + (dim + 1) * (8 if a.head == "dgcm" else classes), 1, dim)


def _mambavision(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    side, dim = ceil(a.image_size / a.stem_stride), a.dim
    yield _stem(a.in_channels, a.stem_dim, dim, side**2)
    for level, depth in enumerate(a.depths):
        if level < 2:
            yield _convolutions(dim, depth, side**2)
        else:
            window = a.windows[level - 2]
            places = (ceil(side / window) * window) ** 2
            attending = depth // 2
            yield _blocks(dim, depth - attending, places, _mamba(dim), a.mlp_ratio, a.layer_scale)
            yield _blocks(dim, attending, places, _attention(dim), a.mlp_ratio, a.layer_scale)
        if level < 3:
            dim, side = 2 * dim, ceil(side / 2)
            yield Layer(9 * dim // 2 * dim, side**2, dim)
    yield Layer(2 * dim + (dim + 1) * classes, 1, dim)


def _htnet(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    side, dim, levels = a.image_size // a.patch_size, a.dim, len(a.depths)
    yield Layer(a.in_channels * a.patch_size**2 * dim + dim, side**2, dim)
    for level, depth in enumerate(a.depths):
        inner = dim // (a.heads << level) * (a.heads << level)
        layer = 4 * dim + 4 * dim * inner + dim + 2 * dim**2 * a.mlp_ratio + dim * a.mlp_ratio + dim
        yield Layer(depth * layer, side**2, depth * (4 * dim + 4 * inner + 2 * dim * a.mlp_ratio))
        yield Layer((side // 2 ** (levels - 1 - level)) ** 2, 1, 0)  # one parameter per position, shared by all blocks
        if level < levels - 1:
            yield Layer(18 * dim**2 + 6 * dim, side**2, 4 * dim)
            dim, side = 2 * dim, side // 2
    yield Layer(2 * dim + (dim + 1) * classes, 1, dim)


def _featref(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    shared, specific, side = 1024, 128, 28

    def inception(channels: int, filters: int) -> int:
        return filters * (4 * (channels + 1) + (9 + 25) * filters + 2)

    yield Layer(2 * inception(1, 6), side**2, 2 * 9 * 6)
    yield Layer(2 * inception(24, 16), side**2 // 4, 2 * 9 * 16)
    yield Layer(2 * 64 * 7 * 7 * shared + shared, 1, shared)
    yield Layer(classes * ((shared + 1) * (shared + specific) + specific + 1), 1, classes * 3 * shared)
    yield Layer(classes**2 * specific + classes, 1, classes)


def _ststnet(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    yield Layer(16 * (9 * a.in_channels + 1) + 32, 30 * 30, 3 * 16)
    yield Layer((5 * 5 * 16 + 1) * classes, 1, classes)


def _vit(a: SimpleNamespace, patch: int, *, channels: int, frames: int) -> Iterable[Layer]:
    """Without the last norm."""
    width, patches = a.width, (a.image_size // patch) ** 2
    yield Layer((channels * patch**2 + 1) * width, patches * frames, width)
    yield Layer((patches + 2) * width, 1, 0)  # positions and the class token
    yield Layer(a.depth * (12 * width + 13) * width, (patches + 1) * frames, a.depth * 16 * width)


def _slstt(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    width, hidden = a.width, a.hidden
    if a.encoder != "cached":
        yield from _vit(a, a.patch, channels=3, frames=a.length)
    yield Layer(2 * width, a.length, width)
    if a.aggregator == "mean":
        yield Layer((width + 1) * classes, a.length, classes)
        return
    yield Layer(4 * hidden * (width + hidden + 2) + 16 * hidden * (hidden + 1), a.length, 18 * hidden)
    yield Layer((hidden + 1) * (hidden // 2) + (hidden // 2 + 1) * classes, 1, hidden)


def _meplan(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    size = (a.length, ceil(a.image_size / 2), ceil(a.image_size / 2))
    yield Layer(149 * a.widths[0], prod(size), 3 * a.widths[0])
    for stage, (inputs, width) in enumerate(pairwise((a.widths[0], *a.widths))):
        size = _halved(*size) if stage else size
        shortcut = (inputs + 2) * width if stage else 0
        yield Layer((27 * (inputs + width) + 4) * width + shortcut, prod(size), 8 * width)
        yield Layer((a.blocks - 1) * (54 * width + 4) * width, prod(size), (a.blocks - 1) * 6 * width)
        if stage == 2:  # attention
            yield Layer(width + 1, prod(size), width)


def _mfdan(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    levels, width, patches = 4, a.width // 2, (a.image_size // 16) ** 2
    yield from _vit(a, 16, channels=1, frames=1)
    yield Layer(2 * a.width, 1, a.width)
    widths = [2, width // 8, width // 4, width // 2, width]
    for halvings, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        yield Layer(9 * inputs * outputs + 2 * outputs, (a.image_size >> halvings) ** 2, 3 * outputs)
    yield Layer(levels * (9 * width**2 + 2 * width + (width + 1) * a.heads), patches, levels * 3 * width)
    yield Layer((a.width + width + 1) * classes, 1, a.width)


def _mersiamc3d(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    widths = [1, a.width, 2 * a.width, 4 * a.width, 8 * a.width]
    for level, (inputs, outputs) in enumerate(pairwise(widths)):
        places = (a.length >> max(level - 1, 0)) * (a.image_size >> level) ** 2
        yield Layer(27 * inputs * outputs + 2 * outputs, places, 3 * outputs)
    yield Layer((widths[-1] + 1) * a.features + a.features + 1 + (a.features + 1) * classes, 1, a.features)


def _fitted(a: SimpleNamespace, classes: int) -> Iterable[Layer]:
    """Methods without gradients: no parameters, and less time than their job needs to start."""
    return ()


_LAYERS = {
    "merba": _merba, "mambavision": _mambavision, "htnet": _htnet, "featref": _featref, "ststnet": _ststnet,
    "slstt": _slstt, "meplan": _meplan, "mfdan": _mfdan, "mersiamc3d": _mersiamc3d,
    "biwoof": _fitted, "kernel": _fitted, "lbp_top": _fitted, "lda": _fitted,
}  # fmt: skip
