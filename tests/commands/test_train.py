"""`merba train`, for a machine without Snakemake: it writes the workflow's files, and continues after an interruption."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from workflow_runs import MICRO, configured

from merba.cli import main
from merba.config import fold_settings, load_config
from merba.evaluation.scoring import read_predictions
from merba.files import FOLD_FILES, WEIGHTS
from merba.training import loop, resume
from merba.training.experiments import packed_experiment
from merba.training.loading import load_fold

pytestmark = pytest.mark.long


@pytest.fixture
def results(micro_demo, tmp_path):
    """The files that the documentation says to copy to such a machine: the sample sheet and the packs."""
    folder = tmp_path / "results"
    shutil.copytree(micro_demo / "results" / "packed", folder / "packed")
    shutil.copy(micro_demo / "results" / "samples.parquet", folder)
    return folder


def train(results, *options, config=MICRO, experiment="ststnet"):
    words = ["train", "--config", config, "--experiment", experiment, "--results", results, *options]
    return main(list(map(str, words)))


def folds_of(results, experiment="ststnet"):
    """Files of each fold, by the fold's folder."""
    folders = sorted(results.glob(f"folds/{experiment}/*/*"))
    return {str(folder.relative_to(results)): sorted(path.name for path in folder.iterdir()) for folder in folders}


def test_it_writes_the_workflows_files_and_leaves_finished_folds_alone(results, micro_demo, capsys):
    assert train(results, "--folds", "samm/006", "casme2/sub02") == 0
    assert list(folds_of(results)) == ["folds/ststnet/casme2/sub02", "folds/ststnet/samm/006"]
    assert train(results) == 0
    assert "4 folds trained" in capsys.readouterr().out
    assert folds_of(results) == folds_of(micro_demo / "results")
    for fold in folds_of(results):
        ours, theirs = (folder / fold for folder in (results, micro_demo / "results"))
        for name in ("predictions.parquet", "every_epoch.parquet"):
            pd.testing.assert_frame_equal(pd.read_parquet(ours / name), pd.read_parquet(theirs / name), check_exact=True)
        assert (ours / "history.csv").read_text() == (theirs / "history.csv").read_text()
        assert (ours / "split.csv").read_text() == (theirs / "split.csv").read_text()
        digests = [json.loads((folder / "run.json").read_text())["digest"] for folder in (ours, theirs)]
        assert digests[0] == digests[1]
    (results / "folds/ststnet/samm/007/model.safetensors").unlink()
    assert train(results) == 0
    assert "1 folds trained" in capsys.readouterr().out


def test_folds_of_a_collected_file_need_no_training_until_their_settings_change(results, tmp_path, capsys):
    """For another machine, which has the committed files but not the folds."""
    folds, predictions = tmp_path / "folds.csv", tmp_path / "ststnet.csv"
    files = ["--folds", folds, "--predictions", predictions]
    assert train(results, "--folds", "samm/006", "casme2/sub02") == 0
    assert main(list(map(str, ["collect", "--experiment", "ststnet", "--results", results, *files]))) == 0
    collected = read_predictions(predictions).groupby("dataset")["subject"].unique()
    assert {name: list(subjects) for name, subjects in collected.items()} == {"casme2": ["sub02"], "samm": ["006"]}
    shutil.rmtree(results / "folds")
    assert train(results, "--done", folds) == 0
    assert "4 folds trained" in capsys.readouterr().out
    assert not {"folds/ststnet/samm/006", "folds/ststnet/casme2/sub02"} & set(folds_of(results))
    assert train(results, "--done", folds, "--folds", "samm/006", config=configured(tmp_path, seed=2)) == 0
    assert "1 folds trained" in capsys.readouterr().out


def test_the_control_zero_flow_blanks_the_inputs_also_where_resting_flow_is_not_zero(results, tmp_path, monkeypatch):
    as_images(results)
    seen = []

    def keep(build, data, *rest, **settings):
        seen.append(data)
        return loop.train_fold(build, data, *rest, **settings)

    monkeypatch.setattr("merba.training.fold.train_fold", keep)
    settings = yaml.safe_load(MICRO.read_text())["experiments"]
    settings["ststnet"]["control"] = "zero_flow"
    settings["ststnet"]["training"] = {"flip": True, "mirror_average": True}
    path = configured(tmp_path, experiments=settings)
    assert train(results, "--folds", "samm/006", config=path) == 0
    (data,) = seen
    assert not data.inputs.any() and not data.mirrored(torch.arange(len(data.inputs))).any() and data.mean[0] != 0


