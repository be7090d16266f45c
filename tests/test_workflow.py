"""The workflow whole, on the micro-demo: what it plans, writes, reruns and refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from releases import edit_workbook, write_release

from merba.datasets.demo import render

ROOT = Path(__file__).parents[1]
MICRO = ROOT / "tests" / "micro.yaml"


def snakemake(folder, *arguments, config=MICRO, fails=False):
    """Run Snakemake in `folder` on two cores; its whole output. Fails unless the exit status is as expected."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    if config:
        command += ["--configfile", config]
    run = subprocess.run(
        [*map(str, command), "--cores", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=3000,
    )
    assert (run.returncode != 0) == fails, run.stdout
    return run.stdout


def planned(output):
    """Job counts by rule of a dry run's output."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.M)}


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if ".snakemake" not in path.parts)


def configured(folder, base=MICRO, **changes):
    """The configuration `base` with top-level keys replaced, as a file in `folder`; a key of None is left out."""
    path = folder / "config.yaml"
    document = yaml.safe_load(base.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
    return path


@pytest.fixture(scope="session")
def micro_demo(tmp_path_factory):
    """A folder in which the micro-demo ran. Tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("micro") / "run"
    snakemake(folder)
    return folder


@pytest.fixture
def finished(micro_demo, tmp_path):
    """A copy of the finished micro-demo, with its files' times, to be changed."""
    return Path(shutil.copytree(micro_demo, tmp_path / "run"))


def test_a_dry_run_of_the_default_shows_every_job_and_writes_nothing(tmp_path):
    jobs = planned(snakemake(tmp_path, "-n", config=None))
    expected = {"render": 3, "samples": 1, "faces": 9, "apex": 9, "flow": 9, "pack": 3, "fold": 9, "table_5": 1}
    assert jobs.items() >= expected.items()
    assert written(tmp_path) == []


@pytest.mark.parametrize("target", ["tables", "figures", "demo", "results/table_5_3db.csv"])
def test_every_target_can_be_planned(tmp_path, target):
    assert planned(snakemake(tmp_path, "-n", target, config=None))["render"] == 3


def test_another_configfile_replaces_the_demo(tmp_path):
    output = snakemake(tmp_path, "-n", config=ROOT / "config" / "public_flow.yaml")
    jobs = planned(output)
    assert jobs.items() >= {"clone_flow": 1, "flow": 68, "fold": 68 + 3}.items()
    assert not jobs.keys() & {"render", "faces", "apex"}


@pytest.mark.long
def test_the_micro_demo_gives_tables_figures_and_records(micro_demo):
    results = micro_demo / "results"
    table = pd.read_csv(results / "table_5_3db.csv")
    ours = table[table["source"] == "reproduced"]
    assert set(zip(ours["experiment"], ours["selection"], strict=True)) == {
        ("merba", "validation"),
        ("merba", "oracle"),
        ("ststnet", "last"),
        ("ststnet", "oracle"),
    }
    assert set(ours["data"]) == {"demo"}
    assert set(ours["folds"]) == {"6/6"}
    assert set(ours["clips"]) == {"18/18"}
    assert set(ours["combined_n"]) == {18}
    assert (results / "figures" / "confusion_merba.png").stat().st_size > 5000
    assert pd.read_csv(results / "figures" / "confusion_merba.csv", index_col=0).to_numpy().sum() == 18
    assert pd.read_csv(results / "problems.csv").empty
    fold = results / "folds" / "merba" / "smic_hs" / "s01"
    predictions = pd.read_parquet(fold / "predictions.parquet")
    assert predictions[["p_negative", "p_positive", "p_surprise"]].sum(axis=1).tolist() == pytest.approx([1] * 6)
    record = json.loads((fold / "run.json").read_text())
    assert record["clips"]["test"] == 3
    assert len(record["inputs"]["samm.npy"]) == 64
    assert "smic_hs/s01" not in record["validation_subjects"]
    assert len(pd.read_csv(fold / "history.csv")) == 3


@pytest.mark.long
def test_a_finished_run_has_nothing_to_do(micro_demo):
    assert "Nothing to be done" in snakemake(micro_demo, "-n")


@pytest.mark.long
def test_deleted_predictions_rerun_their_fold_and_what_depends_on_it(finished):
    (finished / "results/folds/merba/samm/006/predictions.parquet").unlink()
    assert planned(snakemake(finished, "-n")) == {"fold": 1, "confusion": 1, "table_5": 1, "all": 1, "total": 4}


@pytest.fixture(scope="session")
def own_preprocessed(tmp_path_factory):
    """A folder in which two subjects' clips lie as a user's own release, preprocessed. Tests work on a copy."""
    folder = tmp_path_factory.mktemp("own") / "run"
    render({"datasets": ["casme2"], "subjects": 2, "clips": 3, "size": 0.5}, "casme2", folder)
    own_config(folder)
    snakemake(folder, "results/problems.csv", config=folder / "config.yaml")
    return folder


def own_config(folder):
    datasets = {"casme2": {"adapter": "casme2", "root": "casme2"}}
    return configured(folder, data="own", demo=None, datasets=datasets)


def add_clip(root):
    shutil.copytree(root / "CASME2-RAW" / "sub01" / "EP01_01f", root / "CASME2-RAW" / "sub01" / "EP01_09")
    edit_workbook(root / TABLE, lambda sheet: sheet.append([1, "EP01_09", *(cell.value for cell in sheet[2][2:])]))


def mend_row(root):
    edit_workbook(root / TABLE, lambda sheet: setattr(sheet["E2"], "value", sheet["E2"].value - 1))


def mend_frame(root):
    frame = sorted((root / "CASME2-RAW" / "sub01" / "EP01_02f").iterdir())[5]
    frame.write_bytes(frame.read_bytes() + b"mended")


TABLE = "CASME2-coding-20140508.xlsx"


@pytest.mark.long
@pytest.mark.parametrize(("change", "sheets"), [(add_clip, 1), (mend_row, 1), (mend_frame, 0)])
def test_a_new_or_mended_clip_reruns_its_own_subject_only(own_preprocessed, tmp_path, change, sheets):
    folder = Path(shutil.copytree(own_preprocessed, tmp_path / "run"))
    target = ["-n", "results/problems.csv"]
    assert "Nothing to be done" in snakemake(folder, *target, config=folder / "config.yaml")
    change(folder / "casme2")
    output = snakemake(folder, *target, config=folder / "config.yaml")
    assert planned(output) == {"samples": sheets, "faces": 1, "apex": 1, "flow": 1, "pack": 1, "problems": 1} | {
        "total": 5 + sheets
    }
    assert set(re.findall(r"wildcards: dataset=casme2, subject=(\w+)", output)) == {"sub01"}


@pytest.mark.long
def test_new_training_settings_rerun_training_only(finished, tmp_path):
    config = configured(tmp_path, training={"epochs": 2, "warmup": 1, "cooldown": 0})
    jobs = planned(snakemake(finished, "-n", config=config))
    assert jobs == {"fold": 12, "confusion": 2, "table_5": 1, "all": 1, "total": 16}


@pytest.mark.long
def test_a_rerun_of_a_fold_gives_the_same_bits(finished):
    fold = finished / "results/folds/merba/samm/006"
    before = pd.read_parquet(fold / "predictions.parquet")
    weights = json.loads((fold / "run.json").read_text())["seeds"]
    snakemake(finished, "--force", str((fold / "predictions.parquet").relative_to(finished)))
    pd.testing.assert_frame_equal(before, pd.read_parquet(fold / "predictions.parquet"), check_exact=True)
    after = json.loads((fold / "run.json").read_text())["seeds"]
    assert [seed["weights_sha256"] for seed in weights.values()] == [seed["weights_sha256"] for seed in after.values()]


@pytest.mark.long
def test_a_damaged_frame_stops_the_run_with_its_name_or_is_dropped(finished, tmp_path):
    frame = sorted((finished / "results/demo/smic_hs").rglob("s1_*/*.bmp"))[0]
    frame.write_bytes(frame.read_bytes()[:100])
    output = snakemake(finished, "--forcerun", "results/faces/smic_hs/s01.parquet", fails=True)
    assert "1 clips can't be used" in output
    assert frame.parent.name in output
    assert "on_problem: drop" in output
    assert len(pd.read_csv(finished / "results/problems.csv")) == 1
    snakemake(finished, "results/table_5_3db.csv", config=configured(tmp_path, on_problem="drop"))
    table = pd.read_csv(finished / "results/table_5_3db.csv")
    assert set(table["clips"].dropna()) == {"17/18"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainning": {}}, "unknown key 'trainning' (did you mean 'training'?)"),
        ({"seed": "x"}, "seed: 'x' is not of type integer"),
        (
            {"experiments": {"a": {"method": "A", "model": {"name": "merba_nano"}, "datasets": ["sam"]}}},
            "no dataset 'sam' (did you mean 'samm'?)",
        ),
    ],
)
def test_a_faulty_configuration_stops_before_any_job(tmp_path, changes, message):
    output = snakemake(tmp_path, config=configured(tmp_path, **changes), fails=True)
    assert message in output
    assert not (tmp_path / "results").exists()


