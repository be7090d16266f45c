"""Cells of tables, CSV and XLSX, as text: encodings, delimiters, worksheets, and cells that don't hold what they show."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from functools import lru_cache
from typing import Any
from zipfile import ZipFile

MOST_CELLS = 2_000_000  # the largest release has about 60,000
DELIMITERS = ",;\t"
TABLE_SUFFIXES = frozenset({".csv", ".xls", ".xlsx"})
"""Files that are meant as tables; `read_sheets` refuses .xls with a remedy."""
ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")


@dataclass(frozen=True)
class Sheet:
    """A worksheet, or a CSV file read with one delimiter; empty cells are "", and a cell merged over rows is repeated in each.

    `doubts` says, by row and column from 0, why a cell's text isn't what the author meant. `hidden_rows` are numbers from 1,
    and `broken` says why the file can't be read after these cells. A CSV file has no `name`.
    """

    cells: list[list[str]]
    doubts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    name: str = ""
    hidden: bool = False
    hidden_rows: Sequence[int] = ()
    broken: str = ""

    def place(self, row: int, column: int) -> str:
        """The cell as a spreadsheet program names it: `cell C2 of sheet 'final'`."""
        from openpyxl.utils import get_column_letter

        of_sheet = f" of sheet {self.name!r}" if self.name else ""
        return f"cell {get_column_letter(column + 1)}{row + 1}{of_sheet}"


@lru_cache(maxsize=16)
def read_sheets(suffix: str, data: bytes) -> tuple[Sheet, ...]:
    """The worksheets of an XLSX file, hidden ones too; or a CSV file read with each delimiter: its header shows which is right.

    Cached by content. Raises ValueError if the bytes aren't what the suffix says.
    """
    if suffix == ".csv":
        return _read_csv(data)
    if suffix == ".xlsx":
        return _read_workbook(data)
    raise ValueError(f"{suffix} files aren't read; save it as .xlsx or .csv")


def _read_csv(data: bytes) -> tuple[Sheet, ...]:
    text, sheets = _decoded(data), []
    for delimiter in DELIMITERS:
        cells: list[list[str]] = []
        broken = ""
        try:
            # Strict, because an open quotation mark would swallow all rows up to the next one.
            for line in csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, strict=True):
                cells.append(line)
        except csv.Error as error:
            broken = (
                f"row {len(cells) + 1}: its quotation marks don't enclose whole cells ({error}); close each, and double those "
                "inside a cell"
            )
        sheets.append(Sheet(cells, _doubts(cells), broken=broken))
    if not any(sheet.cells for sheet in sheets) and broken:
        raise ValueError(broken)
    return tuple(sheets)


def _decoded(data: bytes) -> str:
    """The text in UTF-8; or in GB 2312, which Chinese spreadsheets write, if it can't be in another encoding.

    For GB 2312, most characters must be common ones (rows 1 to 55), and somewhere two must follow each other: accented letters
    in Western encodings don't, and Cyrillic letters are read as rare characters. Raises ValueError otherwise.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        runs = re.findall(rb"[\x80-\xff]+", data)
        rows = b"".join(run[::2] for run in runs)
        everyday = sum(0xA1 <= row <= 0xD7 for row in rows)
        if max(map(len, runs)) >= 4 and everyday >= 0.75 * len(rows):
            return data.decode("gb2312")
    raise ValueError("its text is not UTF-8; save it as “CSV UTF-8” in the spreadsheet program")


def _doubts(rows: list[tuple[Any, ...]] | list[list[str]]) -> dict[tuple[int, int], str]:
    """Cells with a formula's error or a date: one entered as `1-5`, or a number in a column that shows dates."""
    doubts = {}
    for place, row in enumerate(rows):
        for column, value in enumerate(row):
            if isinstance(value, date | time | timedelta):
                doubts[place, column] = f"it is a date in the spreadsheet ({value}); format the cell as text and enter it again"
            elif value in ERRORS:
                doubts[place, column] = f"{value} is an error of its formula; fix the formula, or enter the value"
    return doubts


def _read_workbook(data: bytes) -> tuple[Sheet, ...]:
    from openpyxl import load_workbook

    try:
        worksheets = load_workbook(io.BytesIO(data), data_only=True).worksheets
        formulas = load_workbook(io.BytesIO(data)) if _has_formulas(data) else {}
    except Exception as error:  # a damaged workbook fails anywhere in zipfile, zlib, the XML parser and openpyxl
        raise ValueError(f"not an XLSX workbook ({error})") from error
    return tuple(_worksheet(sheet, formulas[sheet.title] if formulas else None) for sheet in worksheets)


def _has_formulas(data: bytes) -> bool:
    """Whether there are formulas, so that the file must be read a second time, for formulas instead of values."""
    with ZipFile(io.BytesIO(data)) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(re.search(rb"<(\w+:)?f[ />]", archive.read(name)) for name in sheets)


def _worksheet(sheet: Any, formulas: Any) -> Sheet:
    if sheet.max_row * sheet.max_column > MOST_CELLS:
        raise ValueError(f"sheet {sheet.title!r}: its cells reach to {sheet.dimensions}; delete the empty rows and columns")
    values = list(sheet.iter_rows(values_only=True))
    cells, doubts = [[_text(value) for value in row] for row in values], _doubts(values)
    for cell in (cell for row in formulas or () for cell in row if cell.data_type == "f"):
        place = cell.row - 1, cell.column - 1
        if values[place[0]][place[1]] is None:
            cells[place[0]][place[1]] = "a formula"
            doubts[place] = "its formula was never computed; open the file in a spreadsheet program and save it"
    for merged in sheet.merged_cells.ranges:
        # Downwards only: prose over or under a table is often merged across its columns, and is one cell.
        top, column = merged.min_row - 1, merged.min_col - 1
        for row in cells[top + 1 : merged.max_row]:
            row[column] = cells[top][column]
    hidden_rows = [number for number, row in sheet.row_dimensions.items() if row.hidden]
    return Sheet(cells, doubts, sheet.title, sheet.sheet_state != "visible", hidden_rows)


def _text(value: object) -> str:
    """A cell as text; whole numbers without a decimal point."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
