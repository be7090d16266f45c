"""TV-L1 optical flow from onset to apex, in pixels of the aligned face (Zach, Pock & Bischof, DAGM 2007)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
import pandas as pd

from merba.errors import ClipProblem, MerbaError
from merba.frames import clip_of, read_image
from merba.joblog import counted
from merba.preprocessing.alignment import compose, five_points
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, transform_of
from merba.preprocessing.flow_settings import FlowSettings
from merba.preprocessing.head_motion import head_motion
from merba.preprocessing.packs import ClipFlow, FlowFormat
from merba.preprocessing.problems import name_of, say_problem
from merba.sheet import KEY

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Item, Result = TypeVar("Item"), TypeVar("Result")

RELEASED_SIZE = (28, 28)
"""Height and width of the public release's flow images, used if none of a subject's images can be read."""
NO_POINTS = np.full((5, 2), np.nan)
BATCH = 64
"""Pairs that a GPU solves at once; at 224×224 px they take an estimated 1 GB of its memory."""


class Pair(NamedTuple):
    """What a clip's flow is computed from: the aligned grey faces at onset and apex, uint8 (size, size).

    `points` and `head_motion` are those of `ClipFlow`.
    """

    onset: np.ndarray
    apex: np.ndarray
    points: np.ndarray
    head_motion: float

    def with_flow(self, flow: np.ndarray, settings: FlowSettings) -> ClipFlow:
        """The result of the clip, given its flow from onset to apex (2, H, W)."""
        if settings.head_motion == "shift":
            flow = flow - np.median(flow, axis=(1, 2), keepdims=True)
        channels = flow_channels(flow, settings.channels)
        return ClipFlow(channels.astype(np.float16), self.points, self.head_motion, None)


def dense_flow(first: np.ndarray, second: np.ndarray, settings: FlowSettings) -> np.ndarray:
    """Flow (2, H, W), float32, px right and down, between two grey images (H, W), uint8, by the chosen solver.

    Raises MerbaError if a package that the solver needs isn't installed.
    """
    if settings.solver == "opencv" or settings.gamma:
        return opencv_tv_l1(settings).calc(first, second, None).transpose(2, 0, 1)
    if not find_spec("numba"):
        raise MerbaError("flow.solver: numba is not installed: pip install numba, or set `flow.solver: opencv`")
    from merba.preprocessing.tv_l1 import tv_l1

    return tv_l1(first, second, settings)


def dense_flows(pairs: Sequence[Pair], settings: FlowSettings, device: torch.device | None) -> Iterable[np.ndarray]:
    """`dense_flow` of each pair; with the solver `cuda`, of all at once on `device`."""
    if settings.solver != "cuda" or not pairs:
        return [dense_flow(pair.onset, pair.apex, settings) for pair in pairs]
    import torch

    from merba.preprocessing.tv_l1_torch import tv_l1_batch

    onsets, apexes = np.stack([pair.onset for pair in pairs]), np.stack([pair.apex for pair in pairs])
    return tv_l1_batch(*(torch.from_numpy(images).to(device) for images in (onsets, apexes)), settings).cpu().numpy()


def opencv_tv_l1(settings: FlowSettings) -> cv2.DenseOpticalFlow:
    """OpenCV's solver with these parameters. Raises MerbaError if cv2 lacks its contributed modules."""
    if not hasattr(cv2, "optflow"):
        raise MerbaError("this cv2 has no `optflow`, which `flow.solver: opencv` needs; `merba doctor` says how to fix that")
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
    """Optical strain magnitude (H, W), px per px, of a flow (2, H, W): the size of the infinitesimal strain tensor.

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
    """The format of `flow_of_clips` for these rows: the configured channels in pixels, or those of ready-made images."""
    if _ready_made(rows):
        return FlowFormat(("u", "v", "strain"), "image")
    return FlowFormat(tuple(FlowSettings.of(settings).channels), "px")


def _ready_made(rows: pd.DataFrame) -> bool:
    return (rows["kind"] == "flow").all()


def flow_shape(rows: pd.DataFrame, settings: Mapping[str, Any], face_settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the flow of these rows' clips; ready-made images have their own size."""
    channels = len(flow_format(rows, settings).channels)
    size = FaceSettings.of(face_settings).size
    if not _ready_made(rows):
        return channels, size, size
    for source in rows["source"]:
        with suppress(ClipProblem):
            return channels, *read_image(Path(source)).shape[:2]
    return channels, *RELEASED_SIZE


