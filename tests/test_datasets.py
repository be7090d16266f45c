"""Adapters: each layout with its quirks, and what they say about a copy that differs."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from releases import WRITERS, edit_workbook, planned, write_release
from shared_data import shared_data

from merba.datasets import ADAPTERS, load_dataset
from merba.datasets.annotations import correct, read_annotations
from merba.datasets.flow_images import IMAGES, TABLE, clone
from merba.datasets.layout import Folder, loose
from merba.datasets.tasks import composite
from merba.errors import MerbaError
from merba.frames import open_clip
from merba.sheet import make_sheet

RENDERED = ["smic_hs", "casme2", "samm", "dfme"]


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """One unchanged copy of every layout, by adapter."""
    root = tmp_path_factory.mktemp("releases")
    return {adapter: write_release(adapter, root / adapter) for adapter in WRITERS}


@pytest.fixture
def copied(releases, tmp_path):
    """Copies a layout, to be changed."""
    return lambda adapter: Path(shutil.copytree(releases[adapter], tmp_path / adapter))


def load(adapter, root, **settings):
    return load_dataset(adapter, {"adapter": adapter, "root": str(root), **settings})


def message(adapter, root, **settings):
    """What the adapter says when it refuses."""
    with pytest.raises(MerbaError) as error:
        load(adapter, root, **settings)
    return str(error.value)


# ---- what is read


def test_every_layout_has_a_fixture():
    assert WRITERS.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("adapter", RENDERED)
def test_the_adapter_reads_what_the_demo_planned(releases, adapter):
    read = load(adapter, releases[adapter], **({"fps": 200} if adapter == "dfme" else {}))
    pd.testing.assert_frame_equal(read, planned(adapter, releases[adapter]))


@pytest.mark.parametrize("adapter", ["smic_hs", "casme2", "samm", "dfme", "casme3", "clips"])
def test_every_row_is_valid_and_its_frames_are_there(releases, adapter):
    sheet = make_sheet(load(adapter, releases[adapter]))
    for _, row in sheet.iterrows():
        clip = open_clip(row["source"], row["kind"])
        numbers = [n for n in (row["onset"], row["apex"], row["offset"]) if pd.notna(n)]
        assert set(numbers) <= {number for number, _ in clip.frames()}
        assert clip.read(numbers[0]).shape[2] == 3


def test_smic_hs_runs_from_its_first_frame_to_its_last_without_an_apex(releases):
    sheet = load("smic_hs", releases["smic_hs"])
    numbers = open_clip(sheet.loc[0, "source"], "frames").numbers
    assert (sheet.loc[0, "onset"], sheet.loc[0, "offset"]) == (numbers[0], numbers[-1])
    assert sheet["apex"].isna().all()
    assert set(sheet["fps"]) == {100}


def test_smic_hs_reads_padded_subject_folders_and_upper_case_extensions(copied):
    root = copied("smic_hs")
    before = load("smic_hs", root)
    (root / "HS" / "s1").rename(root / "HS" / "S01")
    for frame in (root / "HS" / "S01").rglob("*.bmp"):
        frame.rename(frame.with_suffix(".BMP"))
    after = load("smic_hs", root)
    pd.testing.assert_frame_equal(after.drop(columns="source"), before.drop(columns="source"))


@pytest.mark.parametrize(
    ("adapter", "raw", "cropped"),
    [
        ("smic_hs", "HS", "SMIC_all_cropped/HS"),
        ("casme2", "CASME2-RAW", "Cropped"),
        ("samm", "SAMM", "SAMM_CROP"),
    ],
)
def test_the_cropped_variant_is_read_from_its_own_folder(copied, adapter, raw, cropped):
    root = copied(adapter)
    raw_sheet = load(adapter, root)
    shutil.copytree(root / raw, root / cropped)
    sheet = load(adapter, root, variant="cropped")
    assert sheet["source"].str.startswith(str(root / cropped)).all()
    pd.testing.assert_frame_equal(sheet.drop(columns="source"), raw_sheet.drop(columns="source"))


def test_cropped_frames_named_after_their_raw_ones_are_found_by_number(copied):
    root = copied("casme2")
    for frame in (root / "CASME2-RAW").rglob("*.jpg"):
        frame.rename(frame.with_name(f"reg_{frame.name}"))
    row = load("casme2", root).iloc[0]
    assert {row["onset"], row["offset"]} <= set(open_clip(row["source"], "frames").numbers)


def test_casme2_gives_no_apex_for_a_slash_and_leaves_others_and_fear_out(releases):
    sheet = load("casme2", releases["casme2"])
    slash = read_annotations(
        releases["casme2"] / "CASME2-coding-20140508.xlsx", "casme2", {"clip": "Filename", "apex": "ApexFrame"}
    ).query("apex == '/'")
    assert set(sheet.loc[sheet["apex"].isna(), "clip"]) == set(slash["clip"]) - {"EP09_09"}
    assert sheet["apex"].isna().any()
    assert not set(sheet["clip"]) & {"EP09_09", "EP09_10"}


@pytest.mark.parametrize("folder", ["sub1", "SUB01"])
def test_casme2_subject_folders_may_differ_in_padding_and_case(copied, folder):
    root = copied("casme2")
    (root / "CASME2-RAW" / "sub01").rename(root / "CASME2-RAW" / folder)
    sheet = load("casme2", root)
    assert sheet.loc[0, "subject"] == "sub01"
    assert Path(sheet.loc[0, "source"]).parent.name == folder


def test_the_wrong_offset_of_casme2s_row_61_is_corrected_only_in_the_table_of_255():
    rows = pd.DataFrame({"subject": "sub04", "clip": [f"EP{n}" for n in range(255)], "offset": "5"})
    assert correct(rows, "casme2")["offset"].tolist() == ["5"] * 60 + ["91"] + ["5"] * 194
    assert set(correct(rows[:247], "casme2")["offset"]) == {"5"}


def test_samm_finds_its_header_under_the_prose_and_pads_its_subjects(releases):
    sheet = load("samm", releases["samm"])
    assert set(sheet["subject"]) == {"006", "007"}
    assert set(sheet["emotion"]) <= {"Anger", "Contempt", "Disgust", "Fear", "Sadness", "Happiness", "Surprise"}


@pytest.mark.parametrize("apex", [-1, "n/a", None])
def test_samm_gives_no_apex_where_the_cell_is_no_frame_number(copied, apex):
    root = copied("samm")
    edit_workbook(root / "SAMM_Micro_FACS_Codes_v2.xlsx", lambda sheet: setattr(sheet["E15"], "value", apex))
    assert load("samm", root)["apex"].isna().tolist() == [True] + [False] * 5


def test_known_errors_of_samm_are_corrected_by_clip_and_only_where_the_value_is_wrong():
    rows = pd.DataFrame({"subject": ["032", "032"], "clip": ["032_3_1"] * 2, "apex": ["1930", "4930"], "offset": "4970"})
    assert correct(rows, "samm")["apex"].tolist() == ["", "4930"]


def test_dfme_has_three_splits_and_the_seven_emotions(releases):
    sheet = load("dfme", releases["dfme"])
    assert set(sheet["split"]) == {"test_a", "test_b"}  # of two subjects, none is left for training
    assert sheet["label"].nunique() == 7
    assert sheet["fps"].isna().all()


def test_dfme_takes_other_headers_tables_and_folders_from_the_configuration(copied):
    root = copied("dfme")
    before = load("dfme", root)
    for split in ("train", "test_a", "test_b"):
        table = pd.read_csv(root / f"{split}.csv", dtype=str)
        table = table.rename(columns={"clip": "Video_Name", "emotion": "Emotion Label"})
        table.to_excel(root / f"DFME_{split}.xlsx", index=False)
        (root / f"{split}.csv").unlink()
        for subject, clip in zip(table["subject"], table["Video_Name"], strict=True):
            (root / subject).mkdir(exist_ok=True)
            (root / "frames" / clip).rename(root / subject / clip)
    after = load(
        "dfme",
        root,
        tables={split: f"DFME_{split}.xlsx" for split in ("train", "test_a", "test_b")},
        columns={"clip": "videoname", "emotion": "emotion_label"},
        frames="{subject}/{clip}",
    )
    pd.testing.assert_frame_equal(after.drop(columns="source"), before.drop(columns="source"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frames": "frames/{video}"}, "frames: 'frames/{video}' has {video}; known are {subject}, {clip}, {split}"),
        ({"columns": {"label": "x"}}, "columns of adapter dfme: 'label' is none of subject, clip"),
        ({"tables": {"test_c": "c.csv"}}, "'test_c' is none of train, test_a, test_b"),
        ({"tables": {"train": "absent.csv"}}, "or set `tables.train` to its name"),
    ],
)
def test_wrong_settings_of_dfme_are_named(releases, settings, said):
    assert said in message("dfme", releases["dfme"], **settings)


def test_a_clip_of_dfme_in_two_splits_is_an_error(copied):
    root = copied("dfme")
    line = (root / "test_a.csv").read_text().splitlines()[1]
    with (root / "test_b.csv").open("a") as table:
        table.write(line + "\n")
    assert "is in two splits" in message("dfme", root)


def test_casme3_names_clips_by_video_and_onset_and_detects_a_lost_apex(releases):
    sheet = load("casme3", releases["casme3"])
    assert sheet["clip"].tolist() == ["b_166", "b_180", "j_170"]
    assert sheet["label"].tolist() == ["disgust", "happiness", "sadness"]
    assert sheet["apex"].tolist() == [175, 182, pd.NA]
    assert sheet.loc[0, "source"] == sheet.loc[1, "source"]
    assert set(load("casme3", releases["casme3"], task="3db")["label"]) == {"negative", "positive"}


def test_flow_images_give_three_datasets_of_one_read(releases):
    sheet = make_sheet(load("flow_images", releases["flow_images"]))
    assert sheet.groupby("dataset").size().to_dict() == {"casme2": 6, "samm": 6, "smic_hs": 6}
    assert set(sheet["kind"]) == {"flow"}
    assert all(Path(source).is_file() for source in sheet["source"])


def test_clips_are_used_whole_where_nothing_is_annotated(releases):
    folder, video = load("clips", releases["clips"]).astype(object).to_dict("records")
    numbers = open_clip(folder["source"], "frames").numbers
    assert (folder["kind"], folder["onset"], folder["offset"]) == ("frames", numbers[0], numbers[-1])
    assert (video["kind"], video["onset"], video["apex"], video["offset"]) == ("video", 0, 7, None)
    assert (folder["label"], video["label"]) == ("positive", "surprise")


# ---- the composite


def test_the_composite_has_442_clips_of_68_subjects():
    listed = composite()
    assert len(listed) == 442
    assert listed.groupby("dataset")["subject"].nunique().sum() == 68
    assert listed["label"].value_counts().to_dict() == {"negative": 250, "positive": 109, "surprise": 83}


def test_the_composite_is_the_list_of_the_public_flow():
    root = shared_data("megc2019_flow28")
    sheet = load("flow_images", root)
    columns = ["dataset", "subject", "clip", "label"]
    pd.testing.assert_frame_equal(sheet[columns], composite().astype("str").sort_values(columns, ignore_index=True))


def test_rows_of_a_clone_are_known_before_it_is_made(releases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"adapter": "flow_images", "root": None, "repository": "https://example.org/flow", "commit": "c0ffee"}
    before = load_dataset("public_flow", settings)
    assert len(before) == 442
    root = Path("results/public_flow/public_flow")
    (root / "datasets" / IMAGES).mkdir(parents=True)
    for source in before["source"]:
        Path(source).touch()
    names = {"smic_hs": "smic"}
    pd.DataFrame(
        {
            "dataset": before["dataset"].replace(names),
            "sub": before["subject"],
            "filename_o": before["clip"],
            "label": before["label"].map({"negative": 0, "positive": 1, "surprise": 2}),
        }
    ).to_csv(root / TABLE, index=False)
    pd.testing.assert_frame_equal(load_dataset("public_flow", settings), before)


def write_listed_samm(root, clips):
    """SAMM with one frame folder for each of the listed clips that are given."""
    rows = ["Subject,Filename,Onset Frame,Apex Frame,Offset Frame,Estimated Emotion"]
    emotions = {"negative": "Anger", "positive": "Happiness", "surprise": "Surprise"}
    for clip in clips.itertuples():
        (root / "SAMM" / clip.subject / clip.clip).mkdir(parents=True)
        rows.append(f"{int(clip.subject)},{clip.clip},1,2,3,{emotions[clip.label]}")
    (root / "SAMM" / "099" / "099_1_1").mkdir(parents=True)
    rows.append("99,099_1_1,1,2,3,Anger")
    (root / "SAMM_Micro_FACS_Codes_v2.csv").write_text("\n".join(rows))


def test_only_megc2019_keeps_exactly_the_listed_clips(tmp_path):
    write_listed_samm(tmp_path, composite("samm"))
    assert len(load("samm", tmp_path)) == 134
    sheet = load("samm", tmp_path, only="megc2019")
    assert set(sheet["clip"]) == set(composite("samm")["clip"])
    assert sheet["label"].value_counts().to_dict() == {"negative": 92, "positive": 26, "surprise": 15}


def test_listed_clips_that_a_copy_lacks_are_named_or_dropped(tmp_path):
    write_listed_samm(tmp_path, composite("samm")[2:])
    said = message("samm", tmp_path, only="megc2019")
    assert "2 of the 133 clips of MEGC2019" in said
    assert "006 006_1_2, 006 006_1_3" in said
    assert "missing: drop" in said
    assert len(load("samm", tmp_path, only="megc2019", missing="drop")) == 131


def test_listed_clips_of_smic_hs_are_found_although_the_list_pads_their_names(copied):
    sheet = load("smic_hs", copied("smic_hs"), only="megc2019", missing="drop")
    assert "s1_ne_01" in set(sheet["clip"])


# ---- what is said


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_wrong_root_is_named_with_the_part_that_is_missing_and_the_page(releases, adapter):
    root = releases[adapter].parent / f"{adapter}s" / "below"
    said = message(adapter, root)
    assert f"{releases[adapter].parent} has no '{adapter}s' (did you mean '{adapter}'?)" in said
    assert f"docs/datasets.md#{adapter}" in said


def test_every_page_that_errors_name_is_in_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()
    assert {f"## {adapter}" for adapter in ADAPTERS} <= set(text.splitlines())


@pytest.mark.parametrize(
    ("adapter", "table"),
    [("casme2", "CASME2-coding-20140508.xlsx"), ("samm", "SAMM_Micro_FACS_Codes_v2.xlsx")],
)
def test_a_missing_table_is_named_with_the_tables_that_are_there(copied, adapter, table):
    root = copied(adapter)
    (root / table).rename(root / f"my-{table}")
    said = message(adapter, root)
    assert f"expected the annotation table {table} (did you mean 'my-{table}'?)" in said
    assert len(load(adapter, root, annotations=f"my-{table}")) == 6


@pytest.mark.parametrize(("adapter", "raw"), [("smic_hs", "HS"), ("casme2", "CASME2-RAW"), ("samm", "SAMM")])
def test_missing_frames_are_named_with_what_is_there(copied, adapter, raw):
    root = copied(adapter)
    shutil.rmtree(root / raw)
    (root / "elsewhere").mkdir()
    said = message(adapter, root)
    assert raw in said
    assert "elsewhere" in said


def test_a_missing_column_is_named_with_the_nearest_one(copied):
    root = copied("casme2")
    table = root / "CASME2-coding-20140508.xlsx"
    edit_workbook(table, lambda sheet: setattr(sheet["E1"], "value", "ApexFram"))
    said = message("casme2", root)
    assert f"{table}: no header row with column 'ApexFrame' (did you mean 'ApexFram'?)" in said


def test_half_unpacked_frames_are_named_by_clip_and_folder(copied):
    root = copied("samm")
    shutil.rmtree(root / "SAMM" / "006" / "006_1_2")
    shutil.rmtree(root / "SAMM" / "007")
    said = message("samm", root)
    assert f"4 of the 6 annotated clips have no folder in {root / 'SAMM'}" in said
    assert "006 006_1_2 (006/006_1_2)" in said
    assert load("samm", root, missing="drop")["clip"].tolist() == ["006_1_1", "006_1_3"]


@pytest.mark.parametrize(
    ("adapter", "gone", "expected", "found"),
    [
        ("smic_hs", "HS/s2/micro", "HS/s2: expected folder micro", "found non_micro"),
        ("casme2", "CASME2-RAW/sub02", "3 of the 6 annotated clips have no folder in", "sub02 EP02_01f (sub02/EP02_01f)"),
        ("samm", "SAMM/007", "3 of the 6 annotated clips have no folder in", "007 007_1_1 (007/007_1_1)"),
        ("dfme", "test_b.csv", "expected the annotation table test_b.csv", "tables found there: test_a.csv, train.csv"),
        ("dfme", "frames/0001_001", "1 of the 14 annotated clips have no folder in", "0001_001 (frames/0001_001)"),
        ("casme3", "part_A/spNO.10", "1 of the 3 annotated clips have no folder in", "spNO.10 j_170 (spNO.10/J/color)"),
        ("flow_images", f"{IMAGES}/006_006_1_1 .png", "1 of the 18 images are not in", "'006_006_1_1 .png'"),
        ("clips", "ann/smile", "1 of the 2 sources in", "ann/smile"),
    ],
)
def test_what_a_half_unpacked_release_lacks_is_named_with_a_remedy(copied, adapter, gone, expected, found):
    root = copied(adapter)
    shutil.rmtree(root / gone) if (root / gone).is_dir() else (root / gone).unlink()
    said = message(adapter, root)
    assert str(root) in said
    assert expected in said
    assert found in said
    assert f"docs/datasets.md#{adapter}" in said


@pytest.mark.parametrize(
    ("adapter", "frames"), [("smic_hs", "HS"), ("casme2", "CASME2-RAW"), ("samm", "SAMM"), ("casme3", "part_A")]
)
def test_an_archive_that_was_not_unpacked_is_seen(copied, adapter, frames):
    root = copied(adapter)
    shutil.rmtree(root / frames)
    (root / f"{frames}.zip").write_bytes(b"PK")
    said = message(adapter, root)
    assert f"found {frames}.zip" in said or f", {frames}.zip" in said
    assert "Unpack the release there" in said


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
        ("B3", "EP01_01f", "rows 2 and 3: sub01 EP01_01f is there twice"),
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


def test_a_flow_image_that_is_missing_is_named(copied):
    root = copied("flow_images")
    (root / IMAGES / "006_006_1_1 .png").unlink()
    assert "'006_006_1_1 .png'" in message("flow_images", root)


def test_sources_of_clips_that_do_not_exist_are_named(copied):
    root = copied("clips")
    (root / "bob.mp4").rename(root / "rob.mp4")
    assert f"row 3: {root / 'bob.mp4'} (did you mean 'rob.mp4'?)" in message("clips", root)


def test_an_unknown_adapter_or_setting_is_named_with_the_nearest(tmp_path):
    with pytest.raises(MerbaError, match=r"datasets\.a: adapter 'sam' .*did you mean 'samm'"):
        load_dataset("a", {"adapter": "sam", "root": "."})
    with pytest.raises(MerbaError, match=r"datasets\.samm: unknown key 'varient' \(did you mean 'variant'\?\)"):
        load("samm", tmp_path, varient="raw")
    with pytest.raises(MerbaError, match=r"datasets\.a: set `root`"):
        load_dataset("a", {"adapter": "samm"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"variant": "croped"}, "raw, cropped"), ({"task": "5"}, "3db, emotion"), ({"missing": "skip"}, "error, drop")],
)
def test_a_wrong_value_of_a_setting_is_named_with_the_known_ones(releases, settings, said):
    assert said in message("casme2", releases["casme2"], **settings)


# ---- helpers


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("s1", "S01", True),
        ("EP02_01f", "ep2_1F", True),
        ("s10", "s1", False),
        ("006", "6", True),
        ("a100", "a1", False),
    ],
)
def test_names_are_compared_without_case_and_padding(name, other, same):
    assert (loose(name) == loose(other)) == same


def test_a_folder_finds_nested_children_loosely(tmp_path):
    (tmp_path / "Data" / "Sub01").mkdir(parents=True)
    assert Folder(tmp_path, "casme2").within("data/sub1").path == tmp_path / "Data" / "Sub01"
    assert Folder(tmp_path, "casme2").within("data/sub2") is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_tables_may_have_any_usual_delimiter(tmp_path, delimiter):
    path = tmp_path / "a.csv"
    path.write_text("some prose\n\nSub_ject,Clip Name\n006,a\n".replace(",", delimiter))
    rows = read_annotations(path, "samm", {"subject": "subject", "clip": "clip_name"})
    assert rows.to_dict("index") == {4: {"subject": "006", "clip": "a"}}


def test_notes_under_a_table_are_no_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("subject,clip\n1,a\n\n,\n* by two coders,\n")
    assert read_annotations(path, "samm", {"subject": "subject", "clip": "clip"}).index.tolist() == [2]


def test_a_table_in_a_chinese_code_page_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("subject,emotion\n1,高兴\n".encode("gb18030"))
    assert read_annotations(path, "dfme", {"emotion": "emotion"}).loc[2, "emotion"] == "高兴"


def test_a_changed_table_is_read_anew(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("subject\n1\n")
    read_annotations(path, "samm", {"subject": "subject"})
    path.write_text("subject\n2\n")
    assert read_annotations(path, "samm", {"subject": "subject"})["subject"].tolist() == ["2"]


def test_a_clone_holds_the_table_and_images_of_the_commit_and_nothing_else(releases, tmp_path):
    upstream = tmp_path / "upstream"
    shutil.copytree(releases["flow_images"] / IMAGES, upstream / "datasets" / IMAGES)
    shutil.copy(releases["flow_images"] / TABLE, upstream / TABLE)
    (upstream / "datasets" / "other").mkdir()
    (upstream / "datasets" / "other" / "large.bin").write_bytes(b"1")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        run = subprocess.run(["git", "-C", upstream, *identity, *arguments], check=True, capture_output=True, text=True)
        return run.stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "release")
    commit = git("rev-parse", "HEAD")
    (upstream / TABLE).write_text("later")
    git("commit", "--quiet", "--all", "--message", "later")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    git("config", "uploadpack.allowFilter", "true")

    clone(upstream.as_uri(), commit, tmp_path / "clone")
    assert len(load("flow_images", tmp_path / "clone")) == 18
    assert not (tmp_path / "clone" / "datasets" / "other").exists()
    with pytest.raises(MerbaError, match="git fetch .* failed"):
        clone(upstream.as_uri(), "0" * 40, tmp_path / "again")
