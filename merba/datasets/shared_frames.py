"""Finding frames that two subjects share, without opening most files: a fold would train on them and test them."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.files import checksum
from merba.frames import frame_paths
from merba.frames.names import IMAGE_SUFFIXES
from merba.sheet import KEY, plain_rows, report_faults

Clip = Mapping[str, Any]
Pair = tuple[Clip, Clip]

SUFFIXES = tuple(IMAGE_SUFFIXES)
SAMPLE = 4096
"""Bytes from the middle of a file by which it is compared first."""


@dataclass
class Source:
    """A file or a folder of frames, with the clips that are read from it.

    `inodes` (uint64) are those of a folder's images, with links followed. `outline` is the number of images, and the sizes of the
    first and the last one in bytes; for a file, its size; None if something is missing or empty.
    """

    clips: list[Clip]
    inodes: np.ndarray
    outline: Hashable | None


def check_subjects_apart(sheet: pd.DataFrame, composites: Iterable[Collection[str]]) -> None:
    """Raise MerbaError that names the clips of different subjects that share frames; `composites` are experiments' datasets.

    Such frames would be in the training and in the test part of one fold. Two subjects share frames if their clips overlap in
    one file or folder, in links to the same files, or in copies: files of equal content, or folders of as many images of equal
    content, in order and whatever their names. A copy of some of a folder's images isn't found here, but before training (see
    `merba.preprocessing.same_flow`). Contents are read only if numbers and sizes are equal.
    """
    whole = {frozenset(datasets) for datasets in composites}
    pairs: list[Pair] = []
    for datasets in (own for own in whole if not any(own < other for other in whole)):
        rows = sheet[sheet["dataset"].isin(datasets)]
        clips = plain_rows(rows, [*KEY, "source", "kind", "onset", "offset"])
        sources = [_source(part) for part in _grouped(clips, lambda clip: _file(clip["source"]))]
        pairs += [*_in_one_source(sources), *_linked(sources), *_copied(sources)]
    report_faults(list(dict.fromkeys(map(_said, pairs))))


def _said(pair: Pair) -> str:
    first, second = (f"{clip['dataset']} {clip['subject']} {clip['clip']}" for clip in pair)
    sources = " and ".join(dict.fromkeys(clip["source"] for clip in pair))
    return (
        f"{sources}: {first} and {second} share frames (one file, links to it or copies), but are two subjects, so the same "
        "frames would be trained on and tested; correct the source, the frames or the subject of one of them"
    )


def _grouped(items: Iterable[Any], look: Callable[[Any], Hashable | None]) -> list[list[Any]]:
    """The items for which `look` returns the same; those of None, or whose file can't be read, are left out."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        with suppress(OSError):
            if (seen := look(item)) is not None:
                groups.setdefault(seen, []).append(item)
    return list(groups.values())


def _file(path: str) -> Hashable:
    """Device and inode of a file or folder; its path if it doesn't exist yet."""
    try:
        state = os.stat(path)  # noqa: PTH116 - a Path for every clip would take longer than all the rest
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100
    return state.st_dev, state.st_ino


def _source(clips: list[Clip]) -> Source:
    path, inodes, sizes = clips[0]["source"], [], []
    with suppress(OSError):  # the clip's own job will report it
        if clips[0]["kind"] == "frames":
            with os.scandir(path) as entries:
                images = {entry.name: entry for entry in entries if _is_image(entry.name)}
            # The folder's own list has the inodes; only links need a call of their own.
            inodes = [entry.stat().st_ino if entry.is_symlink() else entry.inode() for entry in images.values()]
            names = sorted(sorted(images), key=len)
            sizes = [len(names), *(images[name].stat().st_size for name in names[:1] + names[-1:])]
        else:
            sizes = [os.stat(path).st_size]  # noqa: PTH116
    return Source(clips, np.array(inodes, np.uint64), tuple(sizes) if sizes and min(sizes) else None)


