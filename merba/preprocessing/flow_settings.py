"""The settings of flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merba.config.validation import Section

SMALLEST = 16
"""The smallest height and width (px) of a scale of the pyramid, except the first."""
FLAT = 1.1920929e-07
"""|∇I₁|² below which a pixel counts as flat."""


@dataclass(frozen=True)
class FlowSettings(Section, name="flow"):
    """Channels, solver and TV-L1 parameters; each field is described in merba/config/schemas/config.schema.yaml.

    The solver `cuda` is what `auto` means if training uses a GPU (see `with_solver`).
    """

    channels: Sequence[str]
    head_motion: str
    solver: str
    tau: float
    lambda_: float
    theta: float
    scales: int
    warps: int
    epsilon: float
    inner_iterations: int
    outer_iterations: int
    scale_step: float
    gamma: float
    median: int


def with_solver(settings: Mapping[str, Any], *, on_gpu: bool) -> dict[str, Any]:
    """A configuration's `flow` with the solver that will run: numba, opencv or cuda. `on_gpu`: whether training uses a GPU."""
    solver = settings["solver"]
    if settings["gamma"]:
        solver = "opencv"
    elif solver == "auto":
        solver = "cuda" if on_gpu else "numba"
    return {**settings, "solver": solver}
