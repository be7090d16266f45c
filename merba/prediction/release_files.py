"""Flow images of a user's clips, in the files of the public release, which STSTNet, HTNet and code based on them read."""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from merba.datasets.flow_images import IMAGES, TABLE
from merba.datasets.tasks import CLASSES, SYNONYMS, THREE_CLASSES
from merba.errors import MerbaError
from merba.frames import clip_of
from merba.prediction.clips import OWN, file_stem
from merba.preprocessing.alignment import align, compose
from merba.preprocessing.faces import transform_of
from merba.preprocessing.flow_images import flow_images, image_transform
from merba.preprocessing.packs import RELEASED, ClipFlow
from merba.sheet import safe_id

log = logging.getLogger(__name__)

FACES, SPLITS = "combined_datasets_whole", "three_norm_u_v_os"
"""HTNet's folders: of apex faces, and of the flow images sorted by fold."""
FACE_SIZE = 224
"""Side of HTNet's apex faces, px."""


class ReleaseFiles:
    """Flow images, apex faces in the same crop, the table, and the folds if every clip has a class."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self, rows: pd.DataFrame) -> dict[str, list[str]]:
        """Columns of the release's table, and `file`, the name of the flow image.

        The dataset has the name of the table that lists the clip. Other clips get the dataset `own`, each with its own subject.
        Raises MerbaError if two clips would have the same name.
        """
        listed = rows["dataset"] != OWN
        numbered = pd.Series([f"own{number:03}" for number in range(1, len(rows) + 1)], index=rows.index)
        subjects = _texts(rows["subject"].map(safe_id).where(listed, numbered), "s")
        clips = _texts(rows["clip"].map(file_stem), "c")
        joined = [f"{subject}_{clip}" for subject, clip in zip(subjects, clips, strict=True)]
        if twice := [name for name, count in Counter(joined).items() if count > 1]:
            raise MerbaError(
                f"several clips would be called {', '.join(twice)}; give them different subjects or clips in the table"
            )
        return {
            "owner": [re.sub("[^a-z0-9_]+", "_", Path(name).stem.lower()) for name in rows["dataset"]],
            "sub": subjects,
            "filename_o": clips,
            "label": [_label(emotion) for emotion in rows["emotion"].fillna("")],
            "imagename": [f"{name}.jpg" for name in joined],
            "file": [f"{name} .png" for name in joined],  # the release has this space
        }

    def write(self, row: Any, face: Mapping[str, Any], apex: Mapping[str, Any], flow: ClipFlow) -> None:
        """The flow image, RGB for u, v and strain, and the aligned apex face, in which HTNet looks for landmarks."""
        image = flow_images(flow.flow[None], flow.points[None], RELEASED)[0].transpose(1, 2, 0)
        crop = image_transform(flow.points, replace(RELEASED, size=FACE_SIZE))
        frame = clip_of(row).read(apex["apex"])
        aligned = align(frame, compose(crop, transform_of(face)), FACE_SIZE)
        for part, name, pixels in ((IMAGES, row.file, image[:, :, ::-1]), (FACES, row.imagename, aligned)):
            path = self.folder / "datasets" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), pixels):
                raise MerbaError(f"{path} can't be written; free some space, or choose another --out")

    def finish(self, clips: pd.DataFrame) -> None:
        """The table of the clips without a problem, and the folds."""
        usable = clips[clips["problem"].isna()]
        table = usable.assign(dataset=usable["owner"], sub_filename="")
        columns = ["dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename"]
        table[columns].to_csv(self.folder / TABLE, index=False)
        if (unknown := usable["label"] == "").any():
            first = usable.loc[unknown, "file"].iloc[0]
            log.warning("%d clips have no class, such as %r: no folds are written", unknown.sum(), first)
        elif usable["sub"].nunique() > 1:
            self._write_folds(usable)

    def _write_folds(self, clips: pd.DataFrame) -> None:
        """One folder per subject: its images in u_test, those of all others in u_train, by class."""
        datasets = self.folder / "datasets"
        for tested in clips["sub"].unique():
            for clip in clips.itertuples():
                place = datasets / SPLITS / tested / ("u_test" if clip.sub == tested else "u_train") / clip.label
                place.mkdir(parents=True, exist_ok=True)
                _link(place / clip.file, datasets / IMAGES / clip.file)


def _texts(names: Iterable[str], prefix: str) -> list[str]:
    """The names, with a prefix if all are numbers: HTNet reads the table with pandas, which turns 006 into 6."""
    return [prefix + name for name in names] if all(map(str.isdecimal, names)) else list(names)


def _label(emotion: str) -> str:
    """The release's number of an emotion's class; empty if there is none."""
    name = emotion.casefold()
    known = THREE_CLASSES.get(SYNONYMS.get(name, name))
    return str(CLASSES.index(known)) if known else ""


def _link(path: Path, target: Path) -> None:
    try:
        path.hardlink_to(target)
    except OSError:  # a file system without links
        shutil.copyfile(target, path)
