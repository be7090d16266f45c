"""An ensemble of all folds, a model of all clips, and what is refused."""

import json
import os
import stat
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import CLASSES, checkpoint
from workflow_runs import MICRO, configured

from merba.cli import main
from merba.config import load_config
from merba.errors import MerbaError
from merba.models import create_model
from merba.prediction.predict import predict
from merba.training.checkpoint import Member, load_checkpoint, save_checkpoint
from merba.training.export import ensemble_of_folds, retrained
from merba.training.loop import weights_digest

RECORD = {"inputs": {"results/packed/samm.npy": "abc"}, "experiment": {"control": "none"}, "code": "c0de"}


def small(number, left_out):
    """A checkpoint of an untrained STSTNet, and what its fold's record says."""
    torch.manual_seed(number)
    weights = create_model("ststnet", 3, in_channels=2).state_dict()
    trained = Member(weights, [0.0, 0.0], [1.0, 1.0], left_out)
    record = RECORD | {"seeds": {"1": {"weights_sha256": weights_digest(weights)}}}
    return checkpoint(trained, model={"name": "ststnet", "in_channels": 2}), record


@pytest.fixture
def folds(tmp_path):
    """An experiment's folder with three folds."""
    for number, subject in enumerate(("samm/006", "samm/007", "casme2/sub01")):
        fold = tmp_path / "merba" / subject
        made, record = small(number, tuple(subject.split("/")))
        save_checkpoint(fold / "model.safetensors", made)
        write_predictions(fold)
        (fold / "run.json").write_text(json.dumps(record))
    return tmp_path / "merba"


def write_predictions(fold):
    """Write predictions of two clips; the honest choice gets one of them right."""
    about = {
        "dataset": fold.parent.name,
        "subject": fold.name,
        "seed": 1,
        "true": ["negative", "surprise"],
        "predicted": "negative",
    }
    rows = pd.DataFrame(about | {"selection": "last"})
    pd.concat([rows, rows.assign(predicted=rows["true"], selection="oracle")]).to_parquet(fold / "predictions.parquet")


def change_record(fold, **changes):
    path = fold / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_fold_becomes_a_member(folds, tmp_path, capsys):
    out = tmp_path / "ensemble.safetensors"
    assert main(["export", str(folds), "--out", str(out)]) == 0
    assert "3 members of ststnet" in capsys.readouterr().out
    made = load_checkpoint(out)
    assert [one.left_out for one in made.members] == [("casme2", "sub01"), ("samm", "006"), ("samm", "007")]
    # Of negative and surprise, negative is always predicted: F1 2/3 and 0, recall 1 and 0; the oracle's rows don't count.
    score = {"uf1": pytest.approx(1 / 3), "uar": 0.5}
    assert made.error["all"] == {"n": 6, "subjects": 3} | score
    assert made.error["samm"] == {"n": 4, "subjects": 2} | score


def test_it_is_said_that_a_checkpoint_holds_its_clips(tmp_path, capsys):
    torch.manual_seed(0)
    model = create_model("kernel", 3, in_channels=2)
    model.fit(model.features(torch.randn(6, 2, 28, 28)), torch.arange(6) % 3, torch.arange(6))
    fold = tmp_path / "kernel" / "samm" / "006"
    alone = Member(model.state_dict(), [0, 0], [1, 1], ("samm", "006"))
    save_checkpoint(fold / "model.safetensors", checkpoint(alone, model={"name": "kernel", "in_channels": 2}))
    write_predictions(fold)
    record = RECORD | {"seeds": {"1": {"weights_sha256": weights_digest(alone.weights)}}}
    (fold / "run.json").write_text(json.dumps(record))
    assert main(["export", str(tmp_path / "kernel"), "--out", str(tmp_path / "out.safetensors")]) == 0
    assert "It contains the flow of its training clips" in capsys.readouterr().out


def test_a_fold_without_weights_is_named(folds):
    (folds / "samm" / "007" / "model.safetensors").unlink()
    with pytest.raises(MerbaError, match=r"1 of 3 folds have no model.safetensors \(samm/007\); train with `keep_weights"):
        ensemble_of_folds(folds)


