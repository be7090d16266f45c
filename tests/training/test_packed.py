"""Splits without training: they are those of the trainings, and docs/own_training.md can use them."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import f1_score
from workflow_runs import ROOT, configured

from merba.cli import main
from merba.config import fold_settings, load_config
from merba.errors import MerbaError
from merba.preprocessing.packs import ClipFlow, FlowFormat, pack, save_subject
from merba.sheet import safe_id, sample_rows
from merba.training.experiments import packed_experiment
from merba.training.loading import load_fold

PUBLIC_FLOW = ROOT / "config" / "public_flow.yaml"
CLASSES = ("negative", "positive", "surprise")
PEOPLE = {"samm": ["006", "NA", "s 7"], "smic_hs": ["06", "lost"]}
"""Ids that careless code reads as a number or as missing, one that can't name a folder, and one without usable clips."""


@pytest.fixture
def run_folder(tmp_path):
    """A folder with preprocessing's results of two datasets; the flow of all clips but one shows their class."""
    random, rows = np.random.default_rng(0), []
    for dataset, subjects in PEOPLE.items():
        files = []
        for subject in subjects:
            clips = pd.DataFrame({"dataset": dataset, "subject": subject, "clip": [f"0{i}" for i in range(9)]})
            clips = clips.assign(label=[CLASSES[i % 3] for i in range(9)])
            rows += clips.to_dict("records")
            files.append(tmp_path / "flow" / f"{dataset}{len(files)}.npz")
            save_subject(files[-1], clips, flows(clips, random), (2, 28, 28), FlowFormat(("u", "v"), "image"))
        pack(files, *(tmp_path / "results" / "packed" / f"{dataset}{suffix}" for suffix in (".npy", ".parquet")))
    sheet = sample_rows({"source": "", "kind": "images", **row} for row in rows)
    sheet.loc[0, "label"] = CLASSES[-1]
    sheet.to_parquet(tmp_path / "results" / "samples.parquet")
    return tmp_path


def flows(clips, random):
    for clip in clips.itertuples():
        flow = random.normal(127, 1, (2, 28, 28)).astype(np.float16)
        flow[1, 9 * CLASSES.index(clip.label) :][:9] += 20
        yield ClipFlow(flow, np.full((5, 2), np.nan), np.nan, "no face" if clip.subject == "lost" else None)


def folds(folder, *options, config):
    return main(list(map(str, ["folds", "--config", config, "--results", folder / "results", *options])))


@pytest.mark.parametrize("stopping", ["validation", "none"])
def test_the_splits_are_those_of_the_trainings(run_folder, stopping):
    chosen = {"inherit": "merba", "datasets": list(PEOPLE), "stopping": stopping}
    config = configured(run_folder, PUBLIC_FLOW, experiments={"e": chosen}, on_problem="drop")
    assert folds(run_folder, config=config) == 0
    table = pd.read_csv(run_folder / "results" / "splits" / "e.csv", dtype=str, keep_default_na=False)
    settings = load_config(config)
    experiment, sheet, packs = packed_experiment(settings, "e", run_folder / "results")
    assert list(table["fold"].unique()) == ["samm/006", "samm/NA", f"samm/{safe_id('s 7')}", "smic_hs/06"]
    for name, rows in table.groupby("fold"):
        dataset, subject = name.split("/")
        fold = load_fold(settings, fold_settings(experiment), dataset=dataset, subject_id=subject, sheet=sheet, packs=packs)
        for part in ("train", "validation", "test"):
            assert np.flatnonzero(rows["part"] == part).tolist() == getattr(fold.split, part).tolist()
        assert rows["label"].tolist() == [fold.classes[code] for code in fold.labels]
        assert rows["clip"].tolist() == fold.clips["clip"].tolist()
        for clip, flow in zip(rows.itertuples(), fold.flow, strict=True):
            packed = np.load(run_folder / "results" / "packed" / f"{clip.dataset}.npy", mmap_mode="r")
            assert (packed[int(clip.row)] == flow).all()


