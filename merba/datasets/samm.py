"""SAMM (Davison et al. 2016): a table of FACS codes under some prose, and frames of each clip in a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from merba.datasets.annotations import checked_frames, correct, read_annotations
from merba.datasets.layout import find_folder, find_table, frame_candidates, open_root, with_frames
from merba.datasets.tasks import label_rows
from merba.sheet import sample_rows

ADAPTER = "samm"
TABLES = ("SAMM_Micro_FACS_Codes_v2.xlsx", "SAMM_Micro_FACS_Codes_v2.csv")
COLUMNS = {
    "subject": "Subject",
    "clip": "Filename",
    "onset": "Onset Frame",
    "apex": "Apex Frame",
    "offset": "Offset Frame",
    "emotion": "Estimated Emotion",
}
FRAMES = {"raw": ("SAMM", ""), "cropped": ("SAMM_CROP", "SAMM_cropped")}
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
    """Sample sheet of the table of codes and `<frames>/006/006_1_2/`.

    An apex that is no frame number is null. See docs/datasets.md for the settings.
    """
    home = open_root(root, ADAPTER)
    table = find_table(home, TABLES, annotations)
    clips = read_annotations(table, ADAPTER, COLUMNS)
    clips["subject"] = clips["subject"].str.zfill(3)
    clips = correct(clips, ADAPTER, corrections)
    clips = label_rows(clips, ADAPTER, table, task, only, missing)
    clips = checked_frames(clips, ADAPTER, table)
    folder = find_folder(home, frame_candidates(ADAPTER, FRAMES, variant, frames), r"\d+", "the subjects' folders 006, …")
    clips = with_frames(clips, folder, lambda clip: (clip["subject"], clip["clip"]), missing)
    return sample_rows(clips.assign(dataset=name, kind="frames", fps=FPS))
