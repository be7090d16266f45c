"""Finding a release's folders and files on disk, and reporting precisely what is missing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

import pandas as pd

from merba.datasets.cells import TABLE_SUFFIXES
from merba.errors import MerbaError, did_you_mean, unknown
from merba.sheet import loose

log = logging.getLogger(__name__)

LISTED = 40
"""The most clips that a message names; of the composite, it names all that are missing."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`did_you_mean` among the names that have the same numbers: for `sub02`, it suggests `sub_02` but not `sub03`."""

    def numbers(text: str) -> list[str]:
        return re.findall(r"\d+", loose(text))

    return did_you_mean(name, [other for other in names if numbers(other) == numbers(name)])


def shown(names: Sequence[str], limit: int = 12) -> str:
    """The first names, for a message, with the number of the others."""
    if not names:
        return "nothing"
    more = f" … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def layout_error(adapter: str, message: str) -> MerbaError:
    """An error about a release's files that names the page which shows the layout."""
    return MerbaError(f"{message}\nThe layout that adapter {adapter} reads is shown in docs/datasets.md#{adapter}.")


class Folder:
    """A folder of a release. Its children are found regardless of case and zero padding."""

    def __init__(self, path: Path, adapter: str) -> None:
        self.path = path
        self.adapter = adapter

    @cached_property
    def names(self) -> list[str]:
        """Sorted names of the children, without hidden ones. Raises MerbaError if the folder can't be read."""
        try:
            return sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise layout_error(self.adapter, f"{self.path} can't be read: {error.strerror}") from error

    @cached_property
    def _by_loose_name(self) -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for name in self.names:
            by_name.setdefault(loose(name), []).append(name)
        return by_name

    def child(self, name: str) -> Path | None:
        """The path of the child `name`, or None. Raises MerbaError if two children could be meant."""
        matches = self._by_loose_name.get(loose(name), [])
        if name in matches:
            return self.path / name
        if len(matches) > 1:
            raise layout_error(
                self.adapter, f"{self.path} holds {' and '.join(matches)}, both of which may be {name}; remove one"
            )
        return self.path / matches[0] if matches else None

    def folder(self, name: str) -> Folder | None:
        """The child folder `name`, or None."""
        path = self.child(name)
        return Folder(path, self.adapter) if path is not None and path.is_dir() else None

    def reach(self, parts: Sequence[str]) -> tuple[Folder, str | None]:
        """The deepest folder that exists when these names are followed, and the name that is missing there, or None."""
        folder = self
        for part in parts:
            below = folder.folder(part)
            if below is None:
                return folder, part
            folder = below
        return folder, None

    def file(self, relative: str) -> Path | None:
        """The file at a relative path, or None."""
        *above, name = Path(relative).parts
        folder, missing = self.reach(above)
        path = None if missing else folder.child(name)
        return path if path is not None and path.is_file() else None

    def lacks(self, name: str | None) -> str:
        """A message: the folder has no `name` (left out if None), which child has the closest name, and all children."""
        absent = f"has no {name!r}{nearest(name, self.names)}; it " if name else ""
        return f"{self.path} {absent}holds {shown(self.names)}"


def open_root(root: Path, adapter: str) -> Folder:
    """The release's folder. Raises MerbaError that names the part of the path that doesn't exist."""
    if root.is_dir():
        return Folder(root, adapter)
    if root.is_symlink():
        raise layout_error(adapter, f"root {root} is a broken link; fix it, or set `root` to the folder itself.")
    if root.exists():
        raise layout_error(adapter, f"root {root} is a file. Set `root` to the folder of the unpacked release.")
    folder, missing = reach_towards(root, adapter)
    raise layout_error(adapter, f"root {root} doesn't exist: {folder.lacks(missing)}. Set `root` to the unpacked release.")


def reach_towards(path: Path, adapter: str) -> tuple[Folder, str]:
    """The deepest existing folder on the way to a path that doesn't exist, and the name that is missing there."""
    parent = next(parent for parent in path.absolute().parents if parent.is_dir())
    return Folder(parent, adapter), path.absolute().relative_to(parent).parts[0]


def frame_candidates(
    adapter: str, candidates: Mapping[str, Sequence[str]], variant: str, configured: str | None
) -> Sequence[str]:
    """The folders where the frames of a variant (raw, cropped) may be, or only the configured folder."""
    if variant not in candidates:
        raise MerbaError(f"variant of adapter {adapter}: {unknown(variant, candidates)}")
    return [configured] if configured else candidates[variant]


