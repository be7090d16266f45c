"""Flow of a user's clips as files for other code: arrays in px, or the flow images that STSTNet and HTNet read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from merba.errors import MerbaError
from merba.joblog import counted
from merba.prediction.clips import find_clips, numbered_stem
from merba.prediction.release_files import ReleaseFiles
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject
from merba.preprocessing.flow import flow_of_clips
from merba.preprocessing.packs import ClipFlow

log = logging.getLogger(__name__)

POINTS = tuple(f"{name}_{axis}" for name in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy")
"""Columns of the points that a face was aligned by, px of the aligned face; "left" means left in the image."""
COLUMNS = ("dataset", "subject", "clip", "source", "onset", "apex", "offset", "emotion", "backend", "turn", "head_motion")


class Files(Protocol):
    """One way to write the flow of clips into a folder."""

    def names(self, rows: pd.DataFrame) -> dict[str, list[str]]:
        """The columns to add to the table of clips; `file` is the file of the clip's flow."""

    def write(self, row: Any, face: Mapping[str, Any], apex: Mapping[str, Any], flow: ClipFlow) -> None:
        """Write one clip, given its row with the columns of `names`, and the results of the stages."""

    def finish(self, clips: pd.DataFrame) -> None:
        """Write the files about all clips; `clips` has the columns of `names`, COLUMNS, POINTS and problem."""


class ArrayFiles:
    """One float32 array (2, 224, 224) per clip, u and v in px of the aligned face, and clips.csv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self, rows: pd.DataFrame) -> dict[str, list[str]]:
        return {"file": [f"{numbered_stem(number, name)}.npy" for number, name in enumerate(rows["clip"], start=1)]}

    def write(self, row: Any, face: Mapping[str, Any], apex: Mapping[str, Any], flow: ClipFlow) -> None:
        np.save(self.folder / row.file, flow.flow.astype(np.float32))

    def finish(self, clips: pd.DataFrame) -> None:
        files = clips["file"].where(clips["problem"].isna(), "")
        columns = ["file", *COLUMNS, *POINTS, "problem"]
        clips.assign(file=files).reindex(columns=columns).to_csv(self.folder / "clips.csv", index=False)


FORMS: Mapping[str, type[Files]] = {"arrays": ArrayFiles, "ststnet": ReleaseFiles}


def write_flow(
    paths: Iterable[str | Path],
    folder: Path,
    *,
    form: str = "arrays",
    onset: int | None = None,
    apex: int | None = None,
    fps: float | None = None,
) -> pd.DataFrame:
    """Write the onset-to-apex flow of the clips at `paths` (see `find_clips`) to a new folder, with the default settings.

    form is one of FORMS. Returns the table of `Files.finish`; its column `problem` says why a clip was left out. Raises
    MerbaError if the folder is not empty, or if two clips would have the same name.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MerbaError(f"--out: {folder} is {'not empty' if folder.is_dir() else 'a file'}; name a new folder")
    rows = find_clips(paths, onset=onset, apex=apex, fps=fps)
    files = FORMS[form](folder)
    rows = rows.assign(**files.names(rows))
    folder.mkdir(parents=True, exist_ok=True)
    records = rows.to_dict("index")
    subjects = rows[rows["problem"].isna()].groupby(["dataset", "subject"], sort=False)
    for _, group in counted(subjects, len(subjects), "subjects' clips"):
        for row, face, top, flow in _flow_of_subject(group):
            measured = {key: top[key] for key in ("onset", "apex", "offset")} | {key: face[key] for key in ("backend", "turn")}
            measured |= dict(zip(POINTS, flow.points.ravel(), strict=True))
            records[row.Index] |= measured | {"head_motion": flow.head_motion, "problem": flow.problem}
            if flow.problem is None:
                files.write(row, face, top, flow)
    columns = list(dict.fromkeys([*rows, *COLUMNS, *POINTS, "problem"]))
    clips = pd.DataFrame.from_dict(records, orient="index").reindex(columns=columns)
    clips = clips.astype(dict.fromkeys(("onset", "apex", "offset", "turn"), "Int64"))
    for clip in clips[clips["problem"].notna()].itertuples():
        log.warning("%s: %s", clip.clip, clip.problem)
    files.finish(clips)
    return clips


def _flow_of_subject(rows: pd.DataFrame) -> Iterator[tuple[Any, Mapping[str, Any], Mapping[str, Any], ClipFlow]]:
    """Row, face, apex and flow of each of one subject's clips, by the workflow's stages."""
    faces = faces_of_subject(rows, {})
    apexes = apexes_of_subject(rows, faces, {}, {})
    flows = flow_of_clips(rows, faces, apexes, {}, {})
    yield from zip(rows.itertuples(), faces.to_dict("records"), apexes.to_dict("records"), flows, strict=True)