def as_images(results):
    """The packs as if they were ready-made flow images."""
    for index in (results / "packed").glob("*.parquet"):
        table = pd.read_parquet(index)
        table.attrs["unit"] = "image"
        table.to_parquet(index, index=False)


def fitted(tmp_path, **settings):
    """The micro-demo's configuration with Table V's Bi-WOOF as its experiment."""
    experiment = {"inherit": "biwoof", "model": {"image_size": 28}} | settings
    return configured(tmp_path, experiments={"merba": {"inherit": "merba"}, "biwoof": experiment})


def test_a_method_that_is_fitted_writes_the_same_files_and_what_it_chose(results, tmp_path):
    assert train(results, "--folds", "samm/006", config=fitted(tmp_path), experiment="biwoof") == 0
    fold = results / "folds/biwoof/samm/006"
    assert {path.name for path in fold.iterdir()} == {*FOLD_FILES.values(), WEIGHTS}
    (seed,) = json.loads((fold / "run.json").read_text())["seeds"].values()
    assert (seed["epoch"], seed["epochs"]) == (1, 1)
    assert seed["chosen"]["settings"]["cost"] in [row["cost"] for row in seed["chosen"]["inner_uf1"]]
    assert set(pd.read_parquet(fold / "predictions.parquet")["selection"]) == {"last"}, "no epochs, so no oracle"


def test_directions_are_not_read_from_flow_images_whose_zero_is_unknown(results, tmp_path, capsys):
    as_images(results)
    assert train(results, "--folds", "samm/006", config=fitted(tmp_path), experiment="biwoof") == 1
    assert "flow images don't say where zero is: set `decode: signed`" in capsys.readouterr().err
    signed = fitted(tmp_path, decode="signed")
    assert train(results, "--folds", "samm/006", config=signed, experiment="biwoof") == 0


def test_what_is_fitted_and_told_to_stop_is_refused_before_any_fold(results, tmp_path, capsys):
    config = fitted(tmp_path, stopping="validation")
    assert train(results, config=config, experiment="biwoof") == 1
    assert "biwoof is fitted, not trained" in capsys.readouterr().err


def test_packs_of_clips_that_the_sheet_lacks_are_refused(results, capsys):
    sheet = pd.read_parquet(results / "samples.parquet")
    sheet[sheet["subject"] != "006"].to_parquet(results / "samples.parquet")
    assert train(results, "--folds", "casme2/sub02") == 1
    assert "samm 006" in (message := capsys.readouterr().err) and "has no label in the sample sheet" in message


def test_an_interrupted_fold_goes_on_from_its_saved_state(results, micro_demo, monkeypatch, caplog):
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0)
    monkeypatch.setattr(resume, "SAVE_SHARE", math.inf)
    with monkeypatch.context() as patch:
        patch.setattr("merba.training.loop._validate", interrupt_at(2))
        assert train(results, "--folds", "samm/006", experiment="merba") == 130
    assert not list(results.glob("folds/*"))
    with caplog.at_level("INFO"):
        assert train(results, "--folds", "samm/006", experiment="merba") == 0
    assert "continuing after epoch 1" in caplog.text
    fold = "folds/merba/samm/006/predictions.parquet"
    found, expected = (pd.read_parquet(folder / fold) for folder in (results, micro_demo / "results"))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert not list(results.glob("progress/merba/samm/*"))


def test_a_fold_whose_files_were_not_all_replaced_is_trained_again(results, tmp_path, monkeypatch, capsys):
    changed = configured(tmp_path, seed=2)
    assert train(results, "--folds", "samm/006") == 0

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("merba.training.fold.fold_record", interrupt)  # it comes last
        assert train(results, "--folds", "samm/006", config=changed) == 130
    capsys.readouterr()
    assert train(results, "--folds", "samm/006", config=changed) == 0
    assert "1 folds trained" in capsys.readouterr().out


