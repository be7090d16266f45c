"""The sample sheet: checks, safe ids, digests."""

import numpy as np
import pandas as pd
import pytest

from merba.errors import MerbaError
from merba.sheet import (
    PREPROCESSING,
    columns,
    digest,
    from_plain_rows,
    make_sheet,
    plain_rows,
    rows_by_subject,
    safe_id,
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
        ([row(), row(clip="b")], "row 2 (smic_hs s01 b, source data/s1_ne_01): another clip has the same onset, apex and offset"),
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
    sheet = make_sheet(pd.DataFrame([row(), row(clip="b", source="b")]))
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
