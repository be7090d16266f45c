"""Paths to clips: videos, folders of frames, folders of clips, tables; clips that can't be used keep their place."""

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from moving_faces import video

from merba.datasets.clips import read
from merba.errors import MerbaError
from merba.frames import open_clip
from merba.prediction.clips import find_clips, numbered_stem


def frames(folder, numbers=range(1, 5)):
    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"img{number}.png"), np.zeros((8, 8, 3), np.uint8))
    return folder


def test_videos_and_folders_of_frames_are_clips(tmp_path):
    rows = find_clips([video(tmp_path / "a.avi"), str(frames(tmp_path / "b"))], fps=100)
    assert rows["clip"].tolist() == ["a.avi", "b"]
    assert rows["kind"].tolist() == ["video", "frames"]
    assert rows["fps"].tolist() == [100, 100]
    assert rows["problem"].isna().all()
    assert rows["subject"].nunique() == 2


def test_the_frame_rate_given_overrides_the_videos_and_the_tables(tmp_path):
    clip = video(tmp_path / "a.avi")
    (tmp_path / "clips.csv").write_text("subject,clip,source,fps\ns,1,a.avi,25\ns,2,a.avi,\n")
    paths = [clip, tmp_path / "clips.csv"]
    assert find_clips(paths)["fps"].tolist() == [50, 25, 50]
    assert find_clips(paths, fps=120)["fps"].tolist() == [120, 120, 120]


@pytest.mark.parametrize(("written", "stored"), [("zo\u00e9", "zoe\u0301"), ("zoe\u0301", "zo\u00e9")])
def test_accented_names_are_found_however_they_are_composed(tmp_path, written, stored):
    (tmp_path / stored).mkdir()
    video(tmp_path / stored / f"{stored}.avi")
    (tmp_path / "clips.csv").write_text(f"subject,clip,source,emotion\ns,1,{written}/{written}.avi,happiness\n")
    assert find_clips([tmp_path / "clips.csv"])["problem"].isna().all()
    source = read(tmp_path, name="own")["source"].item()
    assert source == str(tmp_path / stored / f"{stored}.avi")


def test_every_clip_in_a_folder_is_taken_and_what_is_left_out_is_said(tmp_path, caplog):
    """A usual folder tree: videos of several cameras, frames of subjects' episodes, and other files."""
    for name in ("z.avi", "a.mp4", "b.MTS", "c.3gp", "sub01/take.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        video(tmp_path / name, 40)
    frames(tmp_path / "sub01" / "EP01")
    frames(tmp_path / "sub02" / "EP02_01f")
    left_out = ["notes.txt", "poster.jpg", "._a.mp4", "sub01/EP01/Thumbs.db"]
    for name in left_out:
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "sub02" / "loop").symlink_to(tmp_path)
    rows = find_clips([tmp_path])
    assert rows["problem"].isna().all()
    clips = ["a.mp4", "b.MTS", "c.3gp", "sub01/EP01", "sub01/take.webm", "sub02/EP02_01f", "z.avi"]
    assert rows["clip"].tolist() == clips
    assert rows["source"].tolist() == [str(tmp_path / clip) for clip in clips]
    assert rows["kind"].tolist() == ["frames" if "EP" in clip else "video" for clip in clips]
    said = sorted(record.message for record in caplog.records)
    paths = sorted(str(tmp_path / name) for name in [*left_out, "empty", "sub02/loop"])
    assert len(said) == len(paths)
    for message, path in zip(said, paths, strict=True):
        assert message.startswith(f"{path} ")
        assert message.endswith("left out")


@pytest.mark.parametrize("suffix", ["asf", "flv", "m2ts", "m4v", "mkv", "mov", "mpeg", "mpg", "mxf", "ogv", "ts", "vob", "wmv"])
def test_videos_of_the_usual_containers_are_read(tmp_path, suffix):
    rows = find_clips([video(tmp_path / f"a.{suffix}", 40)])
    assert rows["problem"].isna().all()
    assert rows["fps"].item() == 50
    assert len(list(open_clip(rows["source"].item(), "video").frames())) == 40


def test_a_table_names_subjects_and_frames(tmp_path):
    video(tmp_path / "a.avi")
    frames(tmp_path / "b")
    table = tmp_path / "clips.csv"
    table.write_text("subject,clip,source,onset,apex,offset,fps\ns1,first,a.avi,,,,25\ns1,second,b,1,2,4,\n")
    rows = find_clips([table])
    assert rows[["subject", "clip"]].to_numpy().tolist() == [["s1", "first"], ["s1", "second"]]
    assert rows["fps"][0] == 25
    assert rows.loc[1, ["onset", "apex", "offset"]].tolist() == [1, 2, 4]
    assert rows.loc[0, ["onset", "apex", "offset"]].isna().all()


def test_a_faulty_row_of_a_table_does_not_hide_the_others(tmp_path):
    video(tmp_path / "a.avi")
    table = tmp_path / "clips.csv"
    table.write_text("subject,clip,source,onset,apex\ns,1,a.avi,x,\ns,2,gone.avi,,\ns,3,a.avi,3,2\ns,4,a.avi,0,2\n")
    problems = find_clips([table])["problem"]
    assert "row 2: onset 'x' is not a frame number" in problems[0]
    assert "gone.avi does not exist" in problems[1]
    assert "onset 3 is not before apex 2" in problems[2]
    assert pd.isna(problems[3])


