"""Adapters' messages about a copy that differs: what was expected and where, what is there, the closest name, the remedy."""

import shutil
from pathlib import Path

import pytest
from releases import edit_workbook, load, message

from merba.datasets import ADAPTERS, load_dataset
from merba.datasets.flow_images import IMAGES, TABLE
from merba.errors import MerbaError


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_wrong_root_is_named_with_the_part_that_is_missing_and_the_page(releases, adapter):
    root = releases[adapter].parent / f"{adapter}s" / "below"
    said = message(adapter, root)
    assert f"{releases[adapter].parent} has no '{adapter}s' (did you mean '{adapter}'?)" in said
    assert f"docs/datasets.md#{adapter}" in said


def test_every_page_that_errors_name_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert {f"## {adapter}" for adapter in ADAPTERS} <= set(text.splitlines())


def test_a_table_of_another_name_is_read_where_the_configuration_names_it(copied):
    root = copied("casme2")
    (root / CASME2).rename(root / "my.xlsx")
    assert len(load("casme2", root, annotations="my.xlsx")) == 6


def test_half_unpacked_frames_are_named_by_clip_and_folder(copied):
    root = copied("samm")
    shutil.rmtree(root / "SAMM" / "006" / "006_1_2")
    shutil.rmtree(root / "SAMM" / "007")
    said = message("samm", root)
    assert f"4 of the 6 annotated clips have no folder in {root / 'SAMM'}" in said
    assert "006 006_1_2 (006/006_1_2)" in said
    assert load("samm", root, missing="drop")["clip"].tolist() == ["006_1_1", "006_1_3"]


def renamed(path, name):
    return lambda root: (root / path).rename((root / path).with_name(name))


def gone(path):
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


def packed(path):
    """The folder's archive is there, but was not unpacked."""

    def change(root):
        shutil.rmtree(root / path)
        (root / f"{path}.zip").write_bytes(b"PK")

    return change


def packed_inside(path):
    """The folder's subjects are archives that were not unpacked."""

    def change(root):
        for child in (root / path).iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
            child.with_suffix(".zip").write_bytes(b"PK")

    return change


def header(table, old, new):
    """A column of the annotation table has another name."""

    def change(root):
        if table.endswith(".csv"):
            text = (root / table).read_text().split("\n", 1)
            (root / table).write_text("\n".join([text[0].replace(old, new), text[1]]))
        else:
            edit_workbook(root / table, lambda sheet: [setattr(c, "value", new) for row in sheet for c in row if c.value == old])

    return change


