"""Detected against annotated apexes: the detection doesn't see annotations, and the summary is right."""

import pandas as pd
import pytest

from merba.config import complete
from merba.datasets.demo.planning import plan
from merba.datasets.demo.rendering import render
from merba.errors import MerbaError
from merba.preprocessing.apex_check import apex_differences, difference_summary, histogram

DIFFERENCES = pd.DataFrame(
    {
        "dataset": ["a"] * 4 + ["b"] * 2,
        "difference": pd.array([0, -3, 2, 1, 25, None], "Int64"),
        "problem": [None] * 5 + ["no face"],
    }
)


def test_the_summary_of_differences_has_a_row_for_each_dataset_and_all():
    rows = difference_summary(DIFFERENCES).set_index("dataset")
    assert rows.loc["a"].to_dict() == {"n": 4, "median": 0.5, "mean_absolute": 1.5, "within_2": 0.75, "problems": 0}
    assert rows.loc["b", ["n", "median", "within_2", "problems"]].tolist() == [1, 25, 0, 1]
    assert rows.loc["all", "n"] == 5


def test_the_histogram_counts_every_difference_once():
    lines = [line.split() for line in histogram(DIFFERENCES["difference"], width=6).splitlines()]
    counts = {line[0] if line[0] not in "<≥" else " ".join(line[:2]): int(line[-1]) for line in lines}
    assert counts["-2"] == 3
    assert counts["-5"] == 1
    assert counts["≥ 21"] == 1
    assert sum(counts.values()) == 5
    assert [line for line in lines if line[0] == "-2"] == [["-2", "to", "2", "######", "3"]]


def test_a_sheet_without_annotations_has_nothing_to_compare():
    sheet = pd.DataFrame({"dataset": ["a"], "apex": pd.array([None], "Int64")})
    with pytest.raises(MerbaError, match="no clip of the sheet has an annotated apex"):
        apex_differences(sheet, {})


@pytest.mark.long
def test_annotated_apexes_are_detected_without_being_seen(tmp_path):
    """Shifting every annotation by a frame shifts the differences by one, and nothing else."""
    settings = {"datasets": ["samm"], "subjects": 1, "clips": 2}
    render(settings, "samm", tmp_path)
    sheet = plan(settings, tmp_path)
    experiments = {"a": {"method": "A", "model": {"name": "merba_nano"}}}
    config = complete({"data": "own", "datasets": {"samm": {"adapter": "samm", "root": "."}}, "experiments": experiments})
    found = apex_differences(sheet, config)
    assert found["difference"].abs().max() <= 2
    later = apex_differences(sheet.assign(apex=sheet["apex"] + 1), config)
    assert later["detected"].tolist() == found["detected"].tolist()
    assert (later["difference"] - found["difference"]).tolist() == [-1, -1]
