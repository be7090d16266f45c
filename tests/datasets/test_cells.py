"""Tables as spreadsheet programs and people write them are read right, or refused with file, cell and remedy."""

import csv
import io
import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from merba.datasets.annotations import checked_frames, frame_rate, read_annotations
from merba.errors import MerbaError

COLUMNS = {name: name for name in ("subject", "clip", "onset", "apex", "offset")}
HEADER = list(COLUMNS)
ROWS = [["s1", "a", 1, 105, 120], ["s2", "b", 2, 106, 121]]


@pytest.fixture
def workbook(tmp_path):
    """Writes a workbook of sheets (name → rows), hides some of them, and returns its path."""

    def write(hidden=(), **sheets):
        book = Workbook()
        book.remove(book.active)
        for name, rows in sheets.items():
            for row in rows:
                (book[name] if name in book.sheetnames else book.create_sheet(name)).append(row)
            if name in hidden:
                book[name].sheet_state = "hidden"
        book.save(tmp_path / "clips.xlsx")
        return tmp_path / "clips.xlsx"

    return write


@pytest.fixture
def text(tmp_path):
    def write(content, encoding="utf-8"):
        (tmp_path / "clips.csv").write_bytes(content.encode(encoding))
        return tmp_path / "clips.csv"

    return write


def apexes(path):
    return checked_frames(read_annotations(path, "clips", COLUMNS), "clips", path)["apex"].tolist()


def refusal(path):
    with pytest.raises(MerbaError) as caught:
        apexes(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_formula_that_was_never_computed_is_named_with_its_cell(workbook):
    said = refusal(workbook(final=[HEADER, ["s1", "a", 1, "=100+5", 120], ROWS[1]]))
    assert "row 2: apex, cell D2 of sheet 'final': its formula was never computed" in said
    assert "open the file in a spreadsheet program and save it" in said


def test_a_formula_in_another_column_does_not_matter(workbook):
    rows = [[*row, f"=E{place}-C{place}"] for place, row in enumerate(ROWS, start=2)]
    assert apexes(workbook(final=[[*HEADER, "duration"], *rows])) == [105, 106]


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (["s1", datetime(2026, 1, 5), 1, 105, 120], "clip, cell B2 of sheet 'final': it is a date in the spreadsheet"),
        (["s1", "a", 1, datetime(1900, 4, 14), 120], "apex, cell D2 of sheet 'final': it is a date in the spreadsheet"),
        (["s1", "a", 1, "#REF!", 120], "apex, cell D2 of sheet 'final': #REF! is an error of its formula"),
    ],
)
def test_a_date_and_an_error_are_named_with_their_cells(workbook, row, cell):
    assert cell in refusal(workbook(final=[HEADER, row]))


def test_a_date_in_another_column_does_not_matter(workbook):
    rows = [[*row, datetime(2026, 1, 5)] for row in ROWS]
    assert apexes(workbook(final=[[*HEADER, "coded on"], *rows])) == [105, 106]


def test_the_visible_sheet_with_the_columns_is_read_wherever_it_is(workbook):
    draft = [HEADER, ["s1", "a", 1, 50, 120]]
    path = workbook(hidden=["draft"], draft=draft, notes=[["coded by two"], ["apex: see paper"]], final=[HEADER, *ROWS])
    assert apexes(path) == [105, 106]


def test_two_sheets_with_the_columns_hidden_ones_alone_or_none_are_named(workbook):
    assert "the sheets 'one' and 'two' have all the columns; delete or hide" in refusal(workbook(one=[HEADER], two=[HEADER]))
    said = refusal(workbook(hidden=["draft"], draft=[HEADER, *ROWS], notes=[["coded by two"]]))
    assert "only hidden sheets have all the columns: 'draft'; show the right one" in said
    said = refusal(workbook(notes=[["coded by two"]], final=[["subject", "clip", "onset", "peak", "offset"], *ROWS]))
    assert "no header row with column 'apex'; the nearest is row 1 of sheet 'final', of 2 sheets: subject, clip" in said


def test_a_column_that_is_there_twice_is_named_with_both_places(workbook, text):
    twice = [[*HEADER, "Apex_"], *([*row, 7] for row in ROWS)]
    assert "column 'apex' appears twice: 'apex' in cell D1 of sheet 'final' and 'Apex_' in cell F1" in refusal(
        workbook(final=twice)
    )
    assert "'apex' in cell D1 and 'apex' in cell E1" in refusal(text("subject,clip,onset,apex,apex,offset\ns,a,1,2,3,4\n"))


def test_semicolons_are_found_by_the_header_whatever_the_notes_hold(text):
    rows = "".join(f"s,{clip},1,{apex},9;1, 2, 3, 4, 5, 6, 7, 8\n".replace(",", ";", 4) for clip, apex in (("a", 3), ("b", 4)))
    assert apexes(text(f"subject;clip;onset;apex;offset;notes\n{rows}")) == [3, 4]


def test_a_hidden_row_is_read_and_said(workbook, caplog):
    path = workbook(final=[HEADER, *ROWS])
    book = load_workbook(path)
    book["final"].row_dimensions[3].hidden = True
    book.save(path)
    assert len(apexes(path)) == len(ROWS)
    assert f"{path}: row 3: hidden in sheet 'final', but read like the others" in caplog.text