CASME2, SAMM = "CASME2-coding-20140508.xlsx", "SAMM_Micro_FACS_Codes_v2.xlsx"
CASME3 = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
IMAGE = f"{IMAGES}/006_006_1_1 .png"
# What is wrong with a copy, and what the message must say: what was expected and where, the closest name, what is there.
HALF_UNPACKED = [
    ("smic_hs", renamed("HS", "HSS"), "{root} has no 'HS' (did you mean 'HSS'?); it holds HSS"),
    ("smic_hs", packed("HS"), "expected the subjects' folders s1, s2, … in SMIC_all_raw/HS or HS or the folder itself; {root}"),
    ("smic_hs", packed("HS"), "it holds HS.zip, truth. Unpack the release there, or set `frames` to their folder."),
    ("smic_hs", packed_inside("HS"), "{root}/HS holds Thumbs.zip, s1.zip, s2.zip"),
    ("smic_hs", gone("HS/s2/micro"), "{root}/HS/s2: expected folder micro; found non_micro"),
    ("smic_hs", renamed("HS/s2/micro", "mirco"), "expected folder micro (did you mean 'mirco'?); found mirco, non_micro"),
    ("smic_hs", renamed("HS/s1/micro/negative", "negatve"), "found negatve (did you mean 'negative'?)"),
    ("casme2", gone(CASME2), f"{{root}}: expected the annotation table {CASME2} or CASME2-coding-updated.xlsx or "),
    ("casme2", gone(CASME2), "there is no table; the folder holds CASME2-RAW, truth. Copy it there, or set `annotations`"),
    ("casme2", renamed(CASME2, "20140508.xlsx"), "(did you mean '20140508.xlsx'?); tables found there: 20140508.xlsx. Copy it"),
    ("casme2", header(CASME2, "ApexFrame", "Apex"), f"{{root}}/{CASME2}: no header row with column 'ApexFrame' (did you mean"),
    ("casme2", header(CASME2, "ApexFrame", "Apex"), "'Apex'?); the nearest is row 1: Subject, Filename, OnsetFrame, Apex, Off"),
    ("casme2", renamed("CASME2-RAW", "CASME2 RAW"), "{root} has no 'CASME2-RAW' (did you mean 'CASME2 RAW'?); it holds"),
    ("casme2", packed("CASME2-RAW"), "(did you mean 'CASME2-RAW.zip'?)"),
    ("casme2", packed_inside("CASME2-RAW"), "{root}/CASME2-RAW holds sub01.zip, sub02.zip. Unpack the release there"),
    ("casme2", gone("CASME2-RAW/sub02"), "3 of the 6 annotated clips have no folder in {root}/CASME2-RAW: sub02 EP02_01f (sub"),
    ("casme2", renamed("CASME2-RAW/sub02", "sub_02"), "{root}/CASME2-RAW has no 'sub02' (did you mean 'sub_02'?); it holds"),
    ("casme2", renamed("CASME2-RAW/sub02", "sub_02"), "If the frames are elsewhere, set `frames`. Complete your copy, or"),
    ("samm", gone(SAMM), f"expected the annotation table {SAMM} or SAMM_Micro_FACS_Codes_v2.csv; there is no table"),
    ("samm", renamed(SAMM, "SAMM_FACS_Codes_v2.xlsx"), "(did you mean 'SAMM_FACS_Codes_v2.xlsx'?)"),
    (
        "samm",
        header(SAMM, "Onset Frame", "Onset"),
        "no header row with column 'Onset Frame' (did you mean 'Onset'?); the nearest",
    ),
    ("samm", renamed("SAMM", "SAM"), "{root} has no 'SAMM' (did you mean 'SAM'?); it holds SAM, "),
    ("samm", packed_inside("SAMM"), "{root}/SAMM holds 006.zip, 007.zip"),
    ("samm", gone("SAMM/007"), "{root}/SAMM has no '007'; it holds 006."),
    ("samm", renamed("SAMM/006/006_1_2", "006-1-2"), "{root}/SAMM/006 has no '006_1_2' (did you mean '006-1-2'?); it holds"),
    ("dfme", gone("test_b.csv"), "expected the annotation table test_b.csv; tables found"),  # not: did you mean test_a.csv?
    ("dfme", renamed("test_b.csv", "testb.csv"), "test_b.csv (did you mean 'testb.csv'?)"),
    ("dfme", gone("test_b.csv"), "found there: test_a.csv, train.csv. Copy it there, or set `tables.test_b` to its name."),
    ("dfme", header("test_a.csv", "clip", "video"), "{root}/test_a.csv: no header row with column 'clip'; the nearest is row 1"),
    ("dfme", header("test_a.csv", "clip", "video"), "Give the column that name in the table, or name yours in `columns`."),
    ("dfme", renamed("frames", "frame"), "{root} has no 'frames' (did you mean 'frame'?); it holds frame, test_a.csv"),
    ("dfme", gone("frames/0001_001"), "1 of the 14 annotated clips have no folder in {root}: subject_0001 0001_001 (frames/0"),
    ("casme3", gone(CASME3), f"expected the annotation table {CASME3} or annotation/{CASME3}; there is no table"),
    ("casme3", header(CASME3, "Apex", "Apexframe"), "no header row with column 'Apex' (did you mean 'Apexframe'?)"),
    ("casme3", renamed("part_A", "partA"), "{root} has no 'part_A' (did you mean 'partA'?); it holds cas(me)3"),
    ("casme3", packed_inside("part_A"), "{root}/part_A holds spNO.zip"),
    ("casme3", gone("part_A/spNO.10"), "no folder in {root}/part_A: spNO.10 j_170 (spNO.10/J/color). {root}/part_A has no 'spNO"),
    ("casme3", renamed("part_A/spNO.1/b/color", "colour"), "spNO.1/b has no 'color' (did you mean 'colour'?); it holds colour."),
    ("flow_images", gone(TABLE), f"expected the annotation table {TABLE}; there is no table"),
    ("flow_images", header(TABLE, "filename_o", "filename"), "no header row with column 'filename_o' (did you mean 'filename'?)"),
    ("flow_images", renamed(IMAGES, "STSNet_whole_norm"), f"{{root}} has no '{IMAGES}' (did you mean 'STSNet_whole_norm'?)"),
    ("flow_images", gone(IMAGE), f"1 of the 18 images are not in {{root}}/{IMAGES}: '006_006_1_1 .png'. Complete"),
    ("flow_images", renamed(IMAGE, "006_006_1_1.png"), "'006_006_1_1 .png' (did you mean '006_006_1_1.png'?)"),
    ("clips", renamed("clips.csv", "clip.csv"), "{root}: expected the annotation table clips.csv (did you mean 'clip.csv'?)"),
    ("clips", header("clips.csv", "Source", "File"), "no header row with column 'source'; the nearest is row 1: Subject, Clip"),
    ("clips", renamed("bob.mp4", "rob.mp4"), "row 3: {root}/bob.mp4. {root} has no 'bob.mp4' (did you mean 'rob.mp4'?); it"),
    ("clips", gone("ann"), "sources in {root}/clips.csv don't exist: row 2: {root}/ann/smile. {root} has no 'ann'; it holds bob"),
    ("clips", gone("ann/smile"), "{root}/ann has no 'smile'; it holds nothing. Complete"),
]


