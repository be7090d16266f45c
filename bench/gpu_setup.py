"""What the parts of bench/gpu.py share: what is measured on a GPU and in a dry run without one, and how time is measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))  # this package, if it is not installed

import torch

from merba.scan import backends

STATES, WINDOW = 8, 7
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Calls = dict[str, Callable[[], dict]]  # label → what finds its figures


class Mismatch(Exception):
    """A CUDA path differs from the reference."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What is measured: on which device, by which of the usable backends, which models, and how much of everything."""

    device: str
    backends: tuple[str, ...]
    models: tuple[str, ...]
    fold_model: str
    stages: Mapping[str, tuple[int, int]]  # side of the map, inner channels
    maps: Mapping[str, tuple[int, int, int | None]]  # what is checked: side of the map, inner channels, window
    launches: tuple[tuple[int, int, int | None], ...]  # of the backward scan: channels of a program, warps, most registers
    batch: int
    repeats: int
    compiler: str
    clips: int
    size: int  # of the clips' flow
    folds: int
    epochs: int
    job_epochs: tuple[int, int]

    def usable(self) -> list[str]:
        """The backends to measure."""
        return [name for name in self.backends if backends()[name][0]]


STAGES = {"stage 2": (28, 128), "stage 3": (14, 256), "stage 4": (7, 512)}
MAPS = {name: (*sizes, WINDOW) for name, sizes in STAGES.items()}
GPU = Setup(
    device="cuda",
    backends=("triton", "mamba_ssm"),
    models=("merba_base", "mambavision_base"),
    fold_model="merba_base",
    stages=STAGES,
    maps=MAPS | {"edge windows": (10, 40, WINDOW), "whole map": (28, 40, None)},
    # Those that spill at most about 800 bytes of registers to memory, by ptxas for sm_90.
    launches=tuple((*tile, most) for tile in ((64, 1), (32, 1), (64, 2), (128, 4)) for most in (None, 168, 128)),
    batch=128,
    repeats=20,
    compiler="inductor",
    clips=442,
    size=224,
    folds=3,
    epochs=70,
    job_epochs=(2, 6),
)
# Every part and every call of the above, small enough for a test without a GPU.
DRY = Setup(
    device="cpu",
    backends=("numba",),
    models=("merba_nano",),
    fold_model="merba_nano",
    stages={"stage 4": (2, 4)},
    maps={"stage 4": (4, 6, WINDOW)},
    launches=((64, 1, None), (32, 1, 128)),
    batch=2,
    repeats=1,
    compiler="eager",
    clips=12,
    size=28,
    folds=2,
    epochs=1,
    job_epochs=(1, 2),
)


def milliseconds(function: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of a call, ms. On a GPU, calls are queued behind a pause, so that Python's own time isn't measured."""
    for _ in range(min(3, repeats)):
        function()
    if device == "cuda":
        torch.cuda._sleep(200_000_000)  # cycles, about 0.1 s
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for start, end in events:
            start.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return median(start.elapsed_time(end) for start, end in events)
    times = []
    for _ in range(repeats):
        begin = perf_counter()
        function()
        times.append(1e3 * (perf_counter() - begin))
    return median(times)


def norm_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """‖result − expected‖ / ‖expected‖; not finite where either has NaN."""
    return ((result.double() - expected).norm() / expected.norm()).item()
