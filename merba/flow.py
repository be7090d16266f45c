"""TV-L1 optical flow from onset to apex, in pixels of the aligned face (Zach, Pock & Bischof, DAGM 2007)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.errors import ClipProblem, MerbaError
from merba.faces import FaceSettings, aligned_grey
from merba.frames import open_clip, read_image
from merba.packs import FlowFormat
from merba.sheet import KEY

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlowSettings:
    """Channels and OpenCV's TV-L1 parameters; each field is described in merba/schemas/config.schema.yaml."""

    channels: Sequence[str] = ("u", "v")
    remove_shift: bool = False
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


def tv_l1(settings: FlowSettings) -> cv2.DenseOpticalFlow:
    """OpenCV's solver with these parameters. Raises MerbaError where cv2 comes without its contributed modules."""
    if not hasattr(cv2, "optflow"):
        raise MerbaError("this cv2 has no `optflow`, which TV-L1 needs; `merba doctor` says how to mend that")
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    solver.setTau(settings.tau)
    solver.setLambda(settings.lambda_)
    solver.setTheta(settings.theta)
    solver.setScalesNumber(settings.scales)
    solver.setWarpingsNumber(settings.warps)
    solver.setEpsilon(settings.epsilon)
    solver.setInnerIterations(settings.inner_iterations)
    solver.setOuterIterations(settings.outer_iterations)
    solver.setScaleStep(settings.scale_step)
    solver.setGamma(settings.gamma)
    solver.setMedianFiltering(settings.median)
    return solver


def strain(flow: np.ndarray) -> np.ndarray:
    """Optical strain magnitude (H, W), px a px, of a flow (2, H, W): the size of the infinitesimal strain tensor.

    ε = (∇f + ∇fᵀ) / 2, |ε| = √(εxx² + εyy² + 2 εxy²); Shreve et al., "Macro- and micro-expression spotting in long
    videos using spatio-temporal strain", FG 2011, eq. 3–6.
    """
    (u_y, u_x), (v_y, v_x) = np.gradient(flow[0]), np.gradient(flow[1])
    return np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2)


def flow_channels(flow: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """The named channels, float32 (C, H, W), of a flow (2, H, W): any of u, v (px), strain, magnitude (px)."""
    made = {
        "u": lambda: flow[0],
        "v": lambda: flow[1],
        "strain": lambda: strain(flow),
        "magnitude": lambda: np.hypot(flow[0], flow[1]),
    }
    return np.stack([made[name]() for name in channels]).astype(np.float32)


def flow_format(rows: pd.DataFrame, settings: Mapping[str, Any]) -> FlowFormat:
    """What `flow_of_subject` gives for these rows: configured channels in pixels, or those of ready-made images."""
    if (rows["kind"] == "flow").all():
        return FlowFormat(("u", "v", "strain"), "image")
    return FlowFormat(tuple(FlowSettings(**settings).channels), "px")


def flow_of_subject(
    rows: pd.DataFrame,
    faces: pd.DataFrame | None,
    apexes: pd.DataFrame | None,
    settings: Mapping[str, Any],
    face_settings: Mapping[str, Any],
) -> tuple[np.ndarray, pd.DataFrame]:
    """Onset-to-apex flow of one subject's clips, float16 (n, C, H, W) in sheet order, and their table.

    The table has columns dataset, subject, clip, problem; a clip with a problem, its own or one from `faces` or
    `apexes`, has flow 0. Rows of kind `flow` need neither: their images' red, green and blue are u, v and strain.
    """
    cv2.setNumThreads(1)
    flow, problems = [], []
    chosen = FlowSettings(**settings)
    solver = None if faces is None else tv_l1(chosen)
    for position, row in enumerate(rows.itertuples()):
        try:
            if row.kind == "flow":
                image = read_image(Path(row.source))
                flow.append(image[:, :, ::-1].transpose(2, 0, 1))
            else:
                face, apex = faces.iloc[position], apexes.iloc[position]
                for stage in (face, apex):
                    if pd.notna(stage["problem"]):
                        raise ClipProblem(stage["problem"])
                pair = aligned_grey(
                    open_clip(Path(row.source), row.kind),
                    [int(apex["onset"]), int(apex["apex"])],
                    face,
                    FaceSettings(**face_settings),
                )
                found = solver.calc(*pair, None).transpose(2, 0, 1)
                if chosen.remove_shift:
                    found = found - np.median(found, axis=(1, 2), keepdims=True)
                flow.append(flow_channels(found, chosen.channels))
            problems.append(None)
        except ClipProblem as problem:
            log.warning("%s %s %s: %s", row.dataset, row.subject, row.clip, problem)
            flow.append(None)
            problems.append(str(problem))
    shape = next((one.shape for one in flow if one is not None), _blank_shape(rows, settings, face_settings))
    array = np.stack([np.zeros(shape, np.float16) if one is None else one.astype(np.float16) for one in flow])
    return array, rows[KEY].assign(problem=pd.Series(problems, index=rows.index, dtype="str"))


def _blank_shape(rows: pd.DataFrame, settings: Mapping[str, Any], faces: Mapping[str, Any]) -> tuple[int, int, int]:
    size = 28 if (rows["kind"] == "flow").all() else FaceSettings(**faces).size
    return (len(flow_format(rows, settings).channels), size, size)
