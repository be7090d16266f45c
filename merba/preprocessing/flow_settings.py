"""What is set about flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SMALLEST = 16
"""Height and width (px) that a scale of the pyramid has at least, but for the first."""
FLAT = 1.1920929e-07
"""|∇I₁|² below which a pixel counts as flat."""


@dataclass(frozen=True)
class FlowSettings:
    """Channels, solver and TV-L1 parameters; each field is described in merba/config/schemas/config.schema.yaml.

    The solver `cuda` is what `auto` stands for where training uses a GPU (see `with_solver`).
    """

    channels: Sequence[str] = ("u", "v")
    head_motion: str = "keep"
    solver: str = "numba"
    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median: int = 5


def with_solver(settings: Mapping[str, Any], *, on_gpu: bool) -> dict[str, Any]:
    """A configuration's `flow` with the solver that will run: numba, opencv or cuda. `on_gpu`: whether training uses one."""
    solver = settings["solver"]
    if settings["gamma"]:
        solver = "opencv"
    elif solver == "auto":
        solver = "cuda" if on_gpu else "numba"
    return {**settings, "solver": solver}
