"""What a change of a user's own data reruns: the preprocessing of its subject, and of no other."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from releases import edit_workbook
from workflow_runs import configured, planned, snakemake

from merba.datasets.demo.rendering import render

TABLE = "CASME2-coding-20140508.xlsx"
TARGET = "results/problems.csv"


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    """A folder with the clips of two subjects as a release of CASME II, preprocessed."""
    folder = tmp_path_factory.mktemp("own") / "run"
    render({"datasets": ["casme2"], "subjects": 2, "clips": 3, "size": 0.5}, "casme2", folder)
    datasets = {"casme2": {"adapter": "casme2", "root": "casme2"}}
    experiments = {"a": {"method": "A", "model": {"name": "ststnet"}}}
    configured(folder, data="own", demo=None, datasets=datasets, experiments=experiments)
    snakemake(folder, TARGET, config=folder / "config.yaml")
    return folder


@pytest.fixture
def plan(preprocessed, tmp_path):
    """Changes a copy of the release and plans a run: returns job counts by rule, and the subjects of the jobs."""
    folder = Path(shutil.copytree(preprocessed, tmp_path / "run"))

    def planned_after(change):
        change(folder / "casme2")
        output = snakemake(folder, "-n", TARGET, config=folder / "config.yaml")
        return planned(output), set(re.findall(r"(?:faces|apexes|flow): casme2 (\w+)", output))

    return planned_after


def edit(cell, value):
    return lambda root: edit_workbook(root / TABLE, lambda sheet: setattr(sheet[cell], "value", value(sheet[cell].value)))


def add_clip(root):
    frames = root / "CASME2-RAW" / "sub01"
    shutil.copytree(frames / "EP01_01f", frames / "EP01_09")
    edit_workbook(root / TABLE, lambda sheet: sheet.append([1, "EP01_09", *(cell.value for cell in sheet[2][2:])]))


def mend_frame(root):
    frame = sorted((root / "CASME2-RAW" / "sub01" / "EP01_02f").iterdir())[5]
    frame.write_bytes(frame.read_bytes() + b"mended")


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [add_clip, edit("E2", lambda apex: apex - 1), mend_frame],
    ids=["new clip", "mended row", "mended frame"],
)
def test_a_new_or_mended_clip_reruns_its_own_subject_only(plan, change):
    jobs, subjects = plan(change)
    assert jobs == {"faces": 1, "apex": 1, "flow": 1, "pack": 1, "problems": 1, "total": 5}
    assert subjects == {"sub01"}


@pytest.mark.long
@pytest.mark.parametrize(
    "change", [lambda root: None, edit("I2", lambda emotion: "surprise")], ids=["nothing", "another emotion"]
)
def test_nothing_new_and_new_labels_rerun_no_preprocessing(plan, change):
    assert plan(change) == ({}, set())


@pytest.mark.long
def test_a_damaged_clip_is_named_and_when_it_is_mended_its_own_subject_alone_is_redone(preprocessed, tmp_path):
    folder = Path(shutil.copytree(preprocessed, tmp_path / "run"))
    frames = {path: path.read_bytes() for path in (folder / "casme2" / "CASME2-RAW" / "sub01" / "EP01_02f").iterdir()}

    def run():
        snakemake(folder, TARGET, config=folder / "config.yaml")
        made = (folder / "results").glob("*/casme2/sub0*")
        times = {str(path.relative_to(folder / "results")): path.stat().st_mtime_ns for path in made}
        return pd.read_csv(folder / TARGET)["clip"].tolist(), times

    for path, data in frames.items():
        path.write_bytes(data[:100])
    problems, before = run()
    assert problems == ["EP01_02f"]
    for path, data in frames.items():
        path.write_bytes(data)
    problems, after = run()
    assert problems == []
    redone = {file for file in before if after[file] != before[file]}
    assert redone == {"faces/casme2/sub01.parquet", "apex/casme2/sub01.parquet", "flow/casme2/sub01.npz"}
    assert "Nothing to be done" in snakemake(folder, "-n", TARGET, config=folder / "config.yaml")