def flow_of_clips(
    rows: pd.DataFrame,
    faces: pd.DataFrame | None,
    apexes: pd.DataFrame | None,
    settings: Mapping[str, Any],
    face_settings: Mapping[str, Any],
    threads: int = 1,
    device: torch.device | None = None,
) -> Iterator[ClipFlow]:
    """Onset-to-apex flow of one subject's clips in sheet order, a few at a time, so that memory doesn't grow with them.

    A clip with a problem, its own or one from `faces` or `apexes`, has flow 0. Rows of kind `flow` need neither table: red,
    green and blue of their images are u, v and strain. `threads` doesn't change results. The solver `cuda` uses `device`.
    """
    cv2.setNumThreads(1)
    chosen, face_chosen = FlowSettings.of(settings), FaceSettings.of(face_settings)
    shape = flow_shape(rows, settings, face_settings)
    clips = list(rows.itertuples())

    def prepared(position: int) -> Pair | ClipFlow:
        row = clips[position]
        try:
            if row.kind == "flow":
                return _ready_made_flow(row, shape)
            return _pair(row, faces.iloc[position], apexes.iloc[position], chosen, face_chosen)
        except ClipProblem as problem:
            return ClipFlow(np.zeros(shape, np.float16), NO_POINTS, np.nan, str(problem))

    def solved(positions: Iterable[int]) -> list[ClipFlow]:
        parts = [prepared(position) for position in positions]
        flows = iter(dense_flows([part for part in parts if isinstance(part, Pair)], chosen, device))
        return [part.with_flow(next(flows), chosen) if isinstance(part, Pair) else part for part in parts]

    size = BATCH if chosen.solver == "cuda" else 1
    batches = (range(start, min(start + size, len(clips))) for start in range(0, len(clips), size))
    flows = chain.from_iterable(_in_order(solved, batches, threads))
    for row, flow in zip(counted(clips, len(clips), "clips"), flows, strict=True):
        if flow.problem:
            say_problem(row, flow.problem)
        elif not flow.flow.any():  # noise alone would move something
            log.warning("%s: onset and apex are the same picture, so that nothing moves; check the frames", name_of(row))
        yield flow


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`work(item)` for each item, in order, on `threads` threads; only as many results as threads are kept waiting."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _ready_made_flow(row: Any, shape: tuple[int, int, int]) -> ClipFlow:
    flow = read_image(Path(row.source))[:, :, ::-1].transpose(2, 0, 1)
    if flow.shape != shape:
        raise ClipProblem(f"{row.source} is {flow.shape[2]}×{flow.shape[1]}, the others are {shape[2]}×{shape[1]}")
    return ClipFlow(flow.astype(np.float16), NO_POINTS, np.nan, None)


def _pair(row: Any, face: pd.Series, apex: pd.Series, settings: FlowSettings, face_settings: FaceSettings) -> Pair:
    """A clip's onset and apex. Raises ClipProblem, also for a problem that an earlier stage found."""
    for stage in (face, apex):
        if pd.notna(stage["problem"]):
            raise ClipProblem(stage["problem"])
    clip, transform = clip_of(row), transform_of(face)
    first = aligned_grey(clip.read(apex["onset"]), transform, face_settings)
    image = clip.read(apex["apex"])
    second = aligned_grey(image, transform, face_settings)
    landmarks = aligned_landmarks(face)
    motion = head_motion(first, second, landmarks)
    if settings.head_motion == "similarity":
        second = aligned_grey(image, compose(motion.back, transform), face_settings)
    return Pair(first, second, five_points(landmarks), motion.length)


def flow_of_subject(
    rows: pd.DataFrame,
    faces: pd.DataFrame | None,
    apexes: pd.DataFrame | None,
    settings: Mapping[str, Any],
    face_settings: Mapping[str, Any],
) -> tuple[np.ndarray, pd.DataFrame]:
    """`flow_of_clips`, all in memory at once: flow, float16 (n, C, H, W), and the index of `packs.pack` without column row."""
    flows = list(flow_of_clips(rows, faces, apexes, settings, face_settings))
    table = rows[KEY].assign(
        points=[clip.points.ravel() for clip in flows],
        head_motion=[clip.head_motion for clip in flows],
        problem=pd.Series([clip.problem for clip in flows], index=rows.index, dtype="str"),
    )
    return np.stack([clip.flow for clip in flows]), table
