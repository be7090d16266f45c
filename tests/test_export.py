"""An ensemble of all folds, and what keeps one from being made."""

import pytest
from test_checkpoint import CLASSES, checkpoint, member

from merba.checkpoint import load_checkpoint, save_checkpoint
from merba.cli import main
from merba.errors import MerbaError
from merba.export import ensemble_of_folds


@pytest.fixture
def folds(tmp_path):
    """An experiment's folder with three folds."""
    for number, subject in enumerate(("samm/006", "samm/007", "casme2/sub01")):
        fold = tmp_path / "merba" / subject
        save_checkpoint(fold / "model.safetensors", checkpoint(member(number, tuple(subject.split("/")))))
        (fold / "predictions.parquet").touch()
    return tmp_path / "merba"


def test_every_fold_becomes_a_member(folds, tmp_path, capsys):
    out = tmp_path / "ensemble.safetensors"
    assert main(["export", str(folds), "--out", str(out)]) == 0
    assert "3 members of merba_nano" in capsys.readouterr().out
    left_out = [one.left_out for one in load_checkpoint(out).members]
    assert left_out == [("casme2", "sub01"), ("samm", "006"), ("samm", "007")]


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
    save_checkpoint(path, checkpoint(classes=CLASSES[::-1]))
    with pytest.raises(MerbaError, match="samm/006/model.safetensors: classes is"):
        ensemble_of_folds(folds)