@pytest.mark.parametrize(("adapter", "change", "said"), HALF_UNPACKED)
def test_a_half_unpacked_release_can_be_mended_from_the_message(copied, adapter, change, said):
    root = copied(adapter)
    change(root)
    found = message(adapter, root)
    assert said.format(root=root) in found
    assert f"docs/datasets.md#{adapter}." in found


def test_each_name_that_is_off_is_told_once(copied):
    root = copied("casme2")
    renamed("CASME2-RAW/sub01/EP01_02f", "EP01-02f")(root)
    renamed("CASME2-RAW/sub02", "sub_02")(root)
    said = message("casme2", root)
    assert said.count("did you mean") == 2
    assert "sub01 EP01_02f (sub01/EP01_02f), sub02 EP02_01f (sub02/EP02_01f) (did you mean 'sub_02'?), sub02 EP02_02f" in said
    assert "/CASME2-RAW/sub01 has no 'EP01_02f' (did you mean 'EP01-02f'?); it holds " in said


def test_a_folder_without_leave_to_read_is_named(copied, monkeypatch):
    root = copied("samm")

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"{root} can't be read: Permission denied" in message("samm", root)


def test_an_empty_clip_of_smic_hs_is_named(copied):
    root = copied("smic_hs")
    empty = root / "HS" / "s1" / "micro" / "negative" / "s1_ne_01"
    shutil.rmtree(empty)
    empty.mkdir()
    assert f"{empty} holds no numbered image" in message("smic_hs", root)
    assert len(load("smic_hs", root, missing="drop")) == 5


@pytest.mark.parametrize(
    ("cell", "value", "fault"),
    [
        ("D2", "first", "row 2 (sub01 EP01_01f): onset 'first' is not a frame number"),
        ("D2", 999, "row 2 (sub01 EP01_01f): onset 999 is not before offset"),
        ("E2", 1, " is not before apex 1; empty the apex to have it detected"),
        ("E2", 999, "row 2 (sub01 EP01_01f): apex 999 is after offset"),
        ("B3", "EP01_01f", "rows 2 and 3: sub01 EP01_01f is listed twice"),
        ("I2", "hapiness", "row 2 (sub01 EP01_01f): emotion 'hapiness' is unknown (did you mean 'happiness'?)"),
    ],
)
def test_a_faulty_row_is_named_with_file_and_remedy(copied, cell, value, fault):
    root = copied("casme2")
    table = root / "CASME2-coding-20140508.xlsx"
    edit_workbook(table, lambda sheet: setattr(sheet[cell], "value", value))
    said = message("casme2", root)
    assert str(table) in said
    assert fault in said
    assert "Correct these rows" in said