def interrupt_at(call):
    """`_validate` that interrupts the process at its n-th call."""
    validate, calls = loop._validate, iter(range(1, call))

    def interrupted(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return validate(*arguments)

    return interrupted


def test_clips_with_problems_stop_it_as_the_gate_stops_the_workflow(results, tmp_path, capsys):
    path = results / "packed" / "samm.parquet"
    index = pd.read_parquet(path)
    index["row"] -= 1
    index.loc[0, "problem"] = "no face"
    index.to_parquet(path)
    np.save(path.with_suffix(".npy"), np.load(path.with_suffix(".npy"))[1:])
    assert train(results) == 1
    said = capsys.readouterr().err
    assert "1 clips can't be used" in said
    assert ": no face" in said
    assert train(results, "--folds", "samm/007", config=configured(tmp_path, on_problem="drop")) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "samm/999"], "experiment ststnet has no fold samm/999; it has casme2/sub01"),
        (["--folds", "samm"], "'samm' is"),
    ],
)
def test_an_unknown_fold_is_named(results, capsys, options, said):
    assert train(results, *options) == 1
    assert said in capsys.readouterr().err


def test_other_pretrained_weights_make_another_fold(results, tmp_path):
    config, file = load_config(MICRO), tmp_path / "weights.pth"
    experiment, sheet, packs = packed_experiment(config, "merba", results)
    settings = fold_settings(experiment)
    settings["model"] = settings["model"] | {"pretrained": str(file)}
    digests = set()
    for content in (b"weights", b"weights", b"others"):
        file.write_bytes(content)
        digests.add(load_fold(config, settings, dataset="samm", subject_id="006", sheet=sheet, packs=packs).digest)
    assert len(digests) == 2


def test_three_seeds_that_become_five_train_two(results, tmp_path, monkeypatch):
    trained = []

    def counted(*arguments, seed, **settings):
        trained.append(seed)
        return loop.train_fold(*arguments, seed=seed, **settings)

    monkeypatch.setattr("merba.training.fold.train_fold", counted)
    settings = yaml.safe_load(MICRO.read_text())["experiments"]
    folder = results / "folds" / "ststnet" / "samm" / "006"

    def tables(seeds):
        """The fold's tables after a run with these seeds; the configuration's own seed is 1."""
        trained.clear()
        path = configured(tmp_path, experiments=settings | {"ststnet": settings["ststnet"] | {"seeds": seeds}})
        assert train(results, "--folds", "samm/006", config=path) == 0
        record = json.loads((folder / "run.json").read_text())
        assert list(record["seeds"]) == [str(1 + seed) for seed in seeds]
        assert record["configuration"]["file"] == path.name, "it lies beside the results"
        return [pd.read_parquet(folder / f"{name}.parquet") for name in ("predictions", "every_epoch")] + [
            pd.read_csv(folder / "history.csv")
        ]

    tables([0, 1, 2])
    grown = tables([0, 1, 2, 3, 4])
    assert trained == [4, 5]
    shutil.rmtree(folder)
    shutil.rmtree(results / "trained")
    for ours, at_once in zip(grown, tables([0, 1, 2, 3, 4]), strict=True):
        pd.testing.assert_frame_equal(ours, at_once, check_exact=True)
    assert trained == [1, 2, 3, 4, 5]
    tables([2, 0])  # the weights that are kept are the first seed's
    assert trained == [3]
    shutil.rmtree(folder)  # as Snakemake deletes a job's outputs before it starts
    tables([2, 0, 5])
    assert trained == [6]
    assert (folder / "model.safetensors").exists()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"versions": record["versions"] | {"torch": "1.0"}}))
    tables([2, 0, 1])
    assert trained == [3, 1, 2]


def test_weights_that_are_no_longer_kept_do_not_stay(results, tmp_path):
    weights = results / "folds" / "ststnet" / "samm" / "006" / "model.safetensors"
    assert train(results, "--folds", "samm/006") == 0
    assert weights.exists()
    assert train(results, "--folds", "samm/006", config=configured(tmp_path, keep_weights=False, seed=2)) == 0
    assert not weights.exists()


def test_states_of_other_settings_clips_or_code_are_dropped(results, caplog):
    state = results / "progress" / "ststnet" / "samm" / "006" / "0123456789abcdef-0.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    with caplog.at_level("INFO"):
        assert train(results, "--folds", "samm/006") == 0
    assert f"{state}: dropped, because settings, clips or code have changed" in caplog.text
    assert not state.exists()


def test_results_of_another_configuration_are_told(results, tmp_path, caplog):
    other = configured(tmp_path, seed=2)
    assert train(results, "--folds", "samm/006") == 0
    assert train(results, "--folds", "samm/006", config=other) == 0
    assert f"holds results of tests/micro.yaml, but this run is of {other.name}. " in caplog.text