@pytest.mark.parametrize("row", ['s,a,1,2,3,"smile', 's,a,1,2,3,"smile\ns,b,1,2,3,"frown'])
def test_an_open_quotation_mark_swallows_no_rows(text, row):
    said = refusal(text(f"subject,clip,onset,apex,offset,notes\n{row}\ns,c,1,2,3,\n"))
    assert "row 2: its quotation marks don't enclose whole cells" in said


def test_a_row_with_more_cells_than_the_header_is_refused(text):
    path = text("subject,clip,onset,apex,offset,fps\ns,a,1,2,3,29,97\n")
    assert "row 2 has more cells than the header, 7 and 6" in refusal(path)


def test_a_row_of_a_single_cell_is_left_out_and_said(text, caplog):
    path = text("subject,clip,onset,apex,offset\ns,a,1,2,3\n,b,,,\n,,,,\n")
    assert apexes(path) == [2]
    assert f"{path}: row 3: only one cell is filled, so it is left out" in caplog.text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_numbers_may_end_as_spreadsheets_write_them(text, separator):
    lines = [HEADER, ["s", "a", "1", '"7,0"', "9"], ["s", "b", "1", "7.0", "9"]]
    assert apexes(text("\n".join(map(separator.join, lines)))) == [7, 7]


@pytest.mark.parametrize("apex", ["1.050", "1,050", "1.000", "105,5", "7 or so", "2014-05-08", "-2", "1 050", "１２"])
def test_an_apex_with_digits_that_is_no_frame_number_is_an_error(text, apex):
    assert f"row 2 (s a): apex {apex!r} is not a frame number" in refusal(
        text(f'subject,clip,onset,apex,offset\ns,a,1,"{apex}",9999\n')
    )


@pytest.mark.parametrize("apex", ["", "/", "-1", "n/a", "-"])
def test_an_apex_that_is_not_known_is_detected(text, apex):
    assert apexes(text(f"subject,clip,onset,apex,offset\ns,a,1,{apex},9\ns,b,1,5,9\n"))[1] == 5


@pytest.mark.parametrize(("written", "rate"), [("29.97", 29.97), ("29,97", 29.97), ("200", 200), ("29.970", 29.97)])
def test_a_frame_rate_has_a_decimal_point_or_comma(written, rate):
    assert frame_rate(written) == rate


@pytest.mark.parametrize("written", ["0", "-25", "inf", "nan", "1,000", "1_000", "25 fps", "1e3", "1.2.3", ""])
def test_what_may_be_another_frame_rate_is_refused(written):
    with pytest.raises(ValueError, match="is not a number above 0"):
        frame_rate(written)


@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "mac-roman", "utf-16"])
@pytest.mark.parametrize("name", ["Müller", "Größe", "José"])
def test_letters_of_another_encoding_are_never_read_as_chinese(text, name, encoding):
    path = text(f"subject,clip,onset,apex,offset\n{name},a,1,2,3\n", encoding)
    assert "can't be read as a table: " in refusal(path)


def test_cyrillic_is_refused_and_chinese_read(text):
    assert "save it as “CSV UTF-8”" in refusal(text("subject,clip,onset,apex,offset\nИванов,a,1,2,3\n", "cp1251"))
    path = text("subject,clip,onset,apex,offset,注释\n张伟,高兴,1,2,3,没有\n", "gb18030")
    assert read_annotations(path, "clips", COLUMNS)["clip"].tolist() == ["高兴"]


NOTE = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
NAME = st.text("abcdefg, ;é", min_size=1, max_size=6).filter(str.strip)


@given(st.lists(st.tuples(NAME, st.integers(0, 9), NOTE), min_size=1, max_size=5), st.sampled_from(",;\t"))
@settings(max_examples=150, deadline=None)
def test_any_table_that_a_program_writes_is_read_with_its_values(tmp_path_factory, rows, separator):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator)
    writer.writerow([*HEADER, "notes"])
    writer.writerows([name, f"c{place}", 1, apex + 2, 20, note] for place, (name, apex, note) in enumerate(rows))
    path.write_bytes(file.getvalue().encode())
    table = checked_frames(read_annotations(path, "clips", COLUMNS), "clips", path)
    assert table["apex"].tolist() == [apex + 2 for _, apex, _ in rows]
    assert table["subject"].tolist() == [name.strip() for name, *_ in rows]


CELL = st.one_of(
    st.integers(-5, 10**10), st.floats(allow_nan=False), st.datetimes(), st.sampled_from(["=1+1", "#N/A", "/", "5,0"])
)


@given(st.lists(CELL, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_cells_of_a_workbook_are_frame_numbers_or_refused(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "cells.xlsx"
    book = Workbook()
    for row in (HEADER, ["s", "a", *cells]):
        book.active.append(row)
    book.save(path)
    try:
        row = checked_frames(read_annotations(path, "clips", COLUMNS), "clips", path).iloc[0]
    except MerbaError as error:
        assert re.search(r"row 2|cell [C-E]2", str(error))
    else:
        for name, cell in zip(("onset", "apex", "offset"), cells, strict=True):
            known = cell not in ("/", -1)
            assert (row[name] == (5 if cell == "5,0" else cell)) if known else name == "apex"