def test_a_users_own_corrections_mend_a_faulty_row(copied, tmp_path):
    root = copied("casme2")
    edit_workbook(root / "CASME2-coding-20140508.xlsx", lambda sheet: setattr(sheet["D2"], "value", 999))
    own = tmp_path / "own.csv"
    own.write_text("subject,clip,column,wrong,right\nsub01,EP01_01f,onset,999,92\n")
    assert load("casme2", root, corrections=str(own)).loc[0, "onset"] == 92


@pytest.mark.parametrize(
    ("correction", "fault"),
    [
        ("sub01,EP99_01f,onset,999,92", "row 2: the annotations have no clip sub01 EP99_01f"),
        ("sub01,EP01_01f,onset,998,92", "row 2: onset of sub01 EP01_01f is '999', not '998'"),
    ],
)
def test_a_correction_that_changes_nothing_is_named(copied, tmp_path, correction, fault):
    root = copied("casme2")
    edit_workbook(root / "CASME2-coding-20140508.xlsx", lambda sheet: setattr(sheet["D2"], "value", 999))
    own = tmp_path / "own.csv"
    own.write_text(f"subject,clip,column,wrong,right\n{correction}\n")
    said = message("casme2", root, corrections=str(own))
    assert f"{own}: corrections that change nothing" in said
    assert fault in said


def test_a_correction_of_dfme_is_for_one_of_its_tables(releases, tmp_path):
    before = load("dfme", releases["dfme"])
    clip = before[before["split"] == "test_a"].iloc[0]
    own = tmp_path / "own.csv"
    own.write_text(f"subject,clip,column,wrong,right\n{clip['subject']},{clip['clip']},apex,{clip['apex']},\n")
    after = load("dfme", releases["dfme"], corrections=str(own))
    changed = before["apex"].ne(after["apex"]).fillna(True)
    assert before[changed]["clip"].tolist() == [clip["clip"]]
    assert after[changed]["apex"].isna().all()


def test_an_absent_table_of_corrections_is_named(releases):
    assert "absent.csv can't be read" in message("casme2", releases["casme2"], corrections="absent.csv")


def test_all_faulty_rows_stand_in_one_message(copied):
    root = copied("casme2")

    def change(sheet):
        sheet["D2"], sheet["D5"] = 999, 999

    edit_workbook(root / "CASME2-coding-20140508.xlsx", change)
    said = message("casme2", root)
    assert "row 2 " in said
    assert "row 5 " in said


def test_two_folders_that_may_be_the_same_subject_are_an_error(copied):
    root = copied("casme2")
    (root / "CASME2-RAW" / "sub01").rename(root / "CASME2-RAW" / "SUB01")
    (root / "CASME2-RAW" / "sub1").mkdir()
    assert "SUB01 and sub1, both of which may be sub01" in message("casme2", root)


def test_a_file_that_is_no_workbook_is_named(copied):
    root = copied("samm")
    (root / "SAMM_Micro_FACS_Codes_v2.xlsx").write_text("<html>please log in</html>")
    assert "can't be read as a table: not an XLSX workbook" in message("samm", root)


def test_an_unknown_adapter_or_setting_is_named_with_the_nearest(tmp_path):
    with pytest.raises(MerbaError, match=r"datasets\.a: adapter 'sam' .*did you mean 'samm'"):
        load_dataset("a", {"adapter": "sam", "root": "."})
    with pytest.raises(MerbaError, match=r"datasets\.samm: unknown key 'varient' \(did you mean 'variant'\?\)"):
        load("samm", tmp_path, varient="raw")
    for adapter, key, value, said in (
        ("clips", "annotations", 5, "text"),
        ("samm", "corrections", 3, "text"),
        ("dfme", "tables", 3, "names with values"),
        ("dfme", "fps", "fast", "a number"),
    ):
        with pytest.raises(MerbaError, match=rf"datasets\.\w+\.{key}: {value!r} doesn't fit; {said} would"):
            load(adapter, tmp_path, **{key: value})
    with pytest.raises(MerbaError, match=r"datasets\.a: set `root`"):
        load_dataset("a", {"adapter": "samm"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"variant": "croped"}, "raw, cropped"), ({"task": "5"}, "3db, emotion"), ({"missing": "skip"}, "error, drop")],
)
def test_a_wrong_value_of_a_setting_is_named_with_the_known_ones(releases, settings, said):
    assert said in message("casme2", releases["casme2"], **settings)
