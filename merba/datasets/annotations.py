"""Annotation tables (CSV and XLSX): finding the header, reading clips, correcting known errors, checking rows."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from merba.datasets.cells import Sheet, read_sheets
from merba.datasets.layout import layout_error, shown
from merba.errors import did_you_mean, unknown
from merba.sheet import loose

CORRECTIONS = Path(__file__).with_name("corrections.csv")
CORRECTABLE = ("casme2", "samm", "casme3", "dfme")
HEADER_SEARCH = 60  # rows
FRAMES = ("onset", "apex", "offset")
NUMBER = r"[0-9]{1,9}"
NO_APEX = ("", "/", "-1")  # as the releases write it

log = logging.getLogger(__name__)


def read_annotations(
    path: Path, adapter: str, columns: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The rows under the header, as text, in columns named by the keys of `columns` and `optional`.

    Their values are header cells, compared without case, spaces and underscores. The header is the first row that has all
    of `columns`, on the visible sheet that has one. The index is the row number that a spreadsheet shows. Raises MerbaError
    if the file can't be read, a column is missing or occurs twice, a row has no subject, clip or source, or is longer than the
    header, or a cell's text is in doubt (see `cells.Sheet`).
    """
    try:
        sheets = read_sheets(path.suffix.lower(), path.read_bytes())
    except (OSError, ValueError) as error:
        raise layout_error(adapter, f"{path} can't be read as a table: {error}") from error
    wanted = dict(columns) | dict(optional or {})
    sheet, place = _header(path, adapter, sheets, columns)
    if sheet.broken:
        raise layout_error(adapter, f"{path}: {sheet.broken}")
    columns_of = _columns(path, adapter, sheet, place, wanted)
    width = len(sheet.cells[place])
    rows = {
        number: [(row + [""] * width)[column].strip() for column in columns_of.values()]
        for number, row in enumerate(sheet.cells[place + 1 :], start=place + 2)
    }
    # A single filled cell is a note under the table.
    notes = [number for number, row in rows.items() if sum(map(bool, row)) == 1 < len(columns_of)]
    if notes:
        log.warning("%s: row %s: only one cell is filled, so it is left out as a note", path, ", ".join(map(str, notes)))
    rows = {number: row for number, row in rows.items() if any(row) and number not in notes}
    if hidden := [number for number in sheet.hidden_rows if number in rows]:
        log.warning("%s: row %s: hidden in sheet %r, but read like the others", path, ", ".join(map(str, hidden)), sheet.name)
    names = [(column, key) for column, key in enumerate(columns_of) if key in ("subject", "clip", "source")]
    faults = [f"row {number}: {key} is empty" for number, row in rows.items() for column, key in names if not row[column]]
    faults += [
        f"row {number} has more cells than the header, {len(sheet.cells[number - 1])} and {width}; put a cell that holds the "
        "delimiter, such as 29,97, in quotation marks"
        for number in rows
        if any(sheet.cells[number - 1][width:])
    ]
    faults += [
        f"row {row + 1}: {key}, {sheet.place(row, column)}: {doubt}"
        for (row, column), doubt in sorted(sheet.doubts.items())
        for key, its_column in columns_of.items()
        if column == its_column and row + 1 in rows
    ]
    report(faults, adapter, path)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(columns_of)).astype("str")
    for column in table.columns.intersection(FRAMES):
        # pandas writes `46.0` for whole numbers in a column with gaps. `1.000` stays, because it may be a thousand.
        table[column] = table[column].str.replace(rf"^(-?{NUMBER})[.,]00?$", r"\1", regex=True)
    return table


def is_no_apex(text: str) -> bool:
    """Whether a cell says that the apex isn't known, and so must be detected: `/`, −1, nothing, or words without a digit."""
    return text == "-1" or not re.search(r"\d", text)


def frame_rate(text: str) -> float:
    """Frames per second, with a decimal point or comma. Raises ValueError for other text, and `1,000`, which may be 1000."""
    if (
        not re.fullmatch(r"[0-9]+(\.[0-9]+|,([0-9]{1,2}|[0-9]{4,}))?", text)
        or not 0 < (rate := float(text.replace(",", "."))) < math.inf
    ):
        raise ValueError(f"fps {text!r} is not a number above 0")
    return rate


