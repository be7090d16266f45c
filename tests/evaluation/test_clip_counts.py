"""Counts compared with the paper's Tables II and III: equal if the data is the paper's, with differences marked."""

import pandas as pd
import pytest

from merba.datasets.tasks import composite, dfme_datasets
from merba.evaluation.clip_counts import sheet_summary, side_by_side, table_2, table_3
from merba.evaluation.published import published


@pytest.fixture
def dfme():
    """As many clips of each split and class as the paper's Table II has."""
    counts = published("table_2_dfme_counts").set_index("split").drop(columns="total").stack()
    rows = [(split, label) for (split, label), count in counts.items() for _ in range(count)]
    sheet = pd.DataFrame(rows, columns=["split", "label"])
    return sheet.assign(dataset="dfme", subject="s", clip=[f"c{n}" for n in range(len(sheet))])


def counted(table):
    return table[table["source"] == "counted"].set_index(table.columns[0])


def test_the_composite_has_the_paper_s_counts_of_table_3():
    table = table_3(composite(), "3db")
    assert (counted(table)["differs"] == "").all()
    ours, paper = (table[table["source"] == source].iloc[:, :5] for source in ("counted", "published"))
    pd.testing.assert_frame_equal(ours, paper)


def test_a_clip_that_is_missing_or_of_another_class_is_marked_where_it_counts():
    lacking = composite()[lambda rows: rows["clip"] != "006_1_2"]
    (label,) = composite()[lambda rows: rows["clip"] == "006_1_2"]["label"]
    differs = counted(table_3(lacking, "3db"))["differs"]
    assert differs["total"] == "samm 132, not 133; combined 441, not 442"
    assert set(differs[differs != ""].index) == {label, "total"}


MINE = pd.DataFrame({"dataset": "mine", "subject": "s", "clip": ["a", "b"], "label": ["joy", "surprise"]})


def test_datasets_and_classes_that_the_paper_does_not_have_stand_behind_its_own():
    table = table_3(pd.concat([composite(), MINE]), "own")
    assert list(table.columns[:6]) == ["class", "smic_hs", "casme2", "samm", "mine", "combined"]
    ours = counted(table)
    assert ours.index.tolist() == ["negative", "positive", "surprise", "joy", "total"]
    assert ours["mine"].tolist() == [0, 0, 1, 1, 2]
    assert (ours["differs"] == "").all(), "the sum with other clips is not the paper's"
    assert table.loc[table["source"] == "published", ["mine", "combined"]].isna().all(axis=None)


def test_a_run_without_the_papers_datasets_has_none_of_them_in_table_3():
    table = table_3(MINE, "own")
    assert list(table.columns) == ["class", "mine", "combined", "source", "data", "differs"]
    assert table["class"].tolist() == ["joy", "surprise", "total"]
    assert set(table["source"]) == {"counted"}
    assert "≠" not in side_by_side(table)


def test_a_run_with_one_of_the_papers_datasets_is_compared_with_that_one():
    table = table_3(composite("samm"), "own")
    assert list(table.columns[:3]) == ["class", "samm", "combined"]
    assert counted(table)["combined"].tolist() == counted(table)["samm"].tolist() == [92, 26, 15, 133]
    assert (counted(table)["differs"] == "").all()
    paper = table[table["source"] == "published"]
    assert paper["samm"].tolist() == [92, 26, 15, 133] and paper["combined"].isna().all()


def test_unusable_clips_are_counted_by_dataset_and_split(dfme):
    problems = composite().query("dataset == 'samm'").head(2).assign(problem="no face")
    row = counted(table_3(composite(), "3db", problems)).loc["unusable"]
    assert row[["smic_hs", "casme2", "samm", "combined"]].tolist() == [0, 0, 2, 2]
    problems = dfme[dfme["split"] == "test_b"].head(3).assign(problem="no face")
    table = counted(table_2(dfme, "dfme", problems))
    assert table["unusable"].to_dict() == {"train": 0, "test_a": 0, "test_b": 3}


def test_table_2_counts_splits_by_class(dfme):
    table = table_2(dfme, "dfme")
    assert (counted(table)["differs"] == "").all()
    assert counted(table)["total"].to_dict() == {"train": 1856, "test_a": 474, "test_b": 299}
    differs = counted(table_2(dfme.iloc[1:], "dfme"))["differs"]
    assert differs.tolist() == ["anger 160, not 161; total 1855, not 1856", "", ""]


def test_the_text_shows_the_paper_s_number_only_where_it_is_another_one():
    text = side_by_side(table_3(composite().iloc[:-1], "3db")).splitlines()
    assert text[-1].split() == ["total", "163", "≠", "164", "145", "133", "441", "≠", "442"]
    assert "≠" not in side_by_side(table_3(composite(), "3db"))


def test_the_summary_has_one_row_a_dataset():
    sheet = pd.DataFrame(
        {
            "dataset": ["a", "a", "b"],
            "subject": ["1", "1", "1"],
            "kind": ["frames", "video", "flow"],
            "label": ["x", "y", "x"],
            "apex": pd.array([3, None, None], "Int64"),
            "fps": [200.0, 300.0, None],
        }
    )
    rows = sheet_summary(sheet).to_dict("records")
    assert rows[0] == {"dataset": "a", "subjects": 1, "clips": 2, "without_apex": 1, "fps": "200, 300", "classes": "1 x, 1 y"}
    assert (rows[1]["fps"], rows[1]["without_apex"]) == ("unknown", 0)


def test_datasets_of_table_2_are_those_with_the_adapter_dfme():
    assert dfme_datasets({"datasets": {"mine": {"adapter": "dfme"}, "samm": {"adapter": "samm"}}}) == ["mine"]
