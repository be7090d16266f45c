"""A view of each of a subject's clips: some of its frames, as grey levels, as flow from the onset, or as an encoder's tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.errors import ClipProblem
from merba.frames import Clip, clip_of
from merba.joblog import counted
from merba.preprocessing.alignment import compose, five_points
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, transform_of
from merba.preprocessing.flow import NO_POINTS, flow_of_clips
from merba.preprocessing.packs import ClipFlow, FlowFormat
from merba.preprocessing.views.selection import around_apex, between, frame_numbers, interpolated, key_frames, spread
from merba.preprocessing.views.settings import CHANNELS, ViewSettings

log = logging.getLogger(__name__)

Encoder = Callable[[np.ndarray], np.ndarray]
"""Flow (T, 2, H, W), px → tokens (T, width)."""
FARNEBACK = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}
"""The parameters of SLSTT's code."""


def view_format(view: ViewSettings) -> FlowFormat:
    """The contents of a view's pack: grey levels 0..255, flow in px of the aligned face, or tokens (no unit)."""
    units = {"grey": "grey", "tokens": "token"}
    return FlowFormat(CHANNELS[view.keep], units.get(view.keep, "px"))


def views_of_clips(
    rows: pd.DataFrame,
    faces: pd.DataFrame,
    apexes: pd.DataFrame,
    view: ViewSettings,
    face_settings: Mapping[str, Any],
    *,
    flow_settings: Mapping[str, Any] | None = None,
    encode: Encoder | None = None,
) -> Iterator[ClipFlow]:
    """The views of one subject's clips in sheet order, one at a time, as float16 arrays of the view's shape.

    `faces` and `apexes` are the tables of these stages. If a clip has a problem, here or in these tables, its view is zeros.
    `grey_flow` needs the settings of flow, `tokens` an encoder.
    """
    cv2.setNumThreads(1)
    settings = FaceSettings.of({**face_settings, "size": view.size})
    faces = faces.assign(transform=[_resized(matrix, settings.size / face_settings["size"]) for matrix in faces["transform"]])
    flows: Iterable[ClipFlow | None] = repeat(None, len(rows))
    if view.keep == "grey_flow":
        flow_settings = {**flow_settings, "channels": ["u", "v"]}
        flows = flow_of_clips(rows, faces, apexes, flow_settings, {**face_settings, "size": view.size})
    shape = view.shape
    records = zip(rows.itertuples(), faces.to_dict("records"), apexes.to_dict("records"), flows, strict=True)
    for row, face, apex, flow in counted(records, len(rows), "clips"):
        try:
            for problem in (face["problem"], apex["problem"], flow and flow.problem):
                if pd.notna(problem):
                    raise ClipProblem(problem)
            onset, greys = _frames(row, face, apex, view, settings)
            if view.keep == "grey":
                kept = greys[:, None]
            elif view.keep == "grey_flow":
                kept = np.concatenate([greys, flow.flow])[None]
            else:
                kept = long_term_flow(onset, greys)
                kept = encode(kept) if view.keep == "tokens" else kept
            yield ClipFlow(kept.astype(np.float16), five_points(aligned_landmarks(face)), np.nan, None)
        except ClipProblem as problem:
            log.warning("%s %s %s: %s", row.dataset, row.subject, row.clip, problem)
            yield ClipFlow(np.zeros(shape, np.float16), NO_POINTS, np.nan, str(problem))


def shown_view(view: ViewSettings) -> ViewSettings:
    """The view to show in figures: for tokens, the flow that they are made of."""
    return replace(view, keep="flow", pretrained=None) if view.keep == "tokens" else view


def long_term_flow(onset: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Farneback's flow, float32 (T, 2, H, W), px, from the grey face at the onset (H, W) to each of `frames` (T, H, W)."""
    flows = [cv2.calcOpticalFlowFarneback(onset, frame, None, **FARNEBACK) for frame in frames]
    return np.stack(flows).transpose(0, 3, 1, 2)


def _resized(transform: np.ndarray | None, scale: float) -> np.ndarray | None:
    """A row's transform to an aligned face of another size; pixel centres are whole numbers in both."""
    if transform is None:
        return None
    larger = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    return compose(larger, np.reshape(transform, (2, 3))).ravel()


def _frames(
    row: Any, face: Mapping[str, Any], apex: Mapping[str, Any], view: ViewSettings, settings: FaceSettings
) -> tuple[np.ndarray | None, np.ndarray]:
    """The aligned grey face at the onset, uint8 (H, W), if flow starts from it, and the view's frames, uint8 (T, H, W)."""
    clip, transform = clip_of(row), transform_of(face)
    offset = None if pd.isna(apex["offset"]) else int(apex["offset"])
    numbers = frame_numbers(clip, int(apex["onset"]), offset)
    read = {"clip": clip, "transform": transform, "settings": settings}
    onset = next(_aligned(numbers[:1], **read)) if view.keep in ("flow", "tokens") else None
    if view.frames == "tim":
        return onset, interpolated(_aligned(numbers, **read), len(numbers), view.length)
    if (middle := int(apex["apex"])) not in numbers:
        clip.read(middle)  # raises ClipProblem, as in the stage `flow`: all methods are to have the same clips
    if view.frames == "apex":
        chosen = [middle]
    else:
        choose = key_frames if view.frames == "key" else around_apex
        chosen = choose(numbers, middle, view.length)
    unique = sorted(set(chosen))  # each frame is read once, in order
    greys = dict(zip(unique, _aligned(unique, **read), strict=True))
    frames = np.stack([greys[number] for number in chosen])
    return onset, between(frames, spread(len(frames), view.length))


def _aligned(numbers: Iterable[int], *, clip: Clip, transform: np.ndarray, settings: FaceSettings) -> Iterator[np.ndarray]:
    for number in numbers:
        yield aligned_grey(clip.read(number), transform, settings)
