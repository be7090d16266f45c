"""Releases with the same layout: a table of annotations, and each clip's frames in `<frames>/<subject>/<clip>/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from merba.datasets.annotations import checked_frames, correct, read_annotations
from merba.datasets.layout import find_folder, find_table, frame_candidates, open_root, with_frames
from merba.datasets.tasks import label_rows
from merba.sheet import sample_rows


@dataclass(frozen=True)
class Annotated:
    """The names of such a release's files and columns.

    tables: possible names of the table; columns: our names → the table's; frames: possible folders of frames by variant (raw,
    cropped); subjects: a pattern for the subjects' folders, and an example; subject: turns the column of subjects into their
    folders' names.
    """

    adapter: str
    tables: Sequence[str]
    columns: Mapping[str, str]
    frames: Mapping[str, Sequence[str]]
    fps: float
    subjects: tuple[str, str]
    subject: Callable[[pd.Series], pd.Series]

    def read(
        self,
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
        """Sample sheet of the release in `root`; an unknown apex is null (see `is_no_apex`). Settings: docs/datasets.md."""
        home = open_root(root, self.adapter)
        table = find_table(home, self.tables, annotations)
        clips = read_annotations(table, self.adapter, self.columns)
        clips["subject"] = self.subject(clips["subject"])
        clips = correct(clips, self.adapter, corrections)
        clips = label_rows(clips, self.adapter, table, task, only, missing)
        clips = checked_frames(clips, self.adapter, table)
        pattern, example = self.subjects
        candidates = frame_candidates(self.adapter, self.frames, variant, frames)
        folder = find_folder(home, candidates, pattern, f"the subjects' folders {example}, …")
        clips = with_frames(clips, folder, lambda clip: (clip["subject"], clip["clip"]), missing)
        return sample_rows(clips.assign(dataset=name, kind="frames", fps=self.fps))
