"""Prediction on one's own clips: the workflow's stages from frames to flow, and what a checkpoint predicts from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.code import PACKAGE
from merba.datasets.tasks import true_class
from merba.errors import ClipProblem, MerbaError, unknown
from merba.frames import clip_of
from merba.joblog import counted
from merba.prediction.clips import OWN, find_clips
from merba.prediction.inference import classify
from merba.prediction.spotting import LONGEST, Search, search
from merba.preprocessing.alignment import align
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import FaceSettings, degrees, faces_of_subject, transform_of
from merba.preprocessing.flow import flow_of_subject
from merba.preprocessing.flow_images import image_transform, movement
from merba.preprocessing.head_warning import head_warning
from merba.training.checkpoint import Checkpoint, load_checkpoint
from merba.training.devices import training_device

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
MODEL = Path("models/public_flow.safetensors")
"""The file that `make model` writes; the default checkpoint."""
NO_MOVEMENT = "no movement"
LEAST_MOVEMENT = 0.2
"""A face that moves less, px of an aligned face of 224 px, gets no class; noise alone gives about 0.1 (docs/prediction.md)."""
LONG = 1.0
"""A clip that is longer from onset to offset, s, may show more than a micro-expression, which lasts at most half a second."""


@dataclass(frozen=True)
class Prediction:
    """The result for one clip; if there is none, `problem` says why, and everything but the clip is empty.

    dataset is the table that lists the clip, subject its subject there, and true the class of its emotion; clips in no table
    have none. onset, apex, offset are frame numbers, and seconds their times (empty if the frame rate is unknown). box is the
    face (x0, y0, x1, y1) in px of the onset frame, and faces the number of faces there. predicted is a class; or NO_MOVEMENT,
    without probabilities, if `movement` is too small: how far the face moves relative to its head, px of the aligned face (see
    `flow_images.movement`; None if the flow lacks u or v). head_motion is how far the head moves from onset to apex, px of the
    aligned face, and head_moves whether that is more than in an expression (see `merba.preprocessing.head_warning`). score is
    the score of a candidate interval, px, None for whole clips; search is the search that found it (see
    `merba.prediction.spotting`). A candidate has no true class. flow is float16 (C, H, W), in px of the aligned face, points are
    that face's (10 values, see `merba.preprocessing.packs`). With `explain`: images, the aligned onset and apex, uint8 RGB
    (2, size, size, 3), and saliency, float32 (H, W) of the model's input (see `merba.prediction.inference.classify`), or
    (size, size) of the aligned face if the input is an image, a crop of it.
    """

    clip: str
    source: str
    dataset: str = OWN
    subject: str | None = None
    true: str | None = None
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    predicted: str | None = None
    movement: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    faces: int | None = None
    head_motion: float | None = None
    head_moves: bool = False
    score: float | None = None
    warnings: Sequence[str] = ()
    problem: str | None = None
    flow: np.ndarray | None = field(default=None, repr=False, compare=False)
    points: np.ndarray | None = field(default=None, repr=False, compare=False)
    images: np.ndarray | None = field(default=None, repr=False, compare=False)
    saliency: np.ndarray | None = field(default=None, repr=False, compare=False)
    search: Search | None = field(default=None, repr=False, compare=False)

    def record(self) -> dict[str, Any]:
        """Everything but the arrays and the search, as JSON has it."""
        large = ("flow", "points", "images", "saliency", "search")
        return {key: value for key, value in vars(self).items() if key not in large}


def predict(
    clips: str | Path | Iterable[str | Path],
    checkpoint: str | Path | Checkpoint | None = None,
    *,
    onset: int | None = None,
    apex: int | None = None,
    fps: float | None = None,
    spot: bool = False,
    explain: bool = False,
    device: str = "auto",
) -> list[Prediction]:
    """The class of each clip, from its raw frames, in the clips' order.

    clips: videos, folders of frames, folders of such clips, tables of clips (see `merba.prediction.clips.find_clips`, also
    for onset, apex, fps). The default checkpoint is that of `find_model`. Preprocessing is what the checkpoint was trained with.
    With `spot`, a clip without onset and apex is searched, and each candidate interval in it predicted; a clip without
    candidates gives one prediction without a class. `explain` also gives the aligned faces and the occlusion saliency, which
    takes some 170 runs of the model per clip.

    Raises MerbaError for a checkpoint that can't be used; a clip that can't be used has the reason in `problem`.
    """
    if device not in DEVICES:
        raise MerbaError(f"device {unknown(device, DEVICES)}")
    if spot and (onset is not None or apex is not None):
        raise MerbaError("`spot` searches for onset and apex; leave out either `spot` or the onset and apex")
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(Path(checkpoint or find_model()))
    if checkpoint.view:
        raise MerbaError(
            f"the checkpoint was trained on the view {checkpoint.view['name']}, but new clips are predicted only from flow; use "
            "the checkpoint of a model that takes flow"
        )
    rows = find_clips([clips] if isinstance(clips, str | Path) else clips, onset=onset, apex=apex, fps=fps)
    predictions: dict[int, list[Prediction]] = {}
    searched = rows["problem"].isna() & rows["onset"].isna() & rows["apex"].isna() & spot
    for row in rows[searched].itertuples():
        predictions[row.Index] = list(_searched(row, checkpoint, explain))
    # By subject, as the workflow does: where a frame shows several faces, the subject's other clips say which is meant.
    subjects = rows[~searched].groupby(["dataset", "subject"], sort=False)
    for _, group in counted(subjects, len(subjects), "subjects' clips"):
        predictions |= {
            index: [prediction] for index, prediction in zip(group.index, _prepare(group, checkpoint, explain), strict=True)
        }
    return _classified([prediction for index in rows.index for prediction in predictions[index]], checkpoint, explain, device)


def find_model() -> Path:
    """The file MODEL in the working folder, or else in the checkout that merba runs from; MerbaError where there is none."""
    folders = (Path.cwd(), PACKAGE.parent)
    for folder in folders:
        if (folder / MODEL).is_file():
            return folder / MODEL
    raise MerbaError(
        f"no checkpoint is given, and there is no {MODEL} in {' or '.join(map(str, dict.fromkeys(folders)))}: run `make model` "
        "in a checkout of merba, which takes a few minutes, or give a checkpoint"
    )


def _prepare(rows: pd.DataFrame, checkpoint: Checkpoint, explain: bool) -> list[Prediction]:
    """Face, apex and flow of one subject's clips; no classes yet."""
    made = {
        index: _blank(row, checkpoint.classes)
        for index, row in rows.astype(object).where(rows.notna(), None).to_dict("index").items()
    }
    rows = rows[rows["problem"].isna()]
    if rows.empty:
        return list(made.values())
    faces = faces_of_subject(rows, checkpoint.faces)
    apexes = apexes_of_subject(rows, faces, checkpoint.apex, checkpoint.faces)
    flow, clips = flow_of_subject(rows, faces, apexes, checkpoint.flow, checkpoint.faces)
    stages = (table.to_dict("records") for table in (faces, apexes, clips))
    for row, face, apex, clip, values in zip(rows.itertuples(), *stages, flow, strict=True):
        if pd.notna(clip["problem"]):
            made[row.Index] = replace(made[row.Index], problem=clip["problem"])
            continue
        moves = head_warning(clip["head_motion"], flow.shape[-1])
        numbers = {key: int(apex[key]) for key in ("onset", "apex", "offset") if pd.notna(apex[key])}
        seconds = _seconds(row, numbers)
        doubts = (*_doubts(row, face, apex, seconds), moves, _without_class(row.emotion, checkpoint.classes))
        made[row.Index] = replace(
            made[row.Index],
            **numbers,
            seconds=seconds,
            box=tuple(float(face[edge]) for edge in ("x0", "y0", "x1", "y1")),
            faces=int(face["faces"]),
            movement=_movement(values, clip["points"], checkpoint.flow["channels"]),
            head_motion=clip["head_motion"],
            head_moves=moves is not None,
            warnings=tuple(filter(None, doubts)),
            flow=values,
            points=clip["points"],
            images=_aligned(row, face, (numbers["onset"], numbers["apex"]), checkpoint.faces) if explain else None,
        )
    return list(made.values())


