"""Annotation tables (CSV and XLSX): finding the header, reading clips, correcting known errors, checking rows."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pandas as pd

from merba.datasets.layout import layout_error, nearest, shown
from merba.sheet import loose

CORRECTIONS = Path(__file__).with_name("corrections.csv")
CORRECTABLE = ("casme2", "samm", "casme3", "dfme")
HEADER_SEARCH = 60  # rows
MOST_CELLS = 2_000_000  # the largest release has about 60,000
FRAMES = ("onset", "apex", "offset")
NUMBER = r"[0-9]{1,9}"
NO_APEX = ("", "/", "-1")  # the releases' own words

log = logging.getLogger(__name__)


@lru_cache(maxsize=16)
def read_cells(suffix: str, data: bytes) -> list[list[str]]:
    """The cells of a CSV file or of an XLSX file's first sheet as text, row by row; empty cells are "".

    Cells that are merged over several rows say the same in each. Cached by content. Raises ValueError where the bytes
    aren't what the suffix says.
    """
    if suffix == ".csv":
        return _read_csv(data)
    if suffix == ".xlsx":
        return _read_workbook(data)
    raise ValueError(f"{suffix} files aren't read; save it as .xlsx or .csv")


def _read_csv(data: bytes) -> list[list[str]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030")  # what Chinese spreadsheets write
    first = max(text.splitlines()[:HEADER_SEARCH] or [""], key=len)
    try:
        return list(csv.reader(io.StringIO(text, newline=None), delimiter=max(",;\t", key=first.count)))
    except csv.Error as error:
        raise ValueError(f"not a CSV file ({error})") from error


def _read_workbook(data: bytes) -> list[list[str]]:
    from openpyxl import load_workbook

    try:
        sheet = load_workbook(io.BytesIO(data), data_only=True).worksheets[0]
    except Exception as error:  # a damaged workbook fails anywhere in zipfile, zlib, the XML parser and openpyxl
        raise ValueError(f"not an XLSX workbook ({error})") from error
    if sheet.max_row * sheet.max_column > MOST_CELLS:
        raise ValueError(f"its cells reach to {sheet.dimensions}; delete the empty rows and columns")
    cells = [[_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    for merged in sheet.merged_cells.ranges:
        # Downwards only: prose over or under a table is often merged across its columns, and is one cell.
        top, column = merged.min_row - 1, merged.min_col - 1
        for row in cells[top + 1 : merged.max_row]:
            row[column] = cells[top][column]
    return cells


def _text(value: object) -> str:
    """A cell as text; whole numbers without a decimal point."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_annotations(
    path: Path, adapter: str, columns: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The rows under the header, as text, in columns named by the keys of `columns` and `optional`.

    Values are header cells, compared without case, spaces and underscores; the header is the first row that has all
    of `columns`. The index is the row number that a spreadsheet shows. Raises MerbaError where a column is missing, or a
    row names no subject or clip.
    """
    try:
        cells = read_cells(path.suffix.lower(), path.read_bytes())
    except (OSError, ValueError) as error:
        raise layout_error(adapter, f"{path} can't be read as a table: {error}") from error
    wanted = dict(columns) | dict(optional or {})
    place = _header_row(path, adapter, cells, columns)
    header = [_plain(cell) for cell in cells[place]]
    width = len(header)
    found = {key: header.index(_plain(name)) for key, name in wanted.items() if _plain(name) in header}
    rows = {
        number: [(row + [""] * width)[column].strip() for column in found.values()]
        for number, row in enumerate(cells[place + 1 :], start=place + 2)
    }
    # A single filled cell is a note under the table.
    rows = {number: row for number, row in rows.items() if sum(map(bool, row)) >= min(2, len(found))}
    names = [(place, key) for place, key in enumerate(found) if key in ("subject", "clip")]
    report(
        [f"row {number}: {key} is empty" for number, row in rows.items() for place, key in names if not row[place]], adapter, path
    )
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(found)).astype("str")
    for column in table.columns.intersection(FRAMES):
        # What pandas writes for whole numbers in a column with gaps.
        table[column] = table[column].str.replace(rf"^(-?{NUMBER})\.0+$", r"\1", regex=True)
    return table


def correct(rows: pd.DataFrame, adapter: str, own: str | None = None) -> pd.DataFrame:
    """The rows with the known errors of the release corrected, and those that the user's own table `own` lists.

    A correction applies to a clip, and only where the cell holds the wrong value; without one, it replaces any. Where the
    clip's name isn't known, it applies to a data row, if the table has that length and the row that apex: a table that was
    sorted or cut has another clip there. Each correction made is logged with its reason.
    """
    known = pd.read_csv(CORRECTIONS, dtype=str, keep_default_na=False)
    known = known[known["adapter"] == adapter]
    if own:
        needed = {key: key for key in ("subject", "clip", "column", "wrong", "right")}
        known = pd.concat([known, read_annotations(Path(own), adapter, needed)]).fillna("")
    rows = rows.copy()
    named = rows["subject"].map(loose) + "/" + rows["clip"].map(loose)
    for fix in known.itertuples():
        if fix.column not in rows:
            raise layout_error(adapter, f"{own}: column {fix.column!r} is none of {', '.join(rows.columns)}")
        if getattr(fix, "row", ""):
            number, length = map(int, fix.row.split("/"))
            row = rows.iloc[number - 1 : number] if len(rows) == length else rows.iloc[:0]
            matches = row.index[row["apex"] == fix.apex]
        else:
            matches = rows.index[named == f"{loose(fix.subject)}/{loose(fix.clip)}"]
        for index in matches:
            value = rows.at[index, fix.column]
            if fix.wrong in ("", value):
                rows.at[index, fix.column] = fix.right
                why = getattr(fix, "reason", "") or f"as {own} says"
                log.info("%s, %s: %r becomes %r: %s", _place(rows, index), fix.column, value, fix.right, why)
    return rows


def checked_frames(
    rows: pd.DataFrame, adapter: str, path: Path, *, late_apex: bool = False, open_end: bool = False
) -> pd.DataFrame:
    """The rows with onset, apex and offset as nullable integers.

    An apex that isn't a frame number (`/`, −1, text) is null: it will be detected; text is logged. With `late_apex`, so is
    one that isn't after its onset; with `open_end`, an empty offset is null. Raises MerbaError that names every faulty row: an
    onset or another offset that isn't a frame number, frames out of order, a clip listed twice.
    """
    faults = []
    for column in ("onset", "offset"):
        wrong = ~rows[column].str.fullmatch(NUMBER)
        if open_end and column == "offset":
            wrong &= rows[column] != ""
        for index in rows.index[wrong]:
            faults.append(f"{_place(rows, index)}: {column} {rows.at[index, column]!r} is not a frame number")
    for index in rows.index[~rows["apex"].str.fullmatch(NUMBER) & ~rows["apex"].isin(NO_APEX)]:
        apex = rows.at[index, "apex"]
        log.warning("%s: %s: apex %r is not a frame number: it will be detected", path, _place(rows, index), apex)
    frames = pd.DataFrame({column: rows[column].where(rows[column].str.fullmatch(NUMBER)).astype("Int64") for column in FRAMES})
    if late_apex:
        frames["apex"] = frames["apex"].mask(frames["apex"] <= frames["onset"])
    for first, last, mend in (
        ("onset", "offset", ""),
        ("onset", "apex", "; empty the apex to have it detected"),
        ("apex", "offset", "; empty the apex to have it detected"),
    ):
        wrong = frames[first] >= frames[last] if first == "onset" else frames[first] > frames[last]
        for index in rows.index[wrong.fillna(False)]:
            order = "is not before" if first == "onset" else "is after"
            numbers = f"{first} {frames.at[index, first]} {order} {last} {frames.at[index, last]}"
            faults.append(f"{_place(rows, index)}: {numbers}{mend}")
    for (subject, clip), group in rows[rows.duplicated(["subject", "clip"], keep=False)].groupby(["subject", "clip"]):
        faults.append(f"rows {' and '.join(map(str, group.index))}: {subject} {clip} is there twice; remove one")
    report(faults, adapter, path)
    return rows.assign(**frames)


def report(faults: list[str], adapter: str, path: Path) -> None:
    """Raises MerbaError that lists the faults of a table, if there are any."""
    if not faults:
        return
    listed = "\n  ".join(faults[:30] + ([f"… and {len(faults) - 30} more"] if len(faults) > 30 else []))
    own = ", or list the right values in a table of your own and name it in `corrections`"
    remedy = f"Correct these rows{own if adapter in CORRECTABLE else ''}."
    raise layout_error(adapter, f"{path}:\n  {listed}\n{remedy}")


def _place(rows: pd.DataFrame, index: int) -> str:
    return f"row {index} ({rows.at[index, 'subject']} {rows.at[index, 'clip']})"


def _plain(cell: str) -> str:
    return "".join(cell.casefold().split()).replace("_", "")


def _header_row(path: Path, adapter: str, cells: list[list[str]], columns: Mapping[str, str]) -> int:
    """Index of the first row that has all the columns."""
    wanted = {_plain(name): name for name in columns.values()}
    candidates = [{_plain(cell) for cell in row} for row in cells[:HEADER_SEARCH]]
    for place, row in enumerate(candidates):
        if wanted.keys() <= row:
            return place
    if not candidates:
        raise layout_error(adapter, f"{path} is empty")
    best = max(range(len(candidates)), key=lambda place: len(wanted.keys() & candidates[place]))
    there = [cell.strip() for cell in cells[best] if cell.strip()]
    missing = [name for plain, name in wanted.items() if plain not in candidates[best]]
    unused = [cell for cell in there if _plain(cell) not in wanted]
    hints = ", ".join(f"{name!r}{nearest(name, unused)}" for name in missing)
    own = ", or name yours in `columns`" if adapter == "dfme" else ""
    raise layout_error(
        adapter,
        f"{path}: no header row with column {hints}; the nearest is row {best + 1}: {shown(there)}. "
        f"Give the column that name in the table{own}.",
    )
