"""Comparing two files of predictions: differences, intervals and counts against scikit-learn, and what can't be compared."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from merba.cli import main
from merba.datasets.tasks import composite
from merba.errors import MerbaError
from merba.evaluation import comparison
from merba.evaluation.comparison import compare, named_predictions, shipped_predictions
from merba.evaluation.scoring import read_predictions

CLASSES = ["negative", "positive", "surprise"]
KEY = ["dataset", "subject", "clip"]


def guesses(accuracy, seed, selection="last"):
    """Predictions of all clips of the composite, each right with probability `accuracy`."""
    random = np.random.default_rng(seed)
    clips = composite().rename(columns={"label": "true"})
    right = random.random(len(clips)) < accuracy
    predicted = np.where(right, clips["true"], random.choice(CLASSES, len(clips)))
    return clips.assign(predicted=predicted, seed=seed, selection=selection, split="all")


@pytest.fixture
def files(tmp_path):
    """My file, which lacks a clip, and the other method's."""
    tables = {"mine": guesses(0.7, 0).iloc[1:], "theirs": pd.concat([guesses(0.4, 1), guesses(1, 1, "oracle")])}
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return tables, tmp_path


def test_scores_and_counts_are_of_the_clips_that_both_have(files):
    tables, folder = files
    (found,) = compare(*(read_predictions(folder / f"{name}.csv") for name in tables))
    mine, theirs = tables["mine"], tables["theirs"].query("selection == 'last'").iloc[1:]
    assert (found["n"], found["subjects"], found["selection"]) == (441, 68, "last")
    for prefix, table in (("", mine), ("their_", theirs)):
        assert found[f"{prefix}uf1"] == pytest.approx(f1_score(table["true"], table["predicted"], average="macro"))
        assert found[f"{prefix}uar"] == pytest.approx(recall_score(table["true"], table["predicted"], average="macro"))
        assert (found[f"{prefix}counts"] == confusion_matrix(table["true"], table["predicted"], labels=CLASSES)).all()
        recalls = recall_score(table["true"], table["predicted"], average=None, labels=CLASSES)
        assert list(found[f"{prefix}recall"].values()) == pytest.approx(list(recalls))
    assert found["uf1_difference"] == pytest.approx(found["uf1"] - found["their_uf1"])
    assert 0 < found["uf1_difference_low"] < found["uf1_difference"] < found["uf1_difference_high"]


def test_a_file_with_more_seeds_is_their_mean_on_the_clips_that_every_seed_has():
    seeds = [guesses(0.6, seed) for seed in (1, 2)]
    partial = pd.concat([seeds[0], seeds[1].iloc[40:]])
    found = compare(partial, guesses(0.4, 3))[0]
    expected = [f1_score(table["true"][40:], table["predicted"][40:], average="macro") for table in seeds]
    assert (found["n"], found["uf1"]) == (402, pytest.approx(np.mean(expected)))


def test_a_method_does_not_differ_from_itself():
    (found,) = compare(guesses(0.5, 0), guesses(0.5, 0))
    assert [found[f"uf1_difference{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.assign(dataset=table["dataset"].str.upper()), "no clip in common; their first clips are CASME2"),
        (lambda table: table.drop(columns="clip"), "there is no clip"),
        (lambda table: table.assign(true="positive"), "333 clips have another true class .*: positive, not negative"),
        (lambda table: table.assign(selection="oracle"), "an oracle is only compared with an oracle"),
    ],
)
def test_what_can_not_be_compared_is_refused(change, said):
    with pytest.raises(MerbaError, match=said):
        compare(change(guesses(0.5, 0)), guesses(0.5, 1))


def test_a_wrong_name_lists_what_is_shipped():
    with pytest.raises(MerbaError, match="'ststnett' is neither a file.*did you mean 'ststnet'.*merba_single_window, "):
        named_predictions("ststnett")


def test_unfinished_seeds_of_a_shipped_file_do_not_count(tmp_path, monkeypatch):
    file = tmp_path / f"merba{comparison.SUFFIX}"
    pd.concat([guesses(0.4, 0), guesses(0.5, 1).iloc[40:]]).to_csv(file, index=False)
    monkeypatch.setattr(comparison, "SHIPPED", tmp_path)
    assert set(named_predictions("merba")["seed"]) == {"0"}
    assert set(named_predictions(str(file))["seed"]) == {"0", "1"}


@pytest.mark.parametrize("name", shipped_predictions())
def test_every_shipped_file_has_whole_folds_of_the_composite_and_its_labels(name):
    table = read_predictions(shipped_predictions()[name])
    assert len(table.columns[table.columns.str.startswith("p_")]) == 3
    for _, part in table.groupby(["selection", "seed"]):
        clips = part.merge(composite(), on=KEY)
        assert len(clips) == len(part) == composite()[KEY[:2]].merge(part[KEY[:2]].drop_duplicates()).shape[0]
        assert (clips["true"] == clips["label"]).all()


def test_the_command_prints_the_comparison_plain_and_as_json(files, capsys):
    tables, folder = files
    command = ["score", str(folder / "mine.csv"), "--against", str(folder / "theirs.csv")]
    assert main(command) == 0
    plain = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (found,) = printed["comparisons"]
    assert printed["scores"][0]["n"] == found["n"] == 441
    assert f"{found['uf1_difference']:+.4f} ({found['uf1_difference_low']:+.4f} to " in plain
    for row in found["counts"]:
        assert " ".join(map(str, row)) in " ".join(plain.split())
    assert f"{found['recall']['surprise']:.4f}" in plain


def test_the_command_says_that_an_unfinished_seed_leaves_out_clips(files, capsys):
    _, folder = files
    pd.concat([guesses(0.4, 1), guesses(0.5, 2).iloc[40:]]).to_csv(folder / "theirs.csv", index=False)
    assert main(["score", str(folder / "mine.csv"), "--against", str(folder / "theirs.csv")]) == 0
    printed = capsys.readouterr()
    assert "theirs.csv: only 402 of 442 clips are in each of its seeds 1, 2; the others are not compared" in printed.err
    assert "402 clips of " in printed.out
