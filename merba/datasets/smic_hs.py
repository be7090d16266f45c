"""SMIC-HS (Li et al. 2013): folders of frames, no annotation table, no apex."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from merba.datasets.layout import (
    Folder,
    find_folder,
    frame_candidates,
    layout_error,
    open_root,
    report_missing,
    shown,
)
from merba.datasets.tasks import CLASSES, label_rows
from merba.errors import ClipProblem, did_you_mean
from merba.frames.names import frame_names
from merba.sheet import loose, sample_rows

ADAPTER = "smic_hs"
FRAMES = {"raw": ("SMIC_all_raw/HS", "HS", ""), "cropped": ("SMIC_all_cropped/HS", "HS", "")}
FPS = 100.0


def read(
    root: Path,
    *,
    name: str,
    variant: str = "raw",
    frames: str | None = None,
    only: str | None = None,
    missing: str = "error",
) -> pd.DataFrame:
    """Sample sheet of `<frames>/<subject>/micro/<class>/<clip>/`: the class is the folder, the clip its frames.

    only: `megc2019` keeps the clips of the composite; missing: `drop` continues without clips that have no frames.
    """
    hs = find_folder(
        open_root(root, ADAPTER),
        frame_candidates(ADAPTER, FRAMES, variant, frames),
        r"s\d+",
        "the subjects' folders s1, s2, …",
    )
    subjects = [hs.folder(child) for child in hs.names if re.fullmatch(r"s\d+", child.casefold())]
    clips = [clip for subject in subjects for clip in _clips_of(subject)]
    rows, empty = [], []
    for subject, label, clip in clips:
        try:
            numbers = list(frame_names(clip))
        except ClipProblem as problem:
            empty.append(str(problem))
            continue
        rows.append(
            {
                "dataset": name,
                "subject": f"s{int(loose(subject)[1:]):02d}",
                "clip": clip.name,
                "source": str(clip),
                "kind": "frames",
                "onset": numbers[0],
                "offset": numbers[-1],
                "fps": FPS,
                "emotion": label,
            }
        )
    report_missing(empty, f"{len(empty)} clips in {hs.path} have no usable frames", ADAPTER, missing)
    if not rows:
        raise layout_error(ADAPTER, f"{hs.path}: expected <subject>/micro/<class>/<clip>; found no clip with frames")
    clips = label_rows(pd.DataFrame(rows), ADAPTER, hs.path, "3db", only, missing)
    return sample_rows(clips)


def _clips_of(subject: Folder) -> list[tuple[str, str, Path]]:
    """(subject folder's name, class, clip's folder) of every clip; a subject may lack a class."""
    micro = subject.folder("micro")
    if micro is None:
        others = [name for name in subject.names if name.casefold() != "non_micro"]  # part of the release
        raise layout_error(
            ADAPTER, f"{subject.path}: expected folder micro{did_you_mean('micro', others)}; found {shown(subject.names)}"
        )
    unknown = [child for child in micro.names if child.casefold() not in CLASSES and micro.folder(child)]
    if unknown:
        raise layout_error(
            ADAPTER,
            f"{micro.path}: expected folders {', '.join(CLASSES)}; found {unknown[0]}{did_you_mean(unknown[0], CLASSES)}",
        )
    return [
        (subject.path.name, label, clips.path / clip)
        for label in CLASSES
        if (clips := micro.folder(label))
        for clip in clips.names
        if (clips.path / clip).is_dir()
    ]
