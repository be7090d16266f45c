"""What goes wrong on other people's machines: each fault has a clear message or a named problem, and no wrong number."""

import errno
import getpass
import os
import re
import shutil
import string
import struct
import subprocess
import zlib

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import edit_workbook, load, message, write_release
from safetensors.torch import save_file
from workflow_runs import configured, snakemake

from merba.datasets.annotations import checked_frames, read_annotations
from merba.errors import ClipProblem, MerbaError
from merba.files import atomic, remove_drafts
from merba.frames import open_clip, read_image
from merba.joblog import job_log
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject
from merba.preprocessing.flow import flow_of_clips
from merba.preprocessing.packs import ClipFlow, FlowFormat, pack, save_subject
from merba.sheet import make_sheet, safe_id

WHOLE = {"backend": "none", "size": 56}
IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8), (0, 0), 2)
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()
STRANGE = ["Ann Lee", 'O\'Hara "x"', "two\nlines", "高橋", "a;rm -rf $HOME", "{subject}", "50%"]


# --- The file system ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, and how to make it read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if getpass.getuser() != "root" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]).returncode:
        pytest.skip("a file system of 4 MB needs the right to mount it")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    subprocess.run(["umount", "--lazy", disk], check=True)  # a process that ends may still use it


NUMBERS = np.random.default_rng(0).random(1_000_000)


