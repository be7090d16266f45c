"""Scoring prediction files: against scikit-learn, and errors that name the file."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from merba.errors import MerbaError
from merba.evaluation.scoring import complete_seeds, read_predictions, score_table


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    names = np.array(["negative", "positive", "surprise"])
    return pd.DataFrame(
        {
            "Dataset": random.choice(["samm", "casme2"], 80),
            "subject": random.integers(1, 9, 80),
            "clip": [f"c{number}" for number in range(80)],
            "true": names[random.integers(0, 3, 80)],
            "predicted": names[random.integers(0, 3, 80)],
        }
    )


def test_a_csv_of_somebody_elses_model_is_scored_as_scikit_learn_does(table, tmp_path):
    table.to_csv(tmp_path / "p.csv", index=False)
    scored = score_table(read_predictions(tmp_path / "p.csv")).set_index("clips")
    assert list(scored.index) == ["all", "casme2", "samm"]
    for name, part in [("all", table), *table.groupby("Dataset")]:
        truth = part["true"], part["predicted"]
        row = scored.loc[name]
        assert row["uf1"] == pytest.approx(f1_score(*truth, average="macro"))
        assert row["uar"] == pytest.approx(recall_score(*truth, average="macro"))
        assert row["acc"] == pytest.approx(accuracy_score(*truth))
        assert (row["n"], row["subjects"]) == (len(part), part.groupby(["Dataset", "subject"]).ngroups)
        assert row["uf1_low"] < row["uf1"] < row["uf1_high"]


def test_a_class_absent_from_the_truth_is_left_out_of_the_means(tmp_path):
    (tmp_path / "p.csv").write_text("subject,true,predicted\n1,a,a\n1,b,c\n2,b,b\n")
    row = score_table(read_predictions(tmp_path / "p.csv")).iloc[0]
    assert row["uf1"] == pytest.approx((1 + 2 / 3) / 2)
    assert row["uar"] == pytest.approx((1 + 1 / 2) / 2)


def test_selections_and_seeds_are_scored_apart(table, tmp_path):
    both = pd.concat([table.assign(selection="validation", seed=1), table.assign(selection="oracle", seed=1)])
    both.rename(columns={"Dataset": "dataset"}).astype({"subject": str}).to_parquet(tmp_path / "p.parquet")
    scored = score_table(read_predictions(tmp_path / "p.parquet"))
    assert scored.groupby("selection").size().to_dict() == {"validation": 3, "oracle": 3}


def test_an_oracle_is_known_by_its_name_however_it_is_written(table, tmp_path):
    table.assign(selection=" Oracle", seed="1 ").to_csv(tmp_path / "p.csv", index=False)
    rows = read_predictions(tmp_path / "p.csv")
    assert set(zip(rows["selection"], rows["seed"], strict=True)) == {("oracle", "1")}


def test_unfinished_seeds_are_left_out(table):
    honest = table.assign(selection="last")
    seeds = [honest.assign(seed=0), table.assign(selection="oracle", seed=0), honest.iloc[:50].assign(seed=1)]
    seeds.append(pd.concat([honest, table.assign(selection="oracle")]).iloc[40:].assign(seed=2))
    kept = complete_seeds(pd.concat(seeds))
    assert set(kept["seed"]) == {0} and set(kept["selection"]) == {"last", "oracle"}


def test_classes_may_be_written_as_decimals_and_clips_as_numbers(tmp_path):
    """NumPy and pandas write class numbers in this way; as text, 1 and 1.0 would be two classes."""
    table = pd.DataFrame({"subject": [1, 1, 2], "clip": [1, 2, 1], "true": [0, 1, 1], "predicted": [0.0, 1.0, 1.0]})
    for name in ("p.csv", "p.parquet"):
        table.to_csv(tmp_path / name) if name == "p.csv" else table.to_parquet(tmp_path / name)
        assert score_table(read_predictions(tmp_path / name))["uf1"].item() == 1
    pd.concat([table, table]).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(MerbaError, match="repeats clip all 1 1"):
        read_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,truth,predicted\n1,a,a\n", "no column 'true'"),
        ("subject,true,predicted\n", "no rows"),
        ("subject,true,predicted\n1,a,\n", "row 2 has no predicted"),
        ("subject,true,predicted\n1,a,a\n2,,b\n3, ,b\n", "2 of 3 rows have no true class, the first is row 3; .*fill in"),
        ("subject,true,predicted\n,,a\n", "1 of 1 rows have no true class, the first is row 2"),
        ("subject,clip,true,predicted\n1,x,a,a\n1,x,a,b\n", "row 3 repeats clip all 1 x"),
        ("subject,clip,true,predicted\n1,x,a,a\n1,,a,b\n", "row 3 has no clip"),
        ("subject,seed,true,predicted\n1,1,a,a\n1,,a,b\n", "row 3 has no seed"),
        ("subject,selection,true,predicted\na,,1,0\nb,validation,1,1\n", "row 2 has no selection"),
        ("subject,true,predicted\na,neg,pos\n\nb,neg,pos,0.9\n", "row 4 has 4 fields, the header 3"),
        ("", "it is empty"),
        ("subject,true,predicted,Predicted \n1,a,a,b\n", "column 'predicted' appears twice, as 'predicted' and 'Predicted '"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(MerbaError, match=f"p.csv: .*{message}"):
        read_predictions(tmp_path / "p.csv")


def test_fields_may_be_separated_as_spreadsheets_do(table, tmp_path):
    table.to_csv(tmp_path / "p.csv", index=False)
    expected = score_table(read_predictions(tmp_path / "p.csv"))
    for separator in (";", "\t"):
        table.to_csv(tmp_path / "p.csv", index=False, sep=separator)
        pd.testing.assert_frame_equal(score_table(read_predictions(tmp_path / "p.csv")), expected)


def test_semicolons_are_found_by_the_header(tmp_path):
    rows = "".join(f"{subject};a;a;x, y, z, and more, of it\n" for subject in (1, 2))
    (tmp_path / "p.csv").write_text(f"subject;true;predicted;notes\n{rows}")
    assert read_predictions(tmp_path / "p.csv")["predicted"].tolist() == ["a", "a"]


def test_splits_are_scored_apart_as_dfmes_tables_do(table, tmp_path):
    table["split"] = np.where(np.arange(80) < 30, "test_a", "test_b")
    table.to_csv(tmp_path / "p.csv", index=False)
    scored = score_table(read_predictions(tmp_path / "p.csv")).query("clips == 'all'").set_index("split")
    for name, part in table.groupby("split"):
        assert scored.at[name, "uf1"] == pytest.approx(f1_score(part["true"], part["predicted"], average="macro"))
    assert scored["n"].to_dict() == {"test_a": 30, "test_b": 50}


def test_a_subject_may_be_called_na(tmp_path):
    (tmp_path / "p.csv").write_text("subject,true,predicted\nNA,a,a\n2,b,b\n")
    assert read_predictions(tmp_path / "p.csv")["subject"].tolist() == ["NA", "2"]