def _blank(row: Mapping[str, Any], classes: Sequence[str]) -> Prediction:
    """The prediction before any stage: what the clip's table says about it."""
    subject = None if row["dataset"] == OWN else row["subject"]
    true = true_class(row["emotion"], classes) if row["emotion"] else None
    return Prediction(row["clip"], row["source"], row["dataset"], subject, true, problem=row["problem"])


def _searched(row: Any, checkpoint: Checkpoint, explain: bool) -> Iterator[Prediction]:
    """The candidate intervals of a clip, prepared one after the other; memory does not grow with the clip's length."""
    row = row._replace(emotion=None, problem=None)  # the clip's class is not that of each candidate in it
    whole = _blank(row._asdict(), checkpoint.classes)
    try:
        result = search(clip_of(row), row.fps, checkpoint.faces, checkpoint.apex)
        if not result.candidates:
            yield replace(whole, warnings=("no candidate interval: the face never moves and returns",), search=result)
        clip = clip_of(row)
        for candidate in result.candidates:
            # Cut out to images, so that the stages need not decode a long video from its start each time.
            with TemporaryDirectory() as folder:
                times = {}
                for number, image in clip.frames(candidate.onset, candidate.offset):
                    times[number] = clip.time(number, row.fps)
                    if not cv2.imwrite(str(Path(folder) / f"{number}.png"), image):
                        raise MerbaError(f"{folder}: there is no space for the video's frames; set TMPDIR to a larger disk")
                # Without a frame rate: images have no times (they are added below), and a candidate is never too long.
                cut = row._replace(source=folder, kind="frames", onset=candidate.onset, offset=candidate.offset, fps=math.nan)
                (made,) = _prepare(pd.DataFrame([cut]).set_index("Index"), checkpoint, explain)
            problem = made.problem and made.problem.replace(folder, row.source)
            seconds = {key: times[getattr(made, key)] for key in ("onset", "apex", "offset") if getattr(made, key) is not None}
            yield replace(made, source=row.source, seconds=seconds, score=candidate.score, search=result, problem=problem)
            between = candidate.onset, candidate.offset
            log.info("%s: candidate from frame %d to %d (%.2f–%.2f s) prepared", row.clip, *between, *map(times.get, between))
    except ClipProblem as problem:
        yield replace(whole, problem=str(problem))