def bit_depth(text: str) -> int:
    """The bits, 8 to 16, that a camera uses of a 16-bit grey level. Raises ValueError for other text."""
    if text not in map(str, range(8, 17)):
        raise ValueError(f"bits {text!r} is not a number from 8 to 16")
    return int(text)


def correct(rows: pd.DataFrame, adapter: str, own: str | None = None) -> pd.DataFrame:
    """The rows with the release's known errors corrected, and those that the user's own table `own` lists.

    A correction applies to a clip, and only if the cell has the wrong value that it names; if it names none, it replaces any
    value. If the clip's name isn't known, it applies to a data row, provided that the table's length and the row's apex match: a
    table that was sorted or cut has another clip there. Each correction is logged with its reason.
    Raises MerbaError if one of `own` changes nothing, because there is no such clip, or its cell has another value.
    """
    known = pd.read_csv(CORRECTIONS, dtype=str, keep_default_na=False)
    known = known[known["adapter"] == adapter]
    if own:
        needed = {key: key for key in ("subject", "clip", "column", "wrong", "right")}
        known = pd.concat([known, read_annotations(Path(own), adapter, needed)]).fillna("")
    rows = rows.copy()
    named = rows["subject"].map(loose) + "/" + rows["clip"].map(loose)
    idle = []
    for fix in known.itertuples():
        if fix.column not in rows:
            raise layout_error(adapter, f"{own}: column {unknown(fix.column, rows.columns)}")
        if getattr(fix, "row", ""):
            number, length = map(int, fix.row.split("/"))
            row = rows.iloc[number - 1 : number] if len(rows) == length else rows.iloc[:0]
            matches = row.index[row["apex"] == fix.apex]
        else:
            matches = rows.index[named == f"{loose(fix.subject)}/{loose(fix.clip)}"]
        if not fix.reason and matches.empty:
            idle.append(f"row {fix.Index}: the annotations have no clip {fix.subject} {fix.clip}")
        for index in matches:
            value = rows.at[index, fix.column]
            if fix.wrong in ("", value):
                rows.at[index, fix.column] = fix.right
                why = fix.reason or f"as {own} says"
                log.info("%s, %s: %r becomes %r: %s", _place(rows, index), fix.column, value, fix.right, why)
            elif not fix.reason and value != fix.right:
                idle.append(f"row {fix.Index}: {fix.column} of {fix.subject} {fix.clip} is {value!r}, not {fix.wrong!r}")
    if idle:
        raise layout_error(
            adapter, f"{own}: corrections that change nothing:\n  " + "\n  ".join(idle) + "\nCorrect or remove them."
        )
    return rows


def checked_frames(
    rows: pd.DataFrame, adapter: str, path: Path, *, late_apex: bool = False, open_end: bool = False
) -> pd.DataFrame:
    """The rows with onset, apex and offset as nullable integers.

    An unknown apex (see `is_no_apex`) is null and will be detected; words are logged. With `late_apex`, an apex that isn't
    after its onset is null too; with `open_end`, an empty offset is null. Raises MerbaError that names every faulty row: any
    other onset, apex or offset that isn't a frame number, frames out of order, a clip listed twice.
    """
    faults = []
    for column in ("onset", "offset"):
        wrong = ~rows[column].str.fullmatch(NUMBER)
        if open_end and column == "offset":
            wrong &= rows[column] != ""
        for index in rows.index[wrong]:
            faults.append(f"{_place(rows, index)}: {column} {rows.at[index, column]!r} is not a frame number")
    for index in rows.index[~rows["apex"].str.fullmatch(NUMBER) & ~rows["apex"].isin(NO_APEX)]:
        said = f"{_place(rows, index)}: apex {rows.at[index, 'apex']!r} is not a frame number"
        if is_no_apex(rows.at[index, "apex"]):
            log.warning("%s: %s: it will be detected", path, said)
        else:
            faults.append(f"{said}; empty it to have it detected")
    frames = pd.DataFrame({column: rows[column].where(rows[column].str.fullmatch(NUMBER)).astype("Int64") for column in FRAMES})
    if late_apex:
        frames["apex"] = frames["apex"].mask(frames["apex"] <= frames["onset"])
    for first, last, remedy in (
        ("onset", "offset", ""),
        ("onset", "apex", "; empty the apex to have it detected"),
        ("apex", "offset", "; empty the apex to have it detected"),
    ):
        wrong = frames[first] >= frames[last] if first == "onset" else frames[first] > frames[last]
        for index in rows.index[wrong.fillna(False)]:
            order = "is not before" if first == "onset" else "is after"
            numbers = f"{first} {frames.at[index, first]} {order} {last} {frames.at[index, last]}"
            faults.append(f"{_place(rows, index)}: {numbers}{remedy}")
    for (subject, clip), group in rows[rows.duplicated(["subject", "clip"], keep=False)].groupby(["subject", "clip"]):
        faults.append(f"rows {' and '.join(map(str, group.index))}: {subject} {clip} is listed twice; remove one")
    report(faults, adapter, path)
    return rows.assign(**frames)