def test_a_wrong_path_stops_before_any_job(tmp_path):
    datasets = {"samm": {"adapter": "samm", "root": str(tmp_path / "absent")}}
    output = snakemake(tmp_path, config=configured(tmp_path, data="3db", demo=None, datasets=datasets), fails=True)
    assert str(tmp_path / "absent") in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("cell", "value", "fault", "remedy"),
    [
        ("E1", "Peak", "no header row with column 'ApexFrame'; the nearest is row 1: ", "Give the column that name"),
        ("B3", "EP01_01f", "rows 2 and 3: sub01 EP01_01f is there twice", "remove one"),
        ("E2", 1, " is not before apex 1", "empty the apex to have it detected"),
    ],
    ids=["missing column", "duplicate clip", "onset after apex"],
)
def test_a_faulty_annotation_table_stops_before_any_job(tmp_path, cell, value, fault, remedy):
    root = write_release("casme2", tmp_path / "casme2")
    table = root / "CASME2-coding-20140508.xlsx"
    edit_workbook(table, lambda sheet: setattr(sheet[cell], "value", value))
    datasets = {"casme2": {"adapter": "casme2", "root": str(root)}}
    output = snakemake(tmp_path, config=configured(tmp_path, data="3db", demo=None, datasets=datasets), fails=True)
    assert output.count("MerbaError") == 1
    message = output[: output.index('  File "')]
    assert str(table) in message
    assert fault in message
    assert remedy in message
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_merba_learns_the_demo_and_its_controls_do_not(tmp_path):
    """The default configuration with two negative controls beside it: UF1 of the honest choice."""
    base = ROOT / "config" / "config.yaml"
    merba = yaml.safe_load(base.read_text())["experiments"]["merba"]
    controls = {name: merba | {"control": name} for name in ("shuffled_labels", "zero_flow")}
    snakemake(tmp_path, config=configured(tmp_path, base, experiments={"merba": merba} | controls))
    table = pd.read_csv(tmp_path / "results" / "table_5_3db.csv")
    uf1 = table[table["selection"] == "validation"].set_index("experiment")["combined_uf1"]
    assert uf1["merba"] >= 0.80
    assert uf1["shuffled_labels"] < 0.45
    assert uf1["zero_flow"] < 0.45
