"""DFME (Zhao et al. 2023): a training set and the tests A and B, one table each, frames of each clip in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from merba.datasets.annotations import checked_frames, correct, read_annotations, report
from merba.datasets.layout import find_table, layout_error, open_root, with_frames
from merba.datasets.tasks import label_rows
from merba.errors import MerbaError, unknown
from merba.sheet import sample_rows

ADAPTER = "dfme"
SPLITS = ("train", "test_a", "test_b")
TABLES = {split: f"{split}.csv" for split in SPLITS}
COLUMNS = {name: name for name in ("subject", "clip", "onset", "apex", "offset", "emotion")}


def read(
    root: Path,
    *,
    name: str,
    tables: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    frames: str = "frames/{clip}",
    fps: float | None = None,
    corrections: str | None = None,
    task: str = "emotion",
    missing: str = "error",
) -> pd.DataFrame:
    """Sample sheet of three tables, one per split, and a folder of frames per clip.

    The release's headers and folders could not be verified, so both are settings. tables: split → file; columns: any
    of subject, clip, onset, apex, offset, emotion → header; frames: path of a clip's folder from root, with {clip},
    {subject} and {split}; fps: 200 to 500 in this release, null if unknown.
    """
    home = open_root(root, ADAPTER)
    _known("tables", tables or {}, SPLITS)
    _known("columns", columns or {}, COLUMNS)
    names = TABLES | dict(tables or {})
    files = {split: find_table(home, (), name, f"tables.{split}", others=names.values()) for split, name in names.items()}
    wanted = COLUMNS | dict(columns or {})
    read = pd.concat({split: read_annotations(table, ADAPTER, wanted).assign(split=split) for split, table in files.items()})
    read, splits = correct(read, ADAPTER, corrections), []
    for split, table in files.items():
        clips = label_rows(read[read["split"] == split].droplevel(0), ADAPTER, table, task, None, missing)
        splits.append(checked_frames(clips, ADAPTER, table))
    clips = pd.concat(splits)
    twice = clips[clips.duplicated(["subject", "clip"])]
    faults = [f"row {row} of {clip['split']}: {clip['clip']} is in two splits" for row, clip in twice.iterrows()]
    report(faults, ADAPTER, root)
    clips = with_frames(clips, home, lambda clip: _parts(frames, clip), missing)
    return sample_rows(clips.assign(dataset=name, kind="frames", fps=fps))


def _parts(template: str, clip: Mapping[str, str]) -> tuple[str, ...]:
    """The names that lead to a clip's folder."""
    names = {key: clip[key] for key in ("subject", "clip", "split")}
    try:
        parts = Path(template.format_map(names)).parts
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        wrong = f"has {{{error.args[0]}}}" if isinstance(error, KeyError) else f"is not a path with names in braces ({error})"
        raise layout_error(ADAPTER, f"frames: {template!r} {wrong}; known are {{subject}}, {{clip}}, {{split}}") from error
    if not parts:
        raise layout_error(ADAPTER, "frames: the path is empty; write one such as `frames/{clip}`")
    return parts


def _known(setting: str, given: Mapping[str, str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise MerbaError(f"{setting} of adapter {ADAPTER}: {unknown(key, known)}")
