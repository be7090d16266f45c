"""Adapters: each layout with its quirks, and the messages about a copy that differs."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from releases import WRITERS, edit_workbook, load, message, planned
from shared_data import shared_data

from merba.datasets import ADAPTERS, load_dataset
from merba.datasets.annotations import CORRECTABLE, CORRECTIONS, correct, read_annotations
from merba.datasets.flow_images import IMAGES, TABLE, clone
from merba.datasets.layout import Folder
from merba.datasets.tasks import composite
from merba.errors import MerbaError
from merba.frames import open_clip
from merba.sheet import loose, make_sheet

RENDERED = ["smic_hs", "casme2", "samm", "dfme"]


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


@pytest.mark.parametrize(
    ("adapter", "folder", "other"),
    [
        ("smic_hs", "HS/s1", "S001"),
        ("casme2", "CASME2-RAW/sub01", "sub1"),
        ("casme2", "CASME2-RAW", "casme2-raw"),
        ("samm", "SAMM/006", "6"),
        ("samm", "SAMM/006/006_1_2", "6_1_2"),
        ("dfme", "frames/0001_002", "1_2"),
        ("casme3", "part_A/spNO.1", "SPNO.01"),
    ],
)
def test_padding_and_case_of_folders_and_extensions_do_not_matter(copied, adapter, folder, other):
    root = copied(adapter)
    before = load(adapter, root)
    (root / folder).rename((root / folder).with_name(other))
    for frame in [path for path in root.rglob("*.*") if path.suffix in (".jpg", ".bmp")]:
        frame.rename(frame.with_suffix(frame.suffix.upper()))
    after = load(adapter, root)
    pd.testing.assert_frame_equal(after.drop(columns="source"), before.drop(columns="source"))
    assert after["source"].str.contains(f"/{other}").any()
    for clip in after.itertuples():
        assert {clip.onset, clip.offset} <= set(open_clip(clip.source, "frames").numbers)


@pytest.mark.parametrize(
    ("adapter", "frames"),
    [("smic_hs", "HS"), ("casme2", "CASME2-RAW"), ("samm", "SAMM"), ("casme3", "part_A"), ("flow_images", IMAGES)],
)
def test_frames_may_lie_a_folder_deeper_as_archives_unpack_them(copied, adapter, frames):
    root = copied(adapter)
    before = load(adapter, root)
    (root / frames).rename(root / "archive")
    (root / frames / "__MACOSX").mkdir(parents=True)
    (root / "archive").rename(root / frames / "Frames of the release")
    after = load(adapter, root)
    pd.testing.assert_frame_equal(after.drop(columns="source"), before.drop(columns="source"))


def test_the_wrong_offset_of_casme2s_row_61_is_corrected_only_in_the_table_as_released(caplog):
    rows = pd.DataFrame({"subject": "sub04", "clip": [f"EP{n}" for n in range(255)], "apex": "/", "offset": "5"})
    with caplog.at_level("INFO"):
        assert correct(rows, "casme2")["offset"].tolist() == ["5"] * 60 + ["91"] + ["5"] * 194
    assert "(sub04 EP60), offset: '5' becomes '91': Row 61 of CASME2-coding-20140508 has a wrong offset" in caplog.text
    assert set(correct(rows[:247], "casme2")["offset"]) == {"5"}
    assert set(correct(rows.assign(apex="3"), "casme2")["offset"]) == {"5"}, "another clip is in this row"


def test_every_known_correction_says_why():
    known = pd.read_csv(CORRECTIONS, dtype=str, keep_default_na=False)
    assert (known["reason"] != "").all()
    assert set(known["adapter"]) <= set(CORRECTABLE)


def test_samm_finds_its_header_under_the_prose_and_pads_its_subjects(releases):
    sheet = load("samm", releases["samm"])
    assert set(sheet["subject"]) == {"006", "007"}
    assert set(sheet["emotion"]) <= {"Anger", "Contempt", "Disgust", "Fear", "Sadness", "Happiness", "Surprise"}


def test_an_apex_may_be_written_as_pandas_writes_a_column_with_gaps(copied, caplog):
    root = copied("clips")
    before = load("clips", root)
    table = pd.read_csv(root / "clips.csv")
    assert (root / "clips.csv").read_text().count(".0") == 0
    table["Apex"] = table["Apex"].astype(float)
    table.to_csv(root / "clips.csv", index=False)
    assert ".0" in (root / "clips.csv").read_text()
    pd.testing.assert_frame_equal(load("clips", root), before)
    assert not caplog.records
    text = (root / "clips.csv").read_text().replace("7.0", "unclear")
    (root / "clips.csv").write_text(text)
    assert load("clips", root)["apex"].isna().all()
    assert "apex 'unclear' is not a frame number: it will be detected" in caplog.text


def test_a_table_of_no_clips_gives_none(copied):
    root = copied("clips")
    header = (root / "clips.csv").read_text().splitlines()[0]
    (root / "clips.csv").write_text(header + "\n")
    assert load("clips", root).empty


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
    assert set(sheet["split"]) == {"test_a", "test_b"}  # with two subjects, none is left for training
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
        (
            {"frames": "frames/{clip"},
            "frames: 'frames/{clip' is not a path with names in braces (expected '}' before end of string)",
        ),
        ({"frames": "{}"}, "frames: '{}' is not a path with names in braces"),
        ({"frames": "{0}"}, "frames: '{0}' is not a path with names in braces"),
        ({"frames": "{clip.x}"}, "frames: '{clip.x}' is not a path with names in braces"),
        ({"frames": "{clip[x]}"}, "frames: '{clip[x]}' is not a path with names in braces"),
        ({"frames": "{clip:d}"}, "frames: '{clip:d}' is not a path with names in braces"),
        ({"frames": ""}, "frames: the path is empty"),
        ({"columns": {"label": "x"}}, "columns of adapter dfme: 'label' is unknown; choose one of subject, clip"),
        ({"tables": {"test_c": "c.csv"}}, "'test_c' is unknown (did you mean 'test_b'?); choose one of train, test_a, test_b"),
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


def test_casme3_is_read_from_its_cut_clips_and_known_mistakes_of_its_table_are_corrected(copied, caplog):
    """The small download has one folder per clip; that of the mistyped onset may have either number."""
    root = copied("casme3")
    video, frames = root / "part_A" / "spNO.1" / "b" / "color", root / "Part_A_ME_clip" / "frame"
    for name in ("spNO.1_b_166", "spNO.1_b_180", "spNO.10_j_170", "spNO.216_d_2647", "spNO.216_e_0"):
        shutil.copytree(video, frames / name)
        shutil.copytree(video, root / "Part_A_ME_clip" / "depth" / name)
    shutil.rmtree(root / "part_A")

    def add(sheet):
        sheet.append(["spNO.216", "d", 3647, 2668, 2694, 4, "I", "fear"])
        sheet.append(["spNO.216", "e", 0, 0, 25, 4, "I", "fear"])

    edit_workbook(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", add)
    with caplog.at_level("INFO"):
        sheet = load("casme3", root)
    assert "row 6 (spNO.216 d_3647), onset: '3647' becomes '2647': Mistyped" in caplog.text
    assert sheet["clip"].tolist() == ["b_166", "b_180", "j_170", "d_2647", "e_1"]
    assert sheet["onset"].tolist() == [166, 180, 170, 2647, 1]
    assert sheet["apex"].tolist() == [175, 182, pd.NA, 2668, pd.NA]
    assert sorted(sheet["source"]) == sorted(map(str, frames.iterdir()))
    pd.testing.assert_frame_equal(load("casme3", root, frames="Part_A_ME_clip"), sheet)
    (frames / "spNO.216_d_2647").rename(frames / "spNO.216_d_3647")
    assert load("casme3", root)["source"][3] == str(frames / "spNO.216_d_3647")


def test_a_correction_is_for_the_wrong_value_alone(copied):
    root = copied("casme3")
    edit_workbook(
        root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        lambda sheet: sheet.append(["spNO.216", "d", 3648, 2668, 2694, 4, "I", "fear"]),
    )
    assert "row 6 (spNO.216 d_3648): onset 3648 is not before offset 2694" in message("casme3", root)


def test_the_table_of_casme3_may_lie_in_its_folder_annotation(copied):
    root = copied("casme3")
    before = load("casme3", root)
    (root / "annotation").mkdir()
    table = root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
    table.rename(root / "annotation" / table.name)
    pd.testing.assert_frame_equal(load("casme3", root), before)


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
    """Write SAMM with a frame folder for each of the given clips."""
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


def test_every_listed_clip_that_a_copy_lacks_is_named(tmp_path):
    write_listed_samm(tmp_path, composite("samm")[100:])
    said = message("samm", tmp_path, only="megc2019")
    assert all(clip in said for clip in composite("samm")["clip"][:100])


def test_listed_clips_of_smic_hs_are_found_although_the_list_pads_their_names(copied):
    sheet = load("smic_hs", copied("smic_hs"), only="megc2019", missing="drop")
    assert "s1_ne_01" in set(sheet["clip"])


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


def test_a_folder_reaches_nested_children_loosely_and_says_where_a_path_breaks_off(tmp_path):
    (tmp_path / "Data" / "Sub01").mkdir(parents=True)
    folder, missing = Folder(tmp_path, "casme2").reach(["data", "sub1"])
    assert (folder.path, missing) == (tmp_path / "Data" / "Sub01", None)
    folder, missing = Folder(tmp_path, "casme2").reach(["data", "sub2", "EP01"])
    assert (folder.path, missing) == (tmp_path / "Data", "sub2")


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
    assert not (tmp_path / "again").exists(), "what is not whole is not there"
    clone(upstream.as_uri(), commit, tmp_path / "again")
    assert len(load("flow_images", tmp_path / "again")) == 18
