"""What is set about flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FlowSettings:
    """Channels, solver and TV-L1 parameters; each field is described in merba/config/schemas/config.schema.yaml."""

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
