"""The folders, file names and annotation tables in which the demo's clips are written, as their releases have them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")


@dataclass(frozen=True)
class ClipPlan:
    """One clip before it is rendered: its names, and its frames by their numbers in the file names."""

    subject_index: int  # 0-based
    index: int  # 0-based, within the subject
    subject: str
    clip: str
    label: str
    emotion: str
    split: str
    folder: Path  # of the frames, relative to the dataset's folder
    first: int
    onset: int
    apex: int
    offset: int
    last: int
    apex_annotated: bool

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)


@dataclass(frozen=True)
class Layout:
    """How one dataset looks on disk. Functions of names get the subject's and the clip's 0-based indices."""

    size: tuple[int, int]  # width and height of a frame, px
    face_width: float  # width of the landmark box, px
    grey: bool
    fps: float
    emotions: Mapping[str, Sequence[str]]  # class → emotions as annotated, taken in turn
    cut_to_clip: bool  # frames run from onset to offset exactly, and nothing else is annotated
    subject: Callable[[int], str]  # as in the sample sheet
    clip: Callable[[int, int, str], str]  # also gets the class
    folder: Callable[[str, str, str], Path]  # of subject, clip and class
    frame_name: Callable[[str, int], str]  # of subject and frame number
    annotate: Callable[[Path, Sequence[ClipPlan]], None]  # writes the tables into the dataset's folder


def _write_workbook(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """One sheet of `rows`, with the same bytes on every day: time stamps are set to a constant."""
    from openpyxl import Workbook

    workbook = Workbook()
    for row in rows:
        workbook.active.append(list(row))
    written = io.BytesIO()
    workbook.save(written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"1980-01-01T00:00:00Z", source.read(name))
            target.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _annotate_casme2(root: Path, plans: Sequence[ClipPlan]) -> None:
    header = ["Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None, "Action Units"]
    rows = [
        [
            plan.subject_index + 1, plan.clip, None,
            plan.onset, plan.apex if plan.apex_annotated else "/", plan.offset, None, None, plan.emotion,
        ]
        for plan in plans
    ]  # fmt: skip
    _write_workbook(root / "CASME2-coding-20140508.xlsx", [[*header, "Estimated Emotion"], *rows])


def _annotate_samm(root: Path, plans: Sequence[ClipPlan]) -> None:
    prose = [
        ["Demonstration clips in the layout of the SAMM release"],
        [],
        ["Every clip was rendered from one portrait photograph; no person's reaction was recorded."],
        ["Frame numbers are the numbers in the file names."],
        ["Onset Frame", "where the movement begins"],
        ["Apex Frame", "where the movement is largest"],
        ["Offset Frame", "where the movement has gone"],
        ["Estimated Emotion", "the class of the movement"],
        *[[]] * 5,
    ]
    header = [
        "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration",
        "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
    ]  # fmt: skip
    rows = [
        [
            int(plan.subject), plan.clip, 1, plan.onset, plan.apex, plan.offset, plan.offset - plan.onset + 1,
            "Micro - 1/2", None, plan.emotion, None, None,
        ]
        for plan in plans
    ]  # fmt: skip
    _write_workbook(root / "SAMM_Micro_FACS_Codes_v2.xlsx", [*prose, header, *rows])


def _annotate_dfme(root: Path, plans: Sequence[ClipPlan]) -> None:
    for split in ("train", "test_a", "test_b"):
        rows = [
            f"{plan.subject},{plan.clip},{plan.onset},{plan.apex},{plan.offset},{plan.emotion}"
            for plan in plans
            if plan.split == split
        ]
        header = "subject,clip,onset,apex,offset,emotion"
        (root / f"{split}.csv").write_text("\n".join([header, *rows]) + "\n")


_SMIC_CODES = {"negative": "ne", "positive": "po", "surprise": "sur"}

LAYOUTS: dict[str, Layout] = {
    "smic_hs": Layout(
        size=(640, 480),
        face_width=220,
        grey=False,
        fps=100,
        emotions={name: (name,) for name in _SMIC_CODES},
        cut_to_clip=True,
        subject=lambda subject: f"s{subject + 1:02d}",
        clip=lambda subject, clip, label: f"s{subject + 1}_{_SMIC_CODES[label]}_{clip + 1:02d}",
        folder=lambda subject, clip, label: Path("HS", f"s{int(subject[1:])}", "micro", label, clip),
        frame_name=lambda subject, number: f"image{number}.bmp",
        annotate=lambda root, plans: None,
    ),
    "casme2": Layout(
        size=(640, 480),
        face_width=240,
        grey=False,
        fps=200,
        emotions={
            "negative": ("disgust", "repression"), "positive": ("happiness",), "surprise": ("surprise",),
        },
        cut_to_clip=False,
        subject=lambda subject: f"sub{subject + 1:02d}",
        clip=lambda subject, clip, label: f"EP{subject + 1:02d}_{clip + 1:02d}f",
        folder=lambda subject, clip, label: Path("CASME2-RAW", subject, clip),
        frame_name=lambda subject, number: f"img{number}.jpg",
        annotate=_annotate_casme2,
    ),
    "samm": Layout(
        size=(960, 540),
        face_width=280,
        grey=True,
        fps=200,
        emotions={
            "negative": ("Anger", "Contempt", "Disgust", "Fear", "Sadness"),
            "positive": ("Happiness",),
            "surprise": ("Surprise",),
        },
        cut_to_clip=False,
        subject=lambda subject: f"{subject + 6:03d}",
        clip=lambda subject, clip, label: f"{subject + 6:03d}_{clip // 5 + 1}_{clip % 5 + 1}",
        folder=lambda subject, clip, label: Path("SAMM", subject, clip),
        frame_name=lambda subject, number: f"{subject}_{number:05d}.jpg",
        annotate=_annotate_samm,
    ),
    "dfme": Layout(
        size=(640, 480),
        face_width=220,
        grey=False,
        fps=200,
        emotions={name: (name,) for name in EMOTIONS},
        cut_to_clip=False,
        subject=lambda subject: f"subject_{subject + 1:04d}",
        clip=lambda subject, clip, label: f"{subject + 1:04d}_{clip + 1:03d}",
        folder=lambda subject, clip, label: Path("frames", clip),
        frame_name=lambda subject, number: f"{number:05d}.jpg",
        annotate=_annotate_dfme,
    ),
}  # fmt: skip