def _is_image(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(SUFFIXES)


def _in_one_source(sources: Iterable[Source]) -> Iterator[Pair]:
    for source in sources:
        if pair := _overlap(source.clips):
            yield pair


def _linked(sources: Sequence[Source]) -> Iterator[Pair]:
    """Clips of different subjects, in two folders, with a frame that is the same file by links."""
    inodes = np.concatenate([np.empty(0, np.uint64), *(source.inodes for source in sources)])
    owner = np.repeat(np.arange(len(sources)), [len(source.inodes) for source in sources])
    _, place, count = np.unique(inodes, return_inverse=True, return_counts=True)
    seen: dict[Hashable, Clip] = {}
    for clip in (clip for number in np.unique(owner[count[place] > 1]) for clip in sources[number].clips):
        first, last = _interval(clip)
        for path in (path for number, path in frame_paths(clip["source"]).items() if first <= number <= last):
            other = seen.setdefault(_file(path), clip)
            if _are_two(other, clip):
                yield other, clip
                break


def _copied(sources: Iterable[Source]) -> Iterator[Pair]:
    """Clips of different subjects in two files or folders of equal content. More and more of it is compared."""
    groups = [list(sources)]
    for look in (lambda source: source.outline, _samples, _contents):
        groups = [copies for group in groups for copies in _grouped(group, look) if len(copies) > 1 and _of_two(copies)]
    for copies in groups:
        if pair := _overlap([clip for source in copies for clip in _placed(source)]):
            yield pair


def _of_two(sources: Iterable[Source]) -> bool:
    """Whether clips of different subjects are read from them."""
    return len({(clip["dataset"], clip["subject"]) for source in sources for clip in source.clips}) > 1


def _paths(source: Source) -> list[str]:
    """The file, or the folder's images in order; empty if their names have a problem."""
    path, kind = source.clips[0]["source"], source.clips[0]["kind"]
    return list(frame_paths(path).values()) if kind == "frames" else [path]


def _samples(source: Source) -> Hashable | None:
    """A part of the first, the middle and the last image."""
    paths = _paths(source)
    return tuple(_middle(paths[place]) for place in (0, len(paths) // 2, -1)) if paths else None


def _middle(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(max(os.fstat(file.fileno()).st_size - SAMPLE, 0) // 2)
        return file.read(SAMPLE)


def _contents(source: Source) -> Hashable:
    return tuple(checksum(Path(path)) for path in _paths(source))


def _placed(source: Source) -> list[Clip]:
    """The clips, with onset and offset as positions in the folder, because copies may have other numbers."""
    if source.clips[0]["kind"] != "frames":
        return source.clips
    numbers = list(frame_paths(source.clips[0]["source"]))
    ends = [_interval(clip) for clip in source.clips]
    return [
        {**clip, "onset": bisect_left(numbers, first), "offset": bisect_right(numbers, last) - 1}
        for clip, (first, last) in zip(source.clips, ends, strict=True)
    ]


def _interval(clip: Clip) -> tuple[float, float]:
    """Onset and offset; infinite if they are unknown."""
    return (-inf if clip["onset"] is None else clip["onset"], inf if clip["offset"] is None else clip["offset"])


def _are_two(clip: Clip, other: Clip) -> bool:
    return any(clip[key] != other[key] for key in ("dataset", "subject"))


def _overlap(clips: Iterable[Clip]) -> Pair | None:
    """Two clips of one source that share a frame and belong to different subjects; None if there are none.

    In the order of onsets, it is enough to compare each clip with the earlier clip that ends last: any other earlier clip
    that shares a frame with it shares one with that clip too, and was compared with it before.
    """
    furthest = None
    for clip in sorted(clips, key=_interval):
        onset, offset = _interval(clip)
        if furthest and onset <= _interval(furthest)[1] and _are_two(clip, furthest):
            return furthest, clip
        if furthest is None or offset > _interval(furthest)[1]:
            furthest = clip
    return None
