"""CASME II (Yan et al. 2014): a coding table, and frames of each clip in a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from merba.datasets.annotations import checked_frames, correct, read_annotations
from merba.datasets.layout import find_folder, find_table, frame_candidates, open_root, with_frames
from merba.datasets.tasks import label_rows
from merba.sheet import sample_rows

ADAPTER = "casme2"
TABLES = ("CASME2-coding-20140508.xlsx", "CASME2-coding-updated.xlsx", "CASME2-coding-20140508.csv")
COLUMNS = {
    "subject": "Subject",
    "clip": "Filename",
    "onset": "OnsetFrame",
    "apex": "ApexFrame",
    "offset": "OffsetFrame",
    "emotion": "Estimated Emotion",
}
FRAMES = {
    "raw": ("CASME2-RAW", "CASME2_RAW", "CASME2_RAW_selected"),
    "cropped": ("Cropped", "Cropped-updated", "CASME2_Cropped"),
}
FPS = 200.0


def read(
    root: Path,
    *,
    name: str,
    variant: str = "raw",
    annotations: str | None = None,
    frames: str | None = None,
    corrections: str | None = None,
    task: str = "3db",
    only: str | None = None,
    missing: str = "error",
) -> pd.DataFrame:
    """Sample sheet of the coding table and `<frames>/sub01/<Filename>/`.

    An apex of `/` is null. See docs/datasets.md for the settings.
    """
    home = open_root(root, ADAPTER)
    table = find_table(home, TABLES, annotations)
    clips = read_annotations(table, ADAPTER, COLUMNS)
    clips["subject"] = "sub" + clips["subject"].str.removeprefix("sub").str.zfill(2)
    clips = correct(clips, ADAPTER, corrections)
    clips = label_rows(clips, ADAPTER, table, task, only, missing)
    clips = checked_frames(clips, ADAPTER, table)
    folder = find_folder(home, frame_candidates(ADAPTER, FRAMES, variant, frames), r"sub\d+", "the subjects' folders sub01, …")
    clips = with_frames(clips, folder, lambda clip: (clip["subject"], clip["clip"]), missing)
    return sample_rows(clips.assign(dataset=name, kind="frames", fps=FPS))