def find_folder(root: Folder, candidates: Sequence[str], children: str, example: str) -> Folder:
    """The first of the candidates (paths relative to root) with a child that matches the pattern `children`.

    A folder one level below a candidate counts too, because archives are often unpacked into a folder of their own; but not
    below root itself, where other variants may be. Raises MerbaError if there is none.
    """
    reached = []
    for candidate in candidates:
        folder, missing = root.reach(Path(candidate).parts)
        for place in [] if missing else _here_and_below(folder) if candidate else [folder]:
            if any(re.fullmatch(children, name, re.IGNORECASE) for name in place.names):
                return place
        reached.append((folder, missing))
    # The message is about the candidate of which the longest part exists.
    whole = [place for place in reached if place[1] is None and place[0].path != root.path]
    folder, missing = max(whole + reached, key=lambda place: len(place[0].path.parts))
    absent = [name for other, name in reached if name and other.path == folder.path]
    missing = next((name for name in absent if nearest(name, folder.names)), missing)
    places = " or ".join(candidate or "the folder itself" for candidate in candidates)
    raise layout_error(
        root.adapter,
        f"{root.path}: expected {example} in {places}; {folder.lacks(missing)}. "
        "Unpack the release there, or set `frames` to their folder.",
    )


def _here_and_below(folder: Folder) -> Iterator[Folder]:
    yield folder
    for name in folder.names:
        if below := folder.folder(name):
            yield below


def find_table(
    root: Folder, names: Sequence[str], configured: str | None, setting: str = "annotations", others: Collection[str] = ()
) -> Path:
    """The annotation table: the file that `setting` configures, or the first of `names` (paths relative to root).

    `others` are other tables, which the message doesn't suggest. Raises MerbaError if there is no such file.
    """
    for path in [root.path / configured] if configured else map(root.file, names):
        if path is not None and path.is_file():
            return path
    wanted = [configured] if configured else names
    tables = [name for name in root.names if Path(name).suffix.lower() in TABLE_SUFFIXES]
    near = did_you_mean(wanted[0], [name for name in tables if name not in others])
    there = f"tables found there: {shown(tables)}" if tables else f"there is no table; the folder holds {shown(root.names)}"
    raise layout_error(
        root.adapter,
        f"{root.path}: expected the annotation table {' or '.join(wanted)}{near}; {there}. "
        f"Copy it there, or set `{setting}` to its name.",
    )


def with_frames(
    rows: pd.DataFrame, frames: Folder, parts: Callable[[Mapping[str, str]], Sequence[str]], missing: str
) -> pd.DataFrame:
    """The rows with their frame folder in `source`; `parts` gives the names that lead to it from `frames`.

    Raises MerbaError that names the clips without one, or logs and drops them if `missing` is drop.
    """

    @cache  # a subject's folder is listed once
    def reached(above: tuple[str, ...]) -> tuple[Folder, str | None]:
        return frames.reach(above)

    sources, absent = [], []
    for row in rows.astype(object).to_dict("records"):  # one by one, pandas' strings are ten times slower than Python's
        *above, name = parts(row)
        folder, lacking = reached(tuple(above))
        source = None if lacking else folder.folder(name)
        sources.append(str(source.path) if source else None)
        if source is None:
            path = "/".join((*above, name))
            absent.append((f"{row['subject']} {row['clip']} ({path})", folder, lacking or name))
    what = f"{len(absent)} of the {len(rows)} annotated clips have no folder in {frames.path}"
    report_absent(absent, what, frames.adapter, missing, "If the frames are elsewhere, set `frames`. ")
    return rows.assign(source=sources)[[source is not None for source in sources]]


def report_absent(absent: Sequence[tuple[str, Folder, str]], what: str, adapter: str, missing: str, remedy: str = "") -> None:
    """As `report_missing`, for clips given with the deepest existing folder on their path and the name that is missing there.

    The closest existing name is given once per missing name, and what the folder holds only for the first clip.
    """
    clips, told = [], set()
    for clip, folder, name in absent:
        unheard = 0 < len(told) < LISTED and (folder.path, name) not in told
        clips.append(clip + (nearest(name, folder.names) if unheard else ""))
        told.add((folder.path, name))
    said = f"{absent[0][1].lacks(absent[0][2])}. {remedy}" if absent else ""
    report_missing(clips, what, adapter, missing, said)


def report_missing(clips: list[str], what: str, adapter: str, missing: str, said: str = "", most: int = LISTED) -> None:
    """Raise MerbaError that names at most `most` of the clips, and adds `said`; or log the clips if `missing` is drop."""
    if missing not in ("error", "drop"):
        raise MerbaError(f"missing of adapter {adapter}: {unknown(missing, ('error', 'drop'))}")
    if not clips:
        return
    if missing == "error":
        raise layout_error(
            adapter,
            f"{what}: {shown(clips, most)}. {said}Complete your copy, or set `missing: drop` to continue without them.",
        )
    log.warning("%s; dropped: %s", what, ", ".join(clips))