def test_a_folder_without_folds_is_an_error(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out.safetensors")]) == 1
    assert "no fold in it has a model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_folds_that_differ_are_refused_by_file(folds):
    path = folds / "samm" / "006" / "model.safetensors"
    save_checkpoint(path, replace(load_checkpoint(path), classes=CLASSES[::-1]))
    with pytest.raises(MerbaError, match="samm/006/model.safetensors: classes is"):
        ensemble_of_folds(folds)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": {"results/packed/samm.npy": "def"}}, "on different files"),
        ({"experiment": {"control": "none", "seeds": [1]}}, "with different settings"),
        ({"code": "0ther"}, "by different code"),
        ({"seeds": {"3": {}}}, "from different seeds"),
    ],
    ids=["a subject has left", "settings", "code", "seed"],
)
def test_folds_that_were_not_trained_alike_are_refused(folds, change, said):
    change_record(folds / "samm" / "007", **change)
    with pytest.raises(MerbaError, match=f"samm/007 were trained {said}; run the workflow again, and delete"):
        ensemble_of_folds(folds)


def test_weights_of_another_training_than_the_record_are_refused(folds):
    save_checkpoint(folds / "samm" / "007" / "model.safetensors", small(7, ("samm", "007"))[0])
    with pytest.raises(MerbaError, match=r"samm/007/model.safetensors holds the weights of another training than the run.json"):
        ensemble_of_folds(folds)


def test_an_exported_checkpoint_is_readable_as_umask_says(folds, tmp_path):
    before = os.umask(0o027)
    try:
        assert main(["export", str(folds), "--out", str(tmp_path / "out.safetensors")]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.safetensors").stat().st_mode) == 0o640


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_fold_without_its_record_is_named(folds, text):
    path = folds / "samm" / "007" / "run.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(MerbaError, match=r"samm/007/run.json can't be read as a fold's record .*train this fold again"):
        ensemble_of_folds(folds)


def test_folds_of_a_control_are_refused(folds):
    for fold in folds.glob("*/*"):
        change_record(fold, experiment={"control": "shuffled_labels"})
    with pytest.raises(MerbaError, match=r"casme2/sub01 is a control experiment \(shuffled_labels\): its model is not"):
        ensemble_of_folds(folds)


def test_a_retrained_model_has_seen_every_clip_and_says_so(micro_demo, tmp_path, capsys):
    results, out = micro_demo / "results", tmp_path / "model.safetensors"
    assert main(["export", str(results / "folds" / "merba"), "--retrain", str(MICRO), "--out", str(out)]) == 0
    assert "1 model of merba_nano, classes negative, positive, surprise" in capsys.readouterr().out
    made = load_checkpoint(out)
    (alone,) = made.members
    assert (made.protocol, alone.left_out) == ("everybody", None)
    flow = np.concatenate([np.load(results / "packed" / f"{name}.npy") for name in ("casme2", "samm", "smic_hs")])
    # Shrinking averages areas, which keeps the mean of all clips; that of u is its zero.
    assert alone.mean == pytest.approx([0, flow[:, 1].astype(np.float64).mean()], abs=1e-4)
    (found,) = predict(next((micro_demo / "results/demo/samm/SAMM").glob("*/*")), made)
    assert found.predicted in made.classes


@pytest.mark.long
def test_a_model_is_retrained_for_the_median_of_the_folds_epochs(micro_demo, monkeypatch):
    folder = micro_demo / "results" / "folds" / "merba"
    chosen = [json.loads(path.read_text())["seeds"]["1"]["epoch"] for path in folder.glob("*/*/run.json")]
    taken = []
    monkeypatch.setattr("merba.training.export.train_on_everybody", lambda *_, epochs: taken.append(epochs) or checkpoint())
    retrained(load_config(MICRO), folder)
    assert taken == [round(float(np.median(chosen)))]


@pytest.mark.long
def test_folds_of_other_settings_are_no_measure_of_a_retrained_model(micro_demo, tmp_path):
    changed = load_config(configured(tmp_path, training={"epochs": 4}))
    with pytest.raises(MerbaError, match=r"run\.json: this fold was trained with other settings, clips or code; run the w"):
        retrained(changed, micro_demo / "results" / "folds" / "merba")


@pytest.mark.long
def test_an_experiment_that_the_configuration_lacks_is_named(micro_demo):
    with pytest.raises(MerbaError, match="has no experiment 'mine'; it has merba"):
        retrained(load_config(MICRO), micro_demo / "results" / "folds" / "mine")
