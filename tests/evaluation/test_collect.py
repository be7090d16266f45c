"""Finished folds in files to commit: nothing is lost or doubled, whichever machine trained which fold."""

import json

import pandas as pd
import pytest

from merba.errors import MerbaError
from merba.evaluation.collect import collect, finished_trainings


def write_fold(results, dataset, subject, seeds=(0,), digest="d", predicted="negative", experiment="merba", code="c"):
    """A finished fold of one clip, as far as `collect` reads it."""
    folder = results / "folds" / experiment / dataset / subject
    folder.mkdir(parents=True, exist_ok=True)
    clip = {"dataset": dataset, "subject": subject, "clip": "001", "split": "all", "epoch": 3, "true": "positive"}
    rows = [
        clip | {"seed": seed, "selection": selection, "predicted": predicted, "p_negative": 0.123456}
        for seed in seeds
        for selection in ("last", "oracle")
    ]
    pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
    entry = {"epoch": 3, "oracle_epoch": 2, "epochs": 3, "weights_sha256": "ab"}
    entries = {str(7 + seed): entry | {"training_seconds": 1 + seed} for seed in seeds}
    record = {
        "digest": digest,
        "experiment": {"seeds": list(seeds)},
        "dataset": dataset,
        "subject": subject,
        "clips": {"train": 5, "validation": 0, "test": 1},
        "seeds": entries,
        "code": code,
        "cpu_seconds": 5,
    }
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture
def files(tmp_path):
    return {"folds": tmp_path / "folds.csv", "predictions": tmp_path / "p.csv.gz"}


def test_sessions_that_share_no_results_add_to_the_same_files(tmp_path, files):
    write_fold(tmp_path / "first", "samm", "006", digest="old")
    write_fold(tmp_path / "first", "casme2", "NA", digest="kept")
    write_fold(tmp_path / "second", "samm", "006", digest="new", predicted="surprise")
    write_fold(tmp_path / "second", "samm", "007", digest="added")
    for session in ("first", "second"):
        assert collect("merba", tmp_path / session, **files) == 2
    assert finished_trainings(files["folds"], "merba") == {("kept", 0), ("new", 0), ("added", 0)}
    rows = pd.read_csv(files["predictions"], dtype={"subject": str, "clip": str}, keep_default_na=False)
    assert rows.groupby("subject")["predicted"].agg(list).to_dict() == {
        "NA": ["negative"] * 2,
        "006": ["surprise"] * 2,
        "007": ["negative"] * 2,
    }
    assert set(rows["p_negative"]) == {0.1235}


def test_seeds_trained_later_stand_beside_the_first_in_one_file(tmp_path, files):
    write_fold(tmp_path, "samm", "006", digest="first")
    write_fold(tmp_path, "samm", "006", seeds=(1, 2), digest="more", experiment="merba_seeds")
    assert collect("merba", tmp_path, **files) == collect("merba_seeds", tmp_path, **files) == 1
    assert pd.read_csv(files["predictions"])["seed"].tolist() == [0, 0, 1, 1, 2, 2]
    assert finished_trainings(files["folds"], "merba") == {("first", 0)}
    assert finished_trainings(files["folds"], "merba_seeds") == {("more", 1), ("more", 2)}
    assert pd.read_csv(files["folds"])["cpu_seconds"].tolist() == [5, 2, 3], "a job's time is shared among its trainings"


def test_folds_of_different_code_are_not_collected_as_one_method(tmp_path, files):
    for subject in ("006", "007", "009"):
        write_fold(tmp_path, "samm", subject, code="old" if subject == "007" else "new")
    with pytest.raises(MerbaError, match="samm/007 was made by other code or with other settings than 2 of the 3 folds"):
        collect("merba", tmp_path, **files)


def test_the_same_folds_give_the_same_files(tmp_path, files):
    write_fold(tmp_path, "samm", "006")
    collect("merba", tmp_path, **files)
    before = {path: path.read_bytes() for path in files.values()}
    collect("merba", tmp_path, **files)
    assert {path: path.read_bytes() for path in files.values()} == before


def test_no_folds_and_other_files_are_named(tmp_path, files):
    with pytest.raises(MerbaError, match="folds/merba has no finished fold"):
        collect("merba", tmp_path, **files)
    files["folds"].write_text("dataset,subject\nsamm,006\n")
    with pytest.raises(MerbaError, match="folds.csv: there is no column digest, experiment, seed"):
        finished_trainings(files["folds"], "merba")