def test_clips_with_problems_are_refused_unless_they_are_to_be_dropped(run_folder, capsys):
    assert folds(run_folder, config=PUBLIC_FLOW) == 1
    assert "9 clips can't be used" in capsys.readouterr().err
    assert not (run_folder / "results" / "splits").exists()


def test_a_clip_that_two_datasets_share_stops_folds_and_every_training(run_folder, capsys):
    """Each dataset's gate lets it through."""
    arrays = {name: run_folder / "results" / "packed" / f"{name}.npy" for name in PEOPLE}
    flow = {name: np.load(path) for name, path in arrays.items()}
    flow["smic_hs"][4] = flow["samm"][12]
    np.save(arrays["smic_hs"], flow["smic_hs"])
    config = configured(run_folder, PUBLIC_FLOW, on_problem="drop")
    settings, message = load_config(config), "samm NA 03 and smic_hs 06 04"
    experiment, sheet, packs = packed_experiment(settings, "ststnet", run_folder / "results")
    with pytest.raises(MerbaError, match=message):  # as a fold of the workflow does
        load_fold(settings, fold_settings(experiment), dataset="samm", subject_id="006", sheet=sheet, packs=packs)
    assert folds(run_folder, "--experiment", "ststnet", config=config) == 1
    assert message in capsys.readouterr().err
    words = ["train", "--config", config, "--experiment", "ststnet", "--results", run_folder / "results"]
    assert main(list(map(str, words))) == 1
    assert message in capsys.readouterr().err
    assert not (run_folder / "results" / "folds").exists()


def test_before_the_preprocessing_its_command_is_named(tmp_path, capsys):
    assert folds(tmp_path, config=PUBLIC_FLOW) == 1
    assert "first (`snakemake --cores 4 packed --configfile CONFIG`)" in capsys.readouterr().err


def test_every_experiment_of_a_plain_run_or_a_single_one_is_written(run_folder, capsys):
    experiments = yaml.safe_load(PUBLIC_FLOW.read_text())["experiments"]
    optional = {"inherit": "lbp_top", "datasets": list(PEOPLE), "optional": True}  # its view isn't made
    config = configured(run_folder, PUBLIC_FLOW, on_problem="drop", experiments=experiments | {"lbp_top": optional})
    assert folds(run_folder, "--experiment", "ststnet", config=config) == 0
    assert capsys.readouterr().out == f"{run_folder / 'results' / 'splits' / 'ststnet.csv'}\n"
    assert folds(run_folder, config=config) == 0
    written = {path.stem for path in (run_folder / "results" / "splits").iterdir()}
    assert written == set(experiments)
    assert folds(run_folder, "--experiment", "stst", config=config) == 1
    assert "no experiment 'stst'" in capsys.readouterr().err


def test_pytorch_is_not_imported(run_folder):
    config = configured(run_folder, PUBLIC_FLOW, on_problem="drop")
    words = ["folds", "--config", str(config), "--experiment", "merba", "--results", str(run_folder / "results")]
    program = f"import sys; from merba.cli import main; assert main({words}) == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_the_training_loop_of_the_documentation_runs(run_folder, monkeypatch, capsys):
    config = configured(run_folder, PUBLIC_FLOW, on_problem="drop")
    assert folds(run_folder, "--experiment", "merba", config=config) == 0
    page = (ROOT / "docs" / "own_training.md").read_text()
    monkeypatch.chdir(run_folder)
    exec(compile("\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)), "own_training.md", "exec"), {})
    capsys.readouterr()
    assert main(["score", "mine.csv", "--json"]) == 0
    mine, (both, *_) = pd.read_csv("mine.csv"), json.loads(capsys.readouterr().out)
    assert len(mine) == both["n"] == 36 and both["subjects"] == 4
    assert both["uf1"] == pytest.approx(f1_score(mine["true"], mine["predicted"], average="macro"))
    assert 0.9 < both["uf1"] < 1
