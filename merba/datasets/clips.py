"""Your own clips: videos or folders of frames, listed in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from merba.datasets.annotations import bit_depth, checked_frames, frame_rate, read_annotations, report
from merba.datasets.layout import find_table, open_root, reach_towards, report_absent
from merba.datasets.tasks import label_rows
from merba.errors import ClipProblem
from merba.frames.names import IMAGE_SUFFIXES, frame_names
from merba.sheet import NUMBERS, plain_rows, sample_rows

ADAPTER = "clips"
COLUMNS = {name: name for name in ("subject", "clip", "source", "emotion")}
OPTIONAL = {name: name for name in ("onset", "apex", "offset", "fps", "bits")}


def read(
    root: Path,
    *,
    name: str,
    annotations: str = "clips.csv",
    task: str = "3db",
    missing: str = "error",
) -> pd.DataFrame:
    """Sample sheet of a table with subject, clip, source, emotion and, if known, onset, apex, offset, fps and bits.

    source: a video or a folder of frames, relative to the table and inside root. Without onset and offset, the whole clip is
    used; then a video's offset stays null, because counting its frames would mean decoding it.
    """
    home = open_root(root, ADAPTER)
    table = find_table(home, (), annotations)
    clips = read_annotations(table, ADAPTER, COLUMNS, OPTIONAL).reindex(columns=[*COLUMNS, *OPTIONAL], fill_value="")
    clips = label_rows(clips, ADAPTER, table, task, None, missing)
    kept, absent, unread = {}, [], []
    top = os.path.abspath(root)  # noqa: PTH100 - `resolve` would follow links, which may lead out
    for row, clip in zip(clips.index, plain_rows(clips, clips.columns), strict=True):
        source = composed_alike(Path(os.path.normpath(table.parent / clip["source"])))
        is_file = source.is_file()
        if os.path.commonpath([top, os.path.abspath(source)]) != top:  # noqa: PTH100
            unread.append(
                f"row {row}: source {clip['source']!r} is outside {root}; put a link to it there, or set `root` to a "
                "folder above it"
            )
        elif not is_file and not source.exists():
            absent.append((f"row {row}: {source}", *reach_towards(source, ADAPTER)))
        elif is_file and source.suffix.lower() in IMAGE_SUFFIXES:
            unread.append(f"row {row}: {source} is a single image; name the folder of its clip's frames")
        else:
            try:
                kept[row] = clip | _opened(clip, source, is_file)
            except ClipProblem as problem:
                unread.append(f"row {row}: {problem}")
    report(unread, ADAPTER, table)
    report_absent(absent, f"{len(absent)} of the {len(clips)} sources in {table} don't exist", ADAPTER, missing)
    opened = pd.DataFrame.from_dict(kept, orient="index").reindex(columns=[*clips, "kind"]).astype("str")
    clips = checked_frames(opened, ADAPTER, table, open_end=True)
    wrong = []
    for column, parse in (("fps", frame_rate), ("bits", bit_depth)):
        values = {}
        for row, text in clips[column][clips[column] != ""].items():
            try:
                values[row] = parse(text)
            except ValueError as error:
                wrong.append(f"row {row}: {error}")
        clips[column] = pd.Series(values, index=clips.index, dtype=NUMBERS[column])
    report(wrong, ADAPTER, table)
    return sample_rows(clips.assign(dataset=name))


def composed_alike(path: Path) -> Path:
    """The path, or, if it doesn't exist, the same path in another Unicode form of accents, as macOS writes them."""
    if str(path).isascii() or path.exists():
        return path
    parent = composed_alike(path.parent)
    beside = parent.iterdir() if parent.is_dir() else ()
    name = normalize("NFC", path.name)
    return next((other for other in beside if normalize("NFC", other.name) == name), parent / path.name)


def _opened(clip: Mapping[str, str], source: Path, is_file: bool) -> dict[str, str]:
    """A clip's source, kind, and onset and offset if the table has none: the first and last frame (not the last of a video)."""
    if is_file:
        return {"source": str(source), "kind": "video", "onset": clip["onset"] or "0"}
    frames = {"source": str(source), "kind": "frames"}
    if clip["onset"] and clip["offset"]:
        return frames
    numbers = list(frame_names(source))
    return frames | {"onset": clip["onset"] or str(numbers[0]), "offset": clip["offset"] or str(numbers[-1])}
