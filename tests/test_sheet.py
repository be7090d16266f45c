"""The sample sheet: checks, safe ids, digests."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merba.errors import MerbaError
from merba.sheet import (
    PREPROCESSING,
    check_subjects_apart,
    columns,
    digest,
    from_plain_rows,
    make_sheet,
    plain_rows,
    rows_by_subject,
    safe_id,
    sample_rows,
    subject_rows,
)


def row(**changes):
    return {
        "dataset": "smic_hs",
        "subject": "s01",
        "clip": "s1_ne_01",
        "source": "data/s1_ne_01",
        "kind": "frames",
        "onset": 1,
        "apex": None,
        "offset": 20,
        "fps": 100.0,
        "bits": None,
        "emotion": "negative",
        "label": "negative",
        "split": "all",
    } | changes


def test_a_good_sheet_keeps_its_rows_and_gets_nullable_integers():
    sheet = make_sheet(pd.DataFrame([row(), row(clip="b", apex=7, fps=np.nan)]))
    assert list(sheet.columns) == list(columns())
    assert sheet["apex"].isna().tolist() == [True, False]
    assert sheet["apex"].dtype == "Int64"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], "row 2 (smic_hs s01 s1_ne_01, source data/s1_ne_01): this clip is listed twice"),
        ([row(onset=9, apex=9)], "onset 9 is not before apex 9"),
        ([row(apex=30)], "apex 30 is not before offset 20"),
        ([row(onset=None, apex=9)], "it has an apex but no onset"),
        ([row(kind="film")], "kind must be one of"),
        ([row(subject="")], "subject must be longer"),
    ],
)
def test_a_bad_row_is_named_with_its_fault(rows, message):
    with pytest.raises(MerbaError) as caught:
        make_sheet(pd.DataFrame(rows))
    assert message in str(caught.value)


def test_all_faults_are_listed_at_once():
    with pytest.raises(MerbaError) as caught:
        make_sheet(pd.DataFrame([row(onset=9, apex=9), row(clip="b", kind="film")]))
    assert "row 1" in str(caught.value)
    assert "row 2" in str(caught.value)


def test_a_missing_column_is_named():
    with pytest.raises(MerbaError, match="missing column label"):
        make_sheet(pd.DataFrame([row()]).drop(columns="label"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("S01", "s01"),
        ("001", "1"),
        ("Ann B", "ann b"),
        ("spNO.1", "spNO.01"),
        (" s1", "s 1 "),
        ("zo\u00e9", "zoe\u0301"),
        ("Ann\u200b", "Ann"),
    ],
)
def test_subjects_that_differ_in_case_zeros_or_spaces_alone_are_refused_with_both_named(one, other):
    sheet = pd.DataFrame([row(subject=one), row(subject=other, clip="b", source="b")])
    with pytest.raises(MerbaError) as caught:
        make_sheet(sheet)
    assert all(repr(name) in str(caught.value) for name in (one, other))


@pytest.mark.parametrize(("one", "other"), [("1 12", "11 2"), ("s0", "s00x"), ("10", "1"), ("a_1", "a1"), ("0", "10")])
def test_subjects_that_differ_in_more_are_two(one, other):
    assert len(make_sheet(pd.DataFrame([row(subject=one), row(subject=other, clip="b", source="b")]))) == 2


def test_datasets_may_have_subjects_of_one_name():
    assert len(make_sheet(pd.DataFrame([row(subject="1"), row(subject="01", dataset="samm", source="b")]))) == 2


def frames_of(subject, onset=None, offset=None, **changes):
    return row(subject=subject, clip=f"{subject}_{onset}", source="one", onset=onset, offset=offset, **changes)


@pytest.mark.parametrize(
    "clips",
    [
        [frames_of("ann"), frames_of("bob")],
        [frames_of("ann", 1, 20), frames_of("bob", 20, 30)],
        [frames_of("bob", 5, 6), frames_of("ann", 1, 20), frames_of("ann", 30, 40)],
        [frames_of("ann", 0), frames_of("bob", 900, 950)],  # to the end of a video
        [frames_of("ann", 1, 20), frames_of("ann", 2, 9), frames_of("bob", 12, 30)],
        [frames_of("ann"), frames_of("bob") | {"source": "./one"}],
        [frames_of("ann", dataset="casme2"), frames_of("ann", dataset="samm") | {"clip": "bob"}],
    ],
)
def test_frames_that_two_subjects_share_are_refused_with_both_named(clips):
    with pytest.raises(MerbaError, match=r"one: .* and .* share frames of it, but are two subjects") as caught:
        check_subjects_apart(make_sheet(pd.DataFrame(clips)))
    assert "ann" in str(caught.value)
    assert "bob" in str(caught.value)


def test_a_subject_may_use_frames_twice_and_two_subjects_parts_of_one_recording():
    clips = [frames_of("ann", 1, 20), frames_of("ann", 10, 30), frames_of("bob", 31, 40), frames_of("ann", 41, 50)]
    check_subjects_apart(make_sheet(pd.DataFrame(clips)))


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_hides_no_shared_frames(tmp_path, link):
    (tmp_path / "a.mp4").touch()
    getattr(tmp_path / "b.mp4", link)(tmp_path / "a.mp4")
    clips = [frames_of(name) | {"source": str(tmp_path / f"{file}.mp4")} for name, file in (("ann", "a"), ("bob", "b"))]
    with pytest.raises(MerbaError, match=r"ann.*bob.* share frames"):
        check_subjects_apart(make_sheet(pd.DataFrame(clips)))


INTERVAL = st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 30), st.none() | st.integers(0, 30))


@given(st.lists(INTERVAL, max_size=6))
def test_shared_frames_are_those_that_a_comparison_of_all_pairs_finds(intervals):
    clips = [(who, first, last) for who, first, last in intervals if first is None or last is None or first <= last]
    frames = [(who, set(range(first or 0, 31 if last is None else last + 1))) for who, first, last in clips]
    shared = any(mine & theirs for one, mine in frames for other, theirs in frames if one != other)
    sheet = sample_rows([frames_of(who, first, last) for who, first, last in clips] or [frames_of("a")])
    try:
        check_subjects_apart(sheet)
    except MerbaError:
        assert shared
    else:
        assert not shared


@pytest.mark.parametrize("name", ["s01", "006", "sub-1_a"])
def test_plain_names_are_their_own_ids(name):
    assert safe_id(name) == name


def test_other_names_get_distinct_ids_that_are_one_path_component():
    names = ["a b", "a/b", "a.b", "..", "-rf", "é", "日本", "a\nb", "'", "x" * 300, ""]
    ids = [safe_id(name) for name in names]
    assert len(set(ids)) == len(names)
    assert all(identity.replace("-", "").replace("_", "").isalnum() and identity.isascii() for identity in ids)
    assert not any(identity.startswith("-") for identity in ids)


def test_a_digest_depends_on_content_alone():
    sheet = make_sheet(pd.DataFrame([row(), row(clip="b")]))
    moved = sheet.set_index(pd.Index([5, 9]))
    assert digest(sheet, PREPROCESSING) == digest(moved, PREPROCESSING)
    assert digest(sheet, PREPROCESSING) == digest(sheet.assign(label="positive"), PREPROCESSING)
    assert digest(sheet, PREPROCESSING) != digest(sheet.assign(apex=8), PREPROCESSING)


def test_plain_rows_keep_their_values_types_and_subjects():
    sheet = make_sheet(pd.DataFrame([row(subject="spNO.1"), row(subject="s02", clip="b", apex=7)]))
    grouped = rows_by_subject(sheet, PREPROCESSING)
    assert list(grouped) == [("smic_hs", "s02"), ("smic_hs", safe_id("spNO.1"))]
    (plain,) = grouped["smic_hs", "s02"]
    assert repr(plain["apex"]) == "7"  # as Snakemake writes and compares it
    assert grouped["smic_hs", safe_id("spNO.1")][0]["apex"] is None
    pd.testing.assert_frame_equal(from_plain_rows(plain_rows(sheet, PREPROCESSING)), sheet[PREPROCESSING], check_dtype=False)
    assert from_plain_rows([plain])["apex"].dtype == "Int64"


def test_the_rows_of_a_subject_are_found_by_its_id():
    sheet = make_sheet(pd.DataFrame([row(subject="spNO.1"), row(subject="s02", clip="b")]))
    assert subject_rows(sheet, "smic_hs", safe_id("spNO.1"))["clip"].tolist() == ["s1_ne_01"]
    with pytest.raises(MerbaError, match="no subject 'nobody'"):
        subject_rows(sheet, "smic_hs", "nobody")