def report(faults: list[str], adapter: str, path: Path) -> None:
    """Raise MerbaError that lists the faults of a table, if there are any."""
    if not faults:
        return
    listed = "\n  ".join(faults[:30] + ([f"… and {len(faults) - 30} more"] if len(faults) > 30 else []))
    own = ", or list the correct values in a table of your own and name it in `corrections`"
    remedy = f"Correct these rows{own if adapter in CORRECTABLE else ''}."
    raise layout_error(adapter, f"{path}:\n  {listed}\n{remedy}")


def _place(rows: pd.DataFrame, index: int | tuple[str, int]) -> str:
    """A row's number, with its split if the index has it, and its clip."""
    row = f"{index[1]} of {index[0]}" if isinstance(index, tuple) else index
    return f"row {row} ({rows.at[index, 'subject']} {rows.at[index, 'clip']})"


def _plain(cell: str) -> str:
    return "".join(cell.casefold().split()).replace("_", "")


def _header(path: Path, adapter: str, sheets: Sequence[Sheet], columns: Mapping[str, str]) -> tuple[Sheet, int]:
    """The visible sheet with a row that has all the columns, and the index of the first such row."""
    wanted = {_plain(name): name for name in columns.values()}
    candidates = [
        (sheet, place, {_plain(cell) for cell in row})
        for sheet in sheets
        for place, row in enumerate(sheet.cells[:HEADER_SEARCH])
        if any(row)
    ]
    headers = {sheet.name: (sheet, place) for sheet, place, names in reversed(candidates) if wanted.keys() <= names}
    visible = [header for header in headers.values() if not header[0].hidden]
    if len(visible) == 1:
        return visible[0]
    named = " and ".join(map(repr, reversed(headers)))
    if visible:
        raise layout_error(adapter, f"{path}: the sheets {named} have all the columns; delete or hide all except the right one")
    if headers:
        raise layout_error(adapter, f"{path}: only hidden sheets have all the columns: {named}; show the right one")
    if not candidates:
        raise layout_error(adapter, f"{path} is empty")
    sheet, place, names = max(candidates, key=lambda row: (len(wanted.keys() & row[2]), len(row[2])))
    there = [cell.strip() for cell in sheet.cells[place] if cell.strip()]
    unused = [cell for cell in there if _plain(cell) not in wanted]
    hints = ", ".join(f"{name!r}{did_you_mean(name, unused)}" for plain, name in wanted.items() if plain not in names)
    own = ", or name yours in `columns`" if adapter == "dfme" else ""
    of_sheet = f" of sheet {sheet.name!r}, of {len(sheets)} sheets" if len(sheets) > 1 and sheet.name else ""
    raise layout_error(
        adapter,
        f"{path}: no header row with column {hints}; the nearest is row {place + 1}{of_sheet}: {shown(there)}. "
        f"Give the column that name in the table{own}.",
    )


def _columns(path: Path, adapter: str, sheet: Sheet, place: int, wanted: Mapping[str, str]) -> dict[str, int]:
    """The index of each wanted column that the header has. Raises MerbaError if a name occurs twice."""
    chosen = {}
    for key, name in wanted.items():
        columns = [column for column, cell in enumerate(sheet.cells[place]) if _plain(cell) == _plain(name)]
        if len(columns) > 1:
            twice = " and ".join(f"{sheet.cells[place][column]!r} in {sheet.place(place, column)}" for column in columns)
            raise layout_error(adapter, f"{path}: column {name!r} appears twice: {twice}; delete or rename one of them")
        if columns:
            chosen[key] = columns[0]
    return chosen