def _doubts(row: Any, face: Mapping[str, Any], apex: Mapping[str, Any], seconds: Mapping[str, float]) -> Iterable[str]:
    if face["faces"] > 1:
        x, y = (round((face[a] + face[b]) / 2) for a, b in (("x0", "x1"), ("y0", "y1")))
        yield (
            f"the onset frame shows {face['faces']} faces; the one around ({x}, {y}) px was taken. If it is the wrong one, "
            "crop the video to the right face"
        )
    if face["turn"]:
        yield f"the face is not upright; it was found in the frame turned by {degrees(face['turn'])}"
    if apex["source"] == "detected" and seconds and (lasts := seconds["offset"] - seconds["onset"]) > LONG:
        yield f"it lasts {lasts:.1f} s, but a micro-expression at most {LONGEST} s: give onset and apex, or search it (spot)"


def _seconds(row: Any, numbers: Mapping[str, int]) -> dict[str, float]:
    """When the frames of these numbers, in ascending order, are shown; empty where the frame rate is unknown."""
    if math.isnan(row.fps):
        return {}
    clip = clip_of(row)
    return {key: clip.time(number, row.fps) for key, number in numbers.items()}


def _without_class(emotion: str | None, classes: Sequence[str]) -> str | None:
    if pd.notna(emotion) and not true_class(emotion, classes):
        return f"its emotion {emotion!r} is not one of the model's classes ({', '.join(classes)}): it has no true class"
    return None


def _movement(flow: np.ndarray, points: np.ndarray, channels: Sequence[str]) -> float | None:
    """`flow_images.movement`, where the flow has what that needs."""
    if not {"u", "v"} <= set(channels):
        return None
    return movement(flow[[channels.index("u"), channels.index("v")]], points.reshape(5, 2))


def _aligned(row: Any, face: Mapping[str, Any], numbers: Iterable[int], settings: Mapping[str, Any]) -> np.ndarray:
    clip, chosen = clip_of(row), FaceSettings.of(settings)
    frames = [cv2.cvtColor(clip.read(number), cv2.COLOR_BGR2RGB) for number in numbers]
    return np.stack([align(frame, transform_of(face), chosen.size, chosen.interpolation) for frame in frames])


def _classified(predictions: list[Prediction], checkpoint: Checkpoint, explain: bool, device: str) -> list[Prediction]:
    """The predictions with classes, where there is flow and a movement in it."""
    least = LEAST_MOVEMENT / 224 * checkpoint.faces["size"]
    still = {index for index, clip in enumerate(predictions) if clip.movement is not None and clip.movement < least}
    predictions = [replace(clip, predicted=NO_MOVEMENT) if index in still else clip for index, clip in enumerate(predictions)]
    usable = [index for index, clip in enumerate(predictions) if clip.flow is not None and index not in still]
    if not usable:
        return predictions
    flow = np.stack([predictions[index].flow for index in usable])
    points = np.stack([predictions[index].points for index in usable]).reshape(-1, 5, 2)
    with training_device(device) as chosen:
        result = classify(checkpoint, flow, points, chosen, saliency=explain)
    for place, index in enumerate(usable):
        predictions[index] = replace(
            predictions[index],
            predicted=checkpoint.classes[result.predicted[place]],
            probabilities=dict(zip(checkpoint.classes, result.probabilities[place].tolist(), strict=True)),
            saliency=None if result.saliency is None else _on_face(result.saliency[place], points[place], checkpoint),
        )
    return predictions


def _on_face(saliency: np.ndarray, points: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    """Saliency (H, W) of a flow image as it lies on the aligned face, (size, size); any other as it is."""
    if not checkpoint.image:
        return saliency
    size = checkpoint.faces["size"]
    transform = image_transform(points, checkpoint.image)
    return cv2.warpAffine(saliency, transform, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
