"""CAS(ME)³ part A (Li et al. 2022): long videos as frames, with the micro-expressions marked in a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from merba.datasets.annotations import checked_frames, correct, read_annotations
from merba.datasets.layout import find_folder, find_table, open_root, with_frames
from merba.datasets.tasks import label_rows
from merba.sheet import sample_rows

ADAPTER = "casme3"
TABLES = ("cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", "annotation/cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx")
COLUMNS = {
    "subject": "Subject",
    "clip": "Filename",
    "onset": "Onset",
    "apex": "Apex",
    "offset": "Offset",
    "emotion": "emotion",
}
CLIPS = ("Part_A_ME_clip/frame", "part_A/Part_A_ME_clip/frame", "part_A/frame", "frame")
"""Possible folders of the release's cut clips, which many download instead of the videos."""
FRAMES = (*CLIPS, "part_A", "data", "RGB", "")
FPS = 30.0


def read(
    root: Path,
    *,
    name: str,
    annotations: str | None = None,
    frames: str | None = None,
    corrections: str | None = None,
    task: str = "emotion",
    missing: str = "error",
) -> pd.DataFrame:
    """Sample sheet of the table and `<frames>/spNO.1/b/color/` or `<frames>/spNO.1_b_166/`.

    A clip is named by its video and onset, `b_166`. An apex at or before its onset is null: in 55 clips the frames before
    the apex were not recorded. See docs/datasets.md for the settings.
    """
    home = open_root(root, ADAPTER)
    table = find_table(home, TABLES, annotations)
    clips = read_annotations(table, ADAPTER, COLUMNS)
    clips = clips.assign(video=clips["clip"], released=clips["onset"])
    clips["clip"] = clips["video"].str.lower() + "_" + clips["onset"]
    clips = correct(clips, ADAPTER, corrections)
    clips["clip"] = clips["video"].str.lower() + "_" + clips["onset"]
    clips = label_rows(clips, ADAPTER, table, task, None, missing)
    clips = checked_frames(clips, ADAPTER, table, late_apex=True)
    # The cut clips' depth images have folders of the same names next to `frame`.
    folder = find_folder(
        home,
        [f"{frames}/frame", frames] if frames else FRAMES,
        r"spNO\.\d+(_[a-z]+_\d+)?",
        "the folders spNO.1, … or spNO.1_b_166, …",
    )
    cut = any("_" in name for name in folder.names)

    def parts(clip: Mapping[str, str]) -> tuple[str, ...]:
        if not cut:
            return clip["subject"], clip["video"], "color"
        # The folder's name may have the corrected onset or the released one.
        names = [f"{clip['subject']}_{clip['video']}_{onset}" for onset in (clip["onset"], clip["released"])]
        return (next(filter(folder.folder, names), names[0]),)

    clips = with_frames(clips, folder, parts, missing)
    return sample_rows(clips.assign(dataset=name, kind="frames", fps=FPS))
