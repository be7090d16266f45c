"""A user's clips as rows of a sample sheet: from videos, folders of frames, folders of clips, and tables of clips."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from merba.datasets.annotations import NO_APEX, NUMBER, bit_depth, frame_rate, is_no_apex, read_annotations
from merba.datasets.cells import TABLE_SUFFIXES
from merba.datasets.clips import ADAPTER, composed_alike
from merba.datasets.clips import COLUMNS as TABLE_COLUMNS
from merba.errors import ClipProblem, MerbaError
from merba.frames import VIDEO_SUFFIXES, open_clip
from merba.frames.names import IMAGE_SUFFIXES
from merba.sheet import safe_id

log = logging.getLogger(__name__)

OWN = "own"
"""The dataset of clips that are in no table."""
NUMBERS = ("onset", "apex", "offset", "fps", "bits")
# The columns that preprocessing reads, the frame rate, the annotated emotion, and why a clip can't be used.
COLUMNS = ("dataset", "subject", "clip", "source", "kind", *NUMBERS, "emotion", "problem")


def find_clips(
    paths: Iterable[str | Path], *, onset: int | None = None, apex: int | None = None, fps: float | None = None
) -> pd.DataFrame:
    """One row per clip in `paths`: columns COLUMNS, in the given order; clips in a folder by name.

    A path is a video, a folder of frames, a folder with such clips at any depth, or a table (CSV or XLSX) with the columns of the
    adapter `clips` (docs/datasets.md), where `emotion` is optional. A clip in a folder is named by its path in the folder, and
    clips of one name by their whole paths. A table names the subjects; every other clip is a subject of its own. onset and apex
    (frame numbers) are for a single clip; fps (frames per second) overrides the video and the table. A clip with an apex but no
    onset begins with its first frame. A clip that can't be opened, or has numbers out of order, gets a `problem`. Raises
    MerbaError if there are no clips, if a table lacks a column, if onset or apex is given for several clips, or if fps isn't
    above 0.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise MerbaError(f"fps {fps} is not a number above 0; give frames per second")
    clips: list[dict[str, Any]] = []
    for path in map(Path, paths):
        if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
            clips += _listed(path)
        else:
            inside = list(_clips_in(path)) if path.is_dir() else []
            clips += [
                _row(clip, subject=str(clip)) | ({} if clip == path else {"clip": clip.relative_to(path).as_posix()})
                for clip in inside or [path]
            ]
    if not clips:
        raise MerbaError("no clips were given; name videos, folders or a table of clips")
    names = Counter(row["clip"] for row in clips)
    for row in clips:
        if row["dataset"] == OWN and names[row["clip"]] > 1:
            row["clip"] = row["source"]
    if onset is not None or apex is not None:
        if len(clips) > 1:
            raise MerbaError(f"an onset or apex is given for {len(clips)} clips; give each clip its own in a table (CSV or XLSX)")
        clips[0] |= {key: value for key, value in (("onset", onset), ("apex", apex)) if value is not None}
    for row in clips:
        if row["apex"] is not None and row["onset"] is None:
            row["onset"] = row["first"]
        row["problem"] = row["problem"] or _disorder(row)
    rows = pd.DataFrame(clips, columns=list(COLUMNS))
    rows["fps"] = rows["fps"].astype("float64") if fps is None else float(fps)
    return rows.astype({"onset": "Int64", "apex": "Int64", "offset": "Int64", "bits": "Int64"})


def file_stem(clip: str) -> str:
    """A clip's name as a part of a file name, without the suffix of a video."""
    path = Path(clip)
    return safe_id(path.stem if path.suffix.lower() in VIDEO_SUFFIXES else clip)


def numbered_stem(number: int, clip: str) -> str:
    """A file name without suffix for a clip, made unique by a number: `003_my-clip` for number 3, `my clip.mp4`."""
    path = Path(clip)
    name = str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else clip
    return f"{number:03}_{re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-')[:60]}".rstrip("_-")


def _clips_in(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The folder itself if it holds numbered images, and the videos and such folders in it, at any depth, by name.

    The log names each file and folder that is left out.
    """
    home = folder.resolve()
    if home in above:
        log.warning("%s is a link to a folder that contains it, and is left out", folder)
        return
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        log.warning("%s can't be read (%s), and is left out", folder, error.strerror)
        return
    if not children and above:
        log.warning("%s is empty, and is left out", folder)
    images = [child for child in children if child.suffix.lower() in IMAGE_SUFFIXES and not child.name.startswith(".")]
    if has_frames := any(re.search(r"\d", image.stem) for image in images):
        yield folder
    for child in children:
        if child.name.startswith("."):
            log.warning("%s is hidden, and is left out", child)
        elif child.is_dir():
            yield from _clips_in(child, above | {home})
        elif child.suffix.lower() in VIDEO_SUFFIXES:
            yield child
        elif child not in images or not has_frames:
            log.warning("%s is neither a video nor a frame, and is left out", child)


def _listed(table: Path) -> list[dict[str, Any]]:
    """The rows of a table of clips; a row with unreadable numbers has a problem."""
    needed = {key: name for key, name in TABLE_COLUMNS.items() if key != "emotion"}
    optional = {name: name for name in (*NUMBERS, "emotion")}
    rows = []
    for index, row in read_annotations(table, ADAPTER, needed, optional).to_dict("index").items():
        made = _row(composed_alike(table.parent / row["source"]), subject=row["subject"]) | {
            "dataset": str(table),
            "clip": row["clip"],
            "emotion": row.get("emotion") or None,
        }
        if is_no_apex(apex := row.get("apex", "")):
            if apex not in NO_APEX:
                log.warning("%s: row %s: apex %r is not a frame number: it will be detected", table, index, apex)
            row["apex"] = ""
        for key in (key for key in NUMBERS if row.get(key)):
            try:
                made[key] = _number(key, row[key])
            except ValueError as error:
                made["problem"] = f"{table}: row {index}: {error}; correct it or leave it empty"
        rows.append(made)
    if not rows:
        raise MerbaError(f"{table} lists no clips; add a row for each")
    return rows


def _number(key: str, text: str) -> float:
    if key == "fps":
        return frame_rate(text)
    if key == "bits":
        return bit_depth(text)
    if not re.fullmatch(NUMBER, text):
        raise ValueError(f"{key} {text!r} is not a frame number")
    return int(text)


def _disorder(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the order of a clip's onset, apex and offset, if anything is."""
    known = [(key, row[key]) for key in ("onset", "apex", "offset") if row[key] is not None]
    for (first, a), (last, b) in pairwise(known):
        if a > b or (a == b and first == "onset"):
            return f"{row['source']}: {first} {a} is not before {last} {b}; correct them, or leave the {last} out"
    return None


def _row(source: Path, subject: str) -> dict[str, Any]:
    row: Mapping[str, Any] = dict.fromkeys((*COLUMNS, "first")) | {
        "dataset": OWN,
        "subject": subject,
        "clip": source.name,
        "source": str(source),
        "kind": "frames" if source.is_dir() else "video",
    }
    try:
        if not source.exists():
            raise ClipProblem(f"{source} does not exist")
        if source.suffix.lower() in IMAGE_SUFFIXES:
            raise ClipProblem(f"{source} is a single image; name a video, a folder of frames or a table (CSV or XLSX)")
        clip = open_clip(source, row["kind"])
    except ClipProblem as problem:
        return {**row, "problem": str(problem)}
    first = clip.numbers[0] if row["kind"] == "frames" else 0
    return {**row, "first": first, "fps": None if math.isnan(clip.fps) else clip.fps}
