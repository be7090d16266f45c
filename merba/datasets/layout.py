"""Finding a release's folders and files on disk, and saying precisely what is missing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path

import pandas as pd

from merba.errors import MerbaError

log = logging.getLogger(__name__)


def loose(name: str) -> str:
    """A name without case and without zero padding: `s1` for `S01`, `ep2_1f` for `EP02_01f`."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold())


def nearest(name: str, names: Iterable[str]) -> str:
    """` (did you mean …?)` where one of the names is close, otherwise an empty string."""
    by_case = {other.casefold(): other for other in names}
    close = get_close_matches(name.casefold(), by_case, n=1)
    return f" (did you mean {by_case[close[0]]!r}?)" if close else ""


def shown(names: Sequence[str], limit: int = 12) -> str:
    """The first of the names for a message, with the number of the others."""
    if not names:
        return "nothing"
    more = f" … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def layout_error(adapter: str, message: str) -> MerbaError:
    """An error about a release's files that names the page which shows the layout."""
    return MerbaError(f"{message}\nThe layout that adapter {adapter} reads is shown in docs/datasets.md#{adapter}.")


class Folder:
    """A folder of a release, whose children are found whatever their case and zero padding."""

    def __init__(self, path: Path, adapter: str) -> None:
        self.path = path
        self.adapter = adapter

    @cached_property
    def names(self) -> list[str]:
        """Names of the children, sorted, hidden ones left out."""
        return sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))

    @cached_property
    def _by_loose_name(self) -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for name in self.names:
            by_name.setdefault(loose(name), []).append(name)
        return by_name

    def child(self, name: str) -> Path | None:
        """The path of the child `name`, or None; MerbaError where two children could be meant."""
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

    def within(self, relative: str) -> Folder | None:
        """The folder at a relative path of several parts, or None; an empty path is this folder."""
        folder: Folder | None = self
        for part in Path(relative).parts:
            folder = folder.folder(part) if folder else None
        return folder


def open_root(root: Path, adapter: str) -> Folder:
    """The release's folder; MerbaError names the part of the path that doesn't exist."""
    if root.is_dir():
        return Folder(root, adapter)
    if root.is_symlink():
        raise layout_error(adapter, f"root {root} is a link that leads nowhere; mend it, or set `root` to the folder itself.")
    parent = next(parent for parent in root.absolute().parents if parent.is_dir())
    there = Folder(parent, adapter).names
    absent = root.absolute().relative_to(parent).parts[0]
    what = "is not a folder" if root.exists() else f"doesn't exist: {parent} has no {absent!r}{nearest(absent, there)}"
    raise layout_error(adapter, f"root {root} {what}; it holds {shown(there)}. Set `root` to the unpacked release.")


def frame_candidates(
    adapter: str, candidates: Mapping[str, Sequence[str]], variant: str, configured: str | None
) -> Sequence[str]:
    """Where the frames of a variant (raw, cropped) may lie, or the configured folder alone."""
    if variant not in candidates:
        raise MerbaError(f"variant: {variant!r} of adapter {adapter} is none of {', '.join(candidates)}")
    return [configured] if configured else candidates[variant]


def find_folder(root: Folder, candidates: Sequence[str], children: str, example: str) -> Folder:
    """The first of the candidates (paths relative to root) with a child whose name the pattern `children` matches."""
    for candidate in candidates:
        folder = root.within(candidate)
        if folder and any(re.fullmatch(children, name, re.IGNORECASE) for name in folder.names):
            return folder
    hint = nearest(next(iter(Path(candidates[0]).parts), ""), root.names)
    places = " or ".join(candidate or "the folder itself" for candidate in candidates)
    raise layout_error(
        root.adapter,
        f"{root.path}: expected {example} in {places}{hint}; found {shown(root.names)}. "
        "Unpack the release there, or set `frames` to their folder.",
    )


def find_table(root: Folder, names: Sequence[str], configured: str | None, setting: str = "annotations") -> Path:
    """The annotation table: the file that `setting` configures, or the first of `names` in root."""
    for name in [configured] if configured else names:
        path = root.path / name if configured else root.child(name)
        if path is not None and path.is_file():
            return path
    wanted = configured or names[0]
    tables = [name for name in root.names if Path(name).suffix.lower() in {".csv", ".xls", ".xlsx"}]
    raise layout_error(
        root.adapter,
        f"{root.path}: expected the annotation table {wanted}{nearest(wanted, tables)}; tables found there: "
        f"{shown(tables)}. Copy it there, or set `{setting}` to its name.",
    )


def with_frames(
    rows: pd.DataFrame, frames: Folder, parts: Callable[[Mapping[str, str]], Sequence[str]], missing: str
) -> pd.DataFrame:
    """The rows with their frame folder in `source`; parts gives the names that lead to it from `frames`.

    Raises MerbaError that names the clips without one, or logs and drops them where `missing` is drop.
    """

    @cache  # a subject's folder is listed once
    def within(above: tuple[str, ...]) -> Folder | None:
        return frames.within("/".join(above))

    sources, absent = [], []
    for row in rows.astype(object).to_dict("records"):  # one by one, pandas' strings are ten times slower than Python's
        *above, last = parts(row)
        parent = within(tuple(above))
        folder = parent.folder(last) if parent else None
        sources.append(str(folder.path) if folder else None)
        if folder is None:
            absent.append(f"{row['subject']} {row['clip']} ({'/'.join(parts(row))})")
    what = f"{len(absent)} of the {len(rows)} annotated clips have no folder in {frames.path}"
    report_missing(absent, what, frames.adapter, missing)
    return rows.assign(source=sources)[[source is not None for source in sources]]


def report_missing(clips: list[str], what: str, adapter: str, missing: str) -> None:
    """Raises MerbaError that names the clips, or logs a warning where `missing` is drop."""
    if missing not in ("error", "drop"):
        raise MerbaError(f"missing: {missing!r} of adapter {adapter} is none of error, drop")
    if not clips:
        return
    if missing == "error":
        raise layout_error(
            adapter, f"{what}: {shown(clips, 40)}. Complete your copy, or set `missing: drop` to go on without them."
        )
    log.warning("%s; dropped: %s", what, ", ".join(clips))