@pytest.mark.parametrize("apex", ["", "/", "-1", "unclear"])
def test_an_apex_that_is_not_known_is_none_as_in_the_tables_of_releases(tmp_path, apex):
    video(tmp_path / "a.avi")
    (tmp_path / "clips.csv").write_text(f"subject,clip,source,onset,apex\ns,1,a.avi,0,{apex}\ns,2,a.avi,0,2\n")
    rows = find_clips([tmp_path / "clips.csv"])
    assert rows["problem"].isna().all()
    assert rows["apex"].tolist() == [pd.NA, 2]


@pytest.mark.parametrize(
    ("key", "text"),
    [("fps", "inf"), ("fps", "1,000"), ("bits", "32"), ("bits", "12.5"), ("apex", "7 or so"), ("onset", "-1"), ("apex", "1_0")],
)
def test_what_is_no_number_is_a_problem_of_its_clip(tmp_path, key, text):
    video(tmp_path / "a.avi")
    (tmp_path / "clips.csv").write_text(f'subject,clip,source,{key}\ns,1,a.avi,"{text}"\n')
    number = "a frame number" if key in ("onset", "apex") else "a number"
    assert f"row 2: {key} {text!r} is not {number}" in find_clips([tmp_path / "clips.csv"])["problem"][0]


def test_a_table_sets_the_bits_of_images_as_the_workflows_does(tmp_path):
    frames(tmp_path / "a")
    (tmp_path / "clips.csv").write_text("subject,clip,source,emotion,bits\ns,1,a,happiness,12\ns,2,a,anger,\n")
    for rows in (find_clips([tmp_path / "clips.csv"]), read(tmp_path, name="own")):
        assert rows["bits"].tolist() == [12, pd.NA]
    (tmp_path / "clips.csv").write_text("subject,clip,source,emotion,bits\ns,1,a,happiness,32\n")
    with pytest.raises(MerbaError, match="row 2: bits '32' is not a number from 8 to 16"):
        read(tmp_path, name="own")


def test_a_table_may_be_a_workbook(tmp_path):
    video(tmp_path / "a.avi")
    workbook = openpyxl.Workbook()
    for row in (["subject", "clip", "source", "onset", "apex"], ["s", "1", "a.avi", 0, 2]):
        workbook.active.append(row)
    workbook.save(tmp_path / "clips.xlsx")
    (row,) = find_clips([tmp_path / "clips.xlsx"]).itertuples()
    assert (row.subject, row.clip, row.onset, row.apex, row.problem) == ("s", "1", 0, 2, None)
    assert row.source == str(tmp_path / "a.avi")


def test_a_table_without_its_columns_is_an_error(tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("subject,file\ns,a.avi\n")
    with pytest.raises(MerbaError, match="clips.csv: no header row with column 'clip', 'source'"):
        find_clips([table])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.mp4", None, "gone.mp4 does not exist"),
        ("notes.txt", "x", "notes.txt can't be decoded: it is damaged, or not a video that FFmpeg reads"),
        ("a.png", "x", "a.png is a single image"),
        ("bad.mp4", "x", "bad.mp4 can't be decoded"),
    ],
)
def test_what_is_no_clip_has_a_problem(tmp_path, name, content, message):
    if content:
        (tmp_path / name).write_text(content)
    assert message in find_clips([tmp_path / name])["problem"][0]


def test_an_empty_folder_has_a_problem(tmp_path, caplog):
    assert "holds no numbered image" in find_clips([tmp_path])["problem"][0]
    assert not caplog.records, "it is not left out"


def test_clips_of_one_name_are_told_apart_by_their_paths(tmp_path):
    folders = [frames(tmp_path / subject / "EP01") for subject in ("sub01", "sub02")]
    assert find_clips([*folders, frames(tmp_path / "EP02")])["clip"].tolist() == [*map(str, folders), "EP02"]


@pytest.mark.parametrize(
    ("rows", "message"), [("", "clips.csv lists no clips"), ("s,1,\n", "row 2: source is empty")], ids=["no row", "no source"]
)
def test_a_table_without_clips_or_without_a_clips_source_is_an_error(tmp_path, rows, message):
    frames(tmp_path / "clips")
    (tmp_path / "clips" / "clips.csv").write_text(f"subject,clip,source\n{rows}")
    with pytest.raises(MerbaError, match=message):
        find_clips([tmp_path / "clips" / "clips.csv"])


def test_onset_and_apex_are_for_one_clip(tmp_path):
    clip = video(tmp_path / "a.avi")
    rows = find_clips([clip], onset=1, apex=2)
    assert rows.loc[0, ["onset", "apex"]].tolist() == [1, 2]
    with pytest.raises(MerbaError, match="is given for 2 clips; give each clip its own in a table"):
        find_clips([clip, clip], onset=1)


@pytest.mark.parametrize(("kind", "first"), [("video", 0), ("frames", 7)])
def test_a_clip_whose_apex_alone_is_given_begins_with_its_first_frame(tmp_path, kind, first):
    clip = video(tmp_path / "a.avi", 12) if kind == "video" else frames(tmp_path / "b", range(7, 12))
    assert find_clips([clip], apex=9).loc[0, "onset"] == first


def test_no_clip_at_all_is_an_error():
    with pytest.raises(MerbaError, match="no clips were given"):
        find_clips([])


@pytest.mark.parametrize(
    ("clip", "stem"),
    [
        ("006_1_2", "007_006_1_2"),
        ("my clip.MP4", "007_my-clip"),
        ("a/b.c", "007_a-b-c"),
        ("日本.mp4", "007"),
        ("x" * 99, "007_" + "x" * 60),
    ],
)
def test_a_number_tells_files_apart_without_hashes(clip, stem):
    assert numbered_stem(7, clip) == stem
