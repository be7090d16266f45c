"""A contact sheet of clips of a dataset, from frames to flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.files import atomic, read_parquet
from merba.joblog import job_log
from merba.preprocessing.faces import FaceSettings
from merba.preprocessing.figures import Tile, clip_tile, plot_contact_sheet
from merba.preprocessing.packs import flows_of
from merba.sheet import from_plain_rows


def run(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    face_settings: Mapping[str, Any],
    head_motion: float,
    *,
    faces: Sequence[str],
    apexes: Sequence[str],
    flow: Sequence[str],
    output: str,
    log: str,
) -> None:
    """Draw the clips of the plain rows from the stages' files of their subjects, which are in the rows' order.

    `head_motion` is the share of the aligned face that a head may move without a warning.
    """
    with job_log(log, title), atomic(Path(output)) as draft:
        subjects = from_plain_rows(rows).groupby("subject", sort=False)
        tiles: list[Tile] = []
        for (_, clips), *files in zip(subjects, faces, apexes, flow, strict=True):
            tiles += _tiles(clips, *map(Path, files), FaceSettings.of(face_settings), head_motion)
        plot_contact_sheet(tiles, title=title, path=draft)


def _tiles(clips: pd.DataFrame, faces: Path, apexes: Path, flow: Path, settings: FaceSettings, limit: float) -> Iterator[Tile]:
    """One subject's tiles; only one clip's flow is in memory at a time."""
    tables = (read_parquet(path).to_dict("records") for path in (faces, apexes))
    with np.load(flow) as file:
        names, *numbers = (file[name] for name in ("channels", "clip", "head_motion", "problem"))
    rows = {row.clip: row for row in clips.itertuples()}
    for face, apex, values, clip, moved, problem in zip(*tables, flows_of(flow), *numbers, strict=True):
        if clip in rows:
            channels = dict(zip(names, values, strict=True))
            yield clip_tile(rows[clip], face, apex, channels, moved, str(problem), settings, limit)