def test_a_file_that_can_not_be_read_is_not_taken_for_the_one_to_write(tmp_path):
    with pytest.raises(PermissionError, match="input.npz"), atomic(tmp_path / "out.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "input.npz"))
    with pytest.raises(MerbaError, match="out.txt can't be written"), atomic(tmp_path / "out.txt") as draft:
        raise PermissionError(errno.EACCES, "Permission denied", str(draft))
    (tmp_path / "file").touch()
    with pytest.raises(MerbaError, match="file/out.txt can't be written"), atomic(tmp_path / "file" / "out.txt") as draft:
        draft.touch()


WRITERS = {
    "table.parquet": lambda path: pd.DataFrame({"a": NUMBERS}).to_parquet(path),
    "table.csv": lambda path: pd.DataFrame({"a": NUMBERS}).to_csv(path),
    "state.pt": lambda path: torch.save(torch.from_numpy(NUMBERS), path),
    "model.safetensors": lambda path: save_file({"a": torch.from_numpy(NUMBERS)}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_leaves_no_half_file(small_disk, name):
    disk, _ = small_disk
    with (
        pytest.raises(MerbaError, match=f"{disk / name} can't be written: No space left on device"),
        atomic(disk / name) as draft,
    ):
        WRITERS[name](draft)
    assert list(disk.iterdir()) == []


def test_flow_and_packs_on_a_full_disk_are_named(small_disk, tmp_path):
    disk, _ = small_disk
    rows = pd.DataFrame({"dataset": "d", "subject": "s", "clip": [f"c{i}" for i in range(30)]})
    flows, form = [ClipFlow(np.ones((2, 224, 224)), np.zeros((5, 2)), 0.0, None)] * 30, FlowFormat(("u", "v"), "px")
    with pytest.raises(MerbaError, match="s.npz can't be written: No space left"):
        save_subject(disk / "s.npz", rows, flows, (2, 224, 224), form)
    save_subject(tmp_path / "s.npz", rows, flows, (2, 224, 224), form)
    with pytest.raises(MerbaError, match="d.npy can't be written: No space left"):
        pack([tmp_path / "s.npz"], disk / "d.npy", disk / "d.parquet")
    assert list(disk.iterdir()) == []


def test_a_read_only_folder_is_named(small_disk):
    disk, make_read_only = small_disk
    make_read_only()
    for path in (disk / "a.csv", disk / "new" / "a.csv"):
        with pytest.raises(MerbaError, match=f"{path} can't be written: Read-only file system"), atomic(path) as draft:
            draft.write_text("1")


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    with atomic(tmp_path / "a.csv") as late:
        late.write_text("late, and ")
        with atomic(tmp_path / "a.csv") as early:
            early.write_text("early")
        assert (tmp_path / "a.csv").read_text() == "early"
        with late.open("a") as file:
            file.write("whole")
    assert (tmp_path / "a.csv").read_text() == "late, and whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_drafts_of_killed_writers_go_and_those_of_others_stay(tmp_path):
    folder = tmp_path / "flow" / "samm"
    with atomic(folder / "006.npz") as working:
        working.touch()
        killed = working.with_name(working.name.replace("006", "007"))
        for path in (killed, folder / "008.npz"):
            path.touch()
            os.utime(path, (0, 0))
        remove_drafts(tmp_path)
        assert set(folder.iterdir()) == {working, folder / "008.npz"}


def test_links_that_lead_in_circles_are_named(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert f"root {loop} is a broken link" in message("samm", loop)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").symlink_to(tmp_path / "frames" / "1.png")
    with pytest.raises(ClipProblem, match="1.png can't be read: Too many levels of symbolic links"):
        open_clip(tmp_path / "frames", "frames").read(1)
    with pytest.raises(ClipProblem, match="loop can't be read: Too many levels of symbolic links"):
        open_clip(loop, "frames")


def test_a_folder_that_holds_a_link_to_itself_is_read_once(tmp_path):
    root = write_release("smic_hs", tmp_path / "release")
    clip = next((root / "HS").glob("s*/micro/negative/*"))
    for folder in (clip, clip.parents[2]):
        (folder / "again").symlink_to(folder)
    assert len(load("smic_hs", root)) == 6


# --- Frames and videos ---


@given(st.integers(0, len(PNG) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flow_image_with_a_wrong_byte_is_a_problem_or_the_same_image(tmp_path_factory, place, change):
    data = bytearray(PNG)
    data[place] ^= change
    assert_same_or_problem(tmp_path_factory, bytes(data))


@given(st.integers(0, len(PNG)), st.binary(max_size=40), st.integers(0, len(PNG)))
@settings(max_examples=300, deadline=None)
def test_a_flow_image_with_a_wrong_part_is_a_problem_or_the_same_image(tmp_path_factory, place, part, length):
    assert_same_or_problem(tmp_path_factory, PNG[:place] + part + PNG[place + length :])


def assert_same_or_problem(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(data)
    try:
        np.testing.assert_array_equal(read_image(path), IMAGE)
    except ClipProblem as problem:
        assert str(path) in str(problem)


def blank_png(width, height, rows):
    """A black grey-level PNG with this size in its header, but only `rows` rows."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    content = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_an_image_of_a_hundred_megapixels_is_searched_for_faces_like_any_other(tmp_path):
    (tmp_path / "1.png").write_bytes(blank_png(10_000, 10_000, 10_000))
    assert read_image(tmp_path / "1.png").shape == (10_000, 10_000, 3)
    assert "no face was found" in faces_of_subject(one_clip(tmp_path, "frames", onset=1), {})["problem"][0]


def test_an_image_that_claims_more_pixels_than_memory_holds_is_a_problem(tmp_path):
    (tmp_path / "1.png").write_bytes(blank_png(60_000, 60_000, 1))
    with pytest.raises(ClipProblem, match="1.png"):
        read_image(tmp_path / "1.png")


def one_clip(source, kind, onset=None):
    row = {"dataset": "d", "subject": "s", "clip": "c", "source": str(source), "kind": kind, "onset": onset, "apex": None}
    return pd.DataFrame([row | {"offset": None, "bits": None}]).astype({"onset": "Int64", "apex": "Int64", "offset": "Int64"})


def preprocessed(rows):
    """Faces, apexes and flow of one subject's clips."""
    faces = faces_of_subject(rows, WHOLE)
    apexes = apexes_of_subject(rows, faces, {}, WHOLE)
    return list(flow_of_clips(rows, faces, apexes, {}, WHOLE))


def test_an_empty_video_is_a_named_problem_of_its_clip(tmp_path):
    (tmp_path / "a.mp4").touch()
    (flow,) = preprocessed(one_clip(tmp_path / "a.mp4", "video", onset=0))
    assert flow.problem == f"video {tmp_path / 'a.mp4'} can't be decoded: it is damaged, or not a video that FFmpeg reads"
    assert not flow.flow.any()


@pytest.mark.parametrize("kind", ["frames", "video"])
def test_a_clip_of_one_frame_is_a_named_problem(tmp_path, kind, photograph):
    if kind == "frames":
        source = tmp_path / "clip"
        source.mkdir()
        cv2.imwrite(str(source / "1.png"), photograph)
    else:
        source = tmp_path / "clip.mp4"
        writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"mp4v"), 25, photograph.shape[1::-1])
        writer.write(photograph)
        writer.release()
    (flow,) = preprocessed(one_clip(source, kind, onset=1 if kind == "frames" else 0))
    assert str(source) in flow.problem
    assert not flow.flow.any()


# --- Annotation tables ---


def test_cells_merged_over_rows_hold_for_each_of_them(tmp_path):
    root = write_release("casme2", tmp_path / "release")
    expected = load("casme2", root)

    def merge(sheet):
        sheet.merge_cells("A2:A3")
        sheet.append(["* coded by two", None, None])
        sheet.merge_cells(start_row=sheet.max_row, end_row=sheet.max_row, start_column=1, end_column=5)

    table = root / "CASME2-coding-20140508.xlsx"
    first = openpyxl.load_workbook(table).worksheets[0]
    assert first["A2"].value == first["A3"].value, "the fixture's first two rows are one subject's"
    edit_workbook(table, merge)
    pd.testing.assert_frame_equal(load("casme2", root), expected)


def test_a_row_without_its_subject_is_named(tmp_path):
    root = write_release("casme2", tmp_path / "release")
    edit_workbook(root / "CASME2-coding-20140508.xlsx", lambda sheet: setattr(sheet["A3"], "value", None))
    assert "row 3: subject is empty" in message("casme2", root)


def test_a_table_of_a_million_empty_rows_is_refused_at_once(tmp_path):
    root = write_release("casme2", tmp_path / "release")
    edit_workbook(root / "CASME2-coding-20140508.xlsx", lambda sheet: setattr(sheet["XFD1048576"], "value", "x"))
    assert "its cells reach to A1:XFD1048576; delete the empty rows" in message("casme2", root)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "gb18030", "utf-8-sig"])
def test_a_table_in_another_encoding_is_read_right_or_refused(tmp_path, encoding):
    path = tmp_path / "a.csv"
    name = "高兴" if encoding == "gb18030" else "né"
    path.write_bytes(f"subject,clip\n1,{name}\n".encode(encoding))
    try:
        assert read_annotations(path, "clips", {"subject": "subject", "clip": "clip"})["clip"].tolist() == [name]
    except MerbaError as error:
        assert str(path) in str(error)
        assert encoding in ("utf-16", "latin-1")


def test_lines_may_end_as_they_did_on_old_macs(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"subject,clip\r1,a\r2,b\r")
    assert read_annotations(path, "clips", {"subject": "subject", "clip": "clip"})["clip"].tolist() == ["a", "b"]


COLUMNS = {name: name for name in ("subject", "clip", "onset", "apex", "offset")}
CELL = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(string.digits + ",;\t\"\n\r '/-")), max_size=12)


def read_checked(path):
    """Read a table as the adapters do; whole numbers in order, or an error that names the file."""
    try:
        rows = checked_frames(read_annotations(path, "clips", COLUMNS), "clips", path)
    except MerbaError as error:
        assert str(path) in str(error)
        return None
    assert (rows["onset"] < rows["offset"]).all()
    assert not rows.duplicated(["subject", "clip"]).any()
    return rows


NUMBER = st.one_of(st.integers(0, 99).map(str), st.integers(0).map(str), CELL)


@given(st.lists(st.tuples(CELL, CELL, NUMBER, NUMBER, NUMBER), max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_cells_are_numbers_in_order_or_a_named_error(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    pd.DataFrame(cells, columns=list(COLUMNS)).to_csv(path, index=False)
    rows = read_checked(path)
    for row in cells if rows is not None else []:
        if row[2].isdecimal() and row[2].isascii() and row[0].strip() and row[1].strip():
            assert int(row[2]) in rows["onset"].tolist()


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_after_a_header_are_rows_or_a_named_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"subject,clip,onset,apex,offset\ns,c,1,2,3\n" + data)
    read_checked(path)


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    book = openpyxl.Workbook()
    for row in (list(COLUMNS), ["s", "c", 1, 2, 3]):
        book.active.append(row)
    path = tmp_path_factory.mktemp("workbook") / "a.xlsx"
    book.save(path)
    return path.read_bytes()


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_workbook_is_read_right_or_a_named_error(tmp_path_factory, workbook, data):
    path = tmp_path_factory.getbasetemp() / "damaged.xlsx"
    damaged = bytearray(workbook)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged)
    rows = read_checked(path)
    if rows is not None and len(rows):
        assert rows[["onset", "apex", "offset"]].to_numpy().tolist() == [[1, 2, 3]]


# --- Names and paths ---


@pytest.fixture
def own_clips(tmp_path, photograph):
    """Writes a table of clips under strange names, each a folder of three frames."""

    def write(names):
        root = tmp_path / "own 'clips'"
        root.mkdir()
        rows = []
        for place, name in enumerate(names):
            (root / name).mkdir()
            frame = photograph.copy()
            frame[0, 0] = place  # another person's frames
            for number in range(3):
                cv2.imwrite(str(root / name / f"{number}.png"), np.roll(frame, number, 1))
            rows.append(
                {"subject": name, "clip": name, "source": name, "onset": 0, "apex": 1, "offset": 2, "emotion": "happiness"}
            )
        pd.DataFrame(rows).to_csv(root / "clips.csv", index=False)
        return root

    return write


def test_strange_names_go_through_preprocessing_unchanged(own_clips, tmp_path):
    root = own_clips(STRANGE)
    sheet = make_sheet(load("clips", root))
    assert sorted(sheet["subject"]) == sorted(STRANGE)
    ids = sheet["subject"].map(safe_id)
    assert ids.str.fullmatch(r"[A-Za-z0-9_-]+").all()
    assert ids.is_unique
    files = []
    for subject, rows in sheet.groupby("subject"):
        files.append(tmp_path / f"{safe_id(subject)}.npz")
        save_subject(files[-1], rows, preprocessed(rows.reset_index(drop=True)), (2, 56, 56), FlowFormat(("u", "v"), "px"))
    index = pack(files, tmp_path / "d.npy", tmp_path / "d.parquet")
    assert sorted(index["clip"]) == sorted(STRANGE)
    assert index["problem"].isna().all()


@pytest.mark.long
def test_strange_names_go_through_the_workflow(own_clips, tmp_path):
    names = ['O\'Hara "x"', "two\nlines", "高橋 50%", "{subject};rm -rf $HOME"]
    changes = {"data": "own", "demo": None, "faces": WHOLE, "experiments": {"a": {"method": "A", "model": {"name": "ststnet"}}}}
    datasets = {"own": {"adapter": "clips", "root": str(own_clips(names))}}
    snakemake(tmp_path, "results/problems.csv", config=configured(tmp_path, datasets=datasets, **changes))
    assert pd.read_csv(tmp_path / "results" / "problems.csv").empty
    assert sorted(pd.read_parquet(tmp_path / "results" / "packed" / "own.parquet")["clip"]) == sorted(names)


@pytest.mark.parametrize("leading_out", ["../own 'clips' secret", "a/../../own 'clips' secret", "/secret"])
def test_a_source_cannot_lead_out_of_its_root(own_clips, leading_out):
    root = own_clips(["a"])
    secret = root.parent / f"{root.name} secret"  # its path begins like the root's
    shutil.copytree(root / "a", secret)
    source = str(secret) if leading_out == "/secret" else leading_out
    (root / "clips.csv").write_text(f"subject,clip,source,emotion\ns,c,{source},happiness\n")
    assert f"row 2: source {source!r} is outside {root}" in message("clips", root)


def test_a_source_cannot_lead_out_of_the_working_directory_either(own_clips, monkeypatch):
    root = own_clips(["a"])
    (root / "inner").mkdir()
    (root / "inner" / "clips.csv").write_text("subject,clip,source,emotion\ns,c,../a,happiness\n")
    monkeypatch.chdir(root / "inner")
    assert "row 2: source '../a' is outside ." in message("clips", ".")


def test_a_source_beside_its_tables_folder_is_in_its_root(own_clips):
    root = own_clips(["a"])
    (root / "lists").mkdir()
    (root / "clips.csv").rename(root / "lists" / "clips.csv")
    (root / "lists" / "clips.csv").write_text("subject,clip,source,emotion\ns,c,../a,happiness\n")
    assert load("clips", root, annotations="lists/clips.csv")["source"].tolist() == [str(root / "a")]


@pytest.mark.parametrize("clip", ["../secret", "/secret", "../../secret"])
def test_a_clip_of_dfme_cannot_lead_out_of_the_root(tmp_path, clip):
    root = write_release("dfme", tmp_path / "release")
    for secret in (root / "secret", tmp_path / "secret"):
        shutil.copytree(next((root / "frames").iterdir()), secret)
    table = pd.read_csv(root / "test_a.csv", dtype=str)
    table.loc[0, "clip"] = clip.replace("/secret", str(tmp_path / "secret")) if clip[0] == "/" else clip
    table.to_csv(root / "test_a.csv", index=False)
    assert "have no folder in" in message("dfme", root)


@pytest.mark.parametrize(
    ("adapter", "table"), [("casme2", "CASME2-coding-20140508.xlsx"), ("samm", "SAMM_Micro_FACS_Codes_v2.xlsx")]
)
@pytest.mark.parametrize("name", ["../{name}", "{path}"])
def test_a_clip_cannot_lead_out_of_the_frames_folder(tmp_path, adapter, table, name):
    root = write_release(adapter, tmp_path / "release")
    sheet = load(adapter, root)
    secret = tmp_path / "release" / "secret"
    shutil.copytree(sheet["source"][0], secret)
    clip = name.format(name="../secret", path=secret)

    def lead_out(sheet):
        header = next(row for row in sheet.iter_rows() if any(cell.value == "Filename" for cell in row))
        column = next(cell.column for cell in header if cell.value == "Filename")
        sheet.cell(header[0].row + 1, column).value = clip

    edit_workbook(root / table, lead_out)
    assert "have no folder in" in message(adapter, root)


# --- Jobs ---


@pytest.mark.parametrize(
    ("error", "said"),
    [(MerbaError("a.csv: wrong\nmend it"), "a.csv: wrong"), (ZeroDivisionError("no clips"), "ZeroDivisionError: no clips")],
)
def test_a_failed_job_says_why_on_the_terminal_and_last_in_its_log(tmp_path, capfd, error, said):
    with pytest.raises((SystemExit, ZeroDivisionError)), job_log(tmp_path / "a.log", "flow of d s"):
        raise error
    stamped = [line for line in (tmp_path / "a.log").read_text().splitlines() if re.match(r"\d{4}-", line)]
    assert stamped[0].endswith("INFO start: flow of d s")
    assert stamped[-1].endswith(f"ERROR failed: flow of d s: {said}")
    assert f"failed: flow of d s: {said}" in capfd.readouterr().err
