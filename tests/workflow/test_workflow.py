"""The whole workflow on the micro-demo: what it plans, writes, reruns and refuses."""

import json
import re
from hashlib import sha256

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
import yaml
from releases import edit_workbook, write_release
from vit_files import write_vit
from workflow_runs import MICRO, ROOT, configured, planned, snakemake, written

ONLY_DFME = {"dfme": {"adapter": "dfme", "root": "results/demo/dfme", "fps": 200}}


def test_a_dry_run_of_the_default_shows_every_job_and_writes_nothing(tmp_path):
    jobs = planned(snakemake(tmp_path, "-n", config=None))
    expected = {"render": 4, "samples": 1, "faces": 17, "apex": 17, "flow": 17, "pack": 4, "fold": 29, "results_table": 2}
    assert jobs.items() >= expected.items()
    assert written(tmp_path) == []


@pytest.mark.parametrize("target", ["tables", "figures", "table_5", "experiment_merba_dgcm", "packed"])
def test_every_target_can_be_planned(tmp_path, target):
    assert planned(snakemake(tmp_path, "-n", target, config=None))["render"] >= 1


def test_the_ablations_have_a_target_of_their_own(tmp_path):
    jobs = planned(snakemake(tmp_path, "-n", "ablations", config=None))
    assert jobs.items() >= {"fold": 27 + 9, "results_table": 4}.items()


def test_a_plain_run_leaves_out_what_table_5_trains(tmp_path):
    experiments = {"merba": {"inherit": "merba"}, "lbp_top": {"inherit": "lbp_top", "optional": True}}
    config = configured(tmp_path, experiments=experiments)
    plain, whole = (planned(snakemake(tmp_path, "-n", *target, config=config)) for target in ([], ["table_5"]))
    assert plain["fold"] == 6
    assert not [rule for rule in plain if rule.startswith("view")]
    assert whole.items() >= {"fold": 12, "view": 6, "view_pack": 3, "view_problems": 1, "view_gate": 3, "gate": 3}.items()


def test_every_method_of_table_v_has_three_folds_of_the_demo(tmp_path):
    config = ROOT / "config" / "methods.yaml"
    methods = yaml.safe_load(config.read_text())["experiments"]
    jobs = planned(snakemake(tmp_path, "-n", "methods", config=config))
    assert jobs.items() >= {"render": 3, "flow": 9, "fold": 3 * len(methods), "results_table": 1, "summary": 1}.items()


def test_experiments_without_data_are_left_out_with_a_reason(tmp_path):
    output = snakemake(tmp_path, "-n", config=configured(tmp_path, experiments=None, datasets=ONLY_DFME))
    assert "Experiment merba is left out: the configuration has no dataset smic_hs, casme2, samm." in output
    assert planned(output)["fold"] == 5, "Table IV, without the ablations"


def test_another_configfile_replaces_the_demo(tmp_path):
    output = snakemake(tmp_path, "-n", config=ROOT / "config" / "public_flow.yaml")
    jobs = planned(output)
    assert jobs.items() >= {"clone_flow": 1, "flow": 68, "fold": 16 * 68}.items()
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
    assert (results / "figures" / "figure_3_confusion_merba.png").stat().st_size > 5000
    assert pd.read_csv(results / "figures" / "figure_3_confusion_merba.csv", index_col=0).to_numpy().sum() == 18
    assert pd.read_csv(results / "problems.csv").empty
    blocks = pd.read_csv(results / "table_1_architecture.csv")
    assert list(blocks["model"].unique()) == ["MERba-nano", "STSTNet", "MERba-nano-DGCM (image size 28)"], "what ran, no more"
    splits = pd.read_csv(results / "table_2_dfme_counts.csv").set_index(["source", "split"])["total"]
    assert splits["counted"].to_dict() == {"train": 14, "test_a": 7, "test_b": 7}
    assert splits["published"].to_dict() == {"train": 1856, "test_a": 474, "test_b": 299}
    fold = results / "folds" / "merba" / "smic_hs" / "s01"
    predictions = pd.read_parquet(fold / "predictions.parquet")
    assert predictions[["p_negative", "p_positive", "p_surprise"]].sum(axis=1).tolist() == pytest.approx([1] * 6)
    record = json.loads((fold / "run.json").read_text())
    assert record["clips"]["test"] == 3
    assert record["inputs"]["samm.npy"] == sha256((results / "packed" / "samm.npy").read_bytes()).hexdigest()
    epochs = pd.read_parquet(fold / "every_epoch.parquet")
    assert epochs.groupby("epoch").size().to_dict() == {1: 3, 2: 3, 3: 3}
    assert "smic_hs/s01" not in record["validation_subjects"]
    assert len(pd.read_csv(fold / "history.csv")) == 3


@pytest.mark.long
def test_the_ablations_run_to_their_tables(finished):
    snakemake(finished, "ablations")
    results = finished / "results"
    sixth, seventh = (pd.read_csv(results / f"{name}.csv") for name in ("table_6_lgfi", "table_7_scanning"))
    assert set(sixth["experiment"].dropna()) == {"merba_dgcm"}
    assert set(seventh["experiment"].dropna()) == {"merba_dgcm", "scan_hr"}
    ours = seventh[seventh["experiment"] == "scan_hr"]
    assert set(ours["clips"]) == {"7/7"}, "test B"
    assert set(ours["directions"]) == {"hr"}
    assert "Table VII" in (results / "summary_ablations.html").read_text()


@pytest.mark.long
def test_every_log_says_first_what_its_job_does_and_last_how_it_ended(micro_demo):
    logs = list((micro_demo / "logs").rglob("*.log"))
    assert len(logs) == planned(snakemake(micro_demo, "-n", "--forceall"))["total"] - 1, "rule all has none"
    for log in logs:
        first, *_, last = log.read_text().splitlines()
        assert re.search(r" INFO start: \w", first), log
        assert re.search(r" INFO done: \w.*, [\d.]+ s$", last), log


@pytest.mark.long
def test_a_finished_run_has_nothing_to_do(micro_demo):
    assert "Nothing to be done" in snakemake(micro_demo, "-n")


@pytest.mark.long
def test_deleted_predictions_rerun_their_fold_and_what_depends_on_it(finished):
    (finished / "results/folds/merba/samm/006/predictions.parquet").unlink()
    # STSTNet is compared with MERba in the same table; its own folds stay as they are.
    assert planned(snakemake(finished, "-n")) == {
        "fold": 1, "confusion": 1, "results_table": 1, "summary": 1, "all": 1, "total": 5,
    }  # fmt: skip


@pytest.mark.long
def test_new_training_settings_rerun_training_only(finished, tmp_path):
    config = configured(tmp_path, training={"epochs": 2, "warmup": 1, "cooldown": 0})
    jobs = planned(snakemake(finished, "-n", config=config))
    assert jobs == {"fold": 13, "confusion": 4, "results_table": 2, "summary": 1, "all": 1, "total": 21}


@pytest.mark.long
def test_a_view_reruns_nothing_of_a_finished_run(finished, tmp_path):
    views = {"key16": {"length": 8}, "mine": {"frames": "apex", "length": 1, "size": 64, "keep": "grey"}}
    only_named = configured(tmp_path, views=views)
    jobs = planned(snakemake(finished, "-n", config=only_named))
    assert jobs.keys() <= {"summary", "all", "total"}, "the summary names what is configured"
    experiments = yaml.safe_load(MICRO.read_text())["experiments"] | {"lbp_top": {"inherit": "lbp_top"}}
    jobs = planned(snakemake(finished, "-n", config=configured(tmp_path, experiments=experiments)))
    new = {"view": 6, "view_pack": 3, "view_problems": 1, "view_gate": 3, "view_figure": 3, "labels": 1, "fold": 6}
    assert jobs.items() >= new.items()
    assert jobs.keys() - new.keys() <= {"table_1", "results_table", "confusion", "summary", "all", "total"}


@pytest.mark.long
def test_a_rerun_of_a_fold_on_one_core_gives_the_same_bits(finished):
    fold = finished / "results/folds/merba/samm/006"
    before = pd.read_parquet(fold / "predictions.parquet")
    weights = json.loads((fold / "run.json").read_text())["seeds"]
    snakemake(finished, "--cores", "1", "--force", str((fold / "predictions.parquet").relative_to(finished)))
    pd.testing.assert_frame_equal(before, pd.read_parquet(fold / "predictions.parquet"), check_exact=True)
    after = json.loads((fold / "run.json").read_text())["seeds"]
    assert [seed["weights_sha256"] for seed in weights.values()] == [seed["weights_sha256"] for seed in after.values()]


@pytest.mark.long
def test_a_subject_with_damaged_frames_stops_the_run_with_their_names_or_is_dropped(finished, tmp_path):
    clips = sorted(folder for folder in (finished / "results/demo/smic_hs").rglob("s1_*") if folder.is_dir())
    for folder in clips:
        frame = sorted(folder.glob("*.bmp"))[0]
        frame.write_bytes(frame.read_bytes()[:100])
    output = snakemake(finished, "--forcerun", "results/faces/smic_hs/s01.parquet", fails=True)
    assert "3 clips can't be used" in output
    assert all(folder.name in output for folder in clips)
    assert "on_problem: drop" in output
    assert len(pd.read_csv(finished / "results/problems.csv")) == 3
    targets = ["results/table_5_3db.csv", "results/table_3_3db_counts.csv", "results/summary.html"]
    snakemake(finished, *targets, config=configured(tmp_path, on_problem="drop"))
    table = pd.read_csv(finished / "results/table_5_3db.csv")
    assert set(table["clips"].dropna()) == {"15/18"}
    assert set(table["folds"].dropna()) == {"5/6"}
    assert "smic_hs s01 has no usable clip" in (finished / "logs/fold/merba/smic_hs/s01.log").read_text()
    for name in ("predictions.parquet", "every_epoch.parquet"):
        empty, other = (pd.read_parquet(finished / "results/folds/merba/smic_hs" / s / name) for s in ("s01", "s02"))
        assert empty.empty and empty.dtypes.equals(other.dtypes)
    counts = pd.read_csv(finished / "results/table_3_3db_counts.csv").set_index("class")
    assert counts.loc["unusable", ["smic_hs", "casme2", "samm", "combined"]].tolist() == [3, 0, 0, 3]


def honest_outcome(folder, experiment, *fold):
    """What must not depend on the test subject: weights, epoch, normalisation and split."""
    folder = folder.joinpath("results", "folds", experiment, *fold)
    record = json.loads((folder / "run.json").read_text())
    seeds = [(seed["weights_sha256"], seed["epoch"]) for seed in record["seeds"].values()]
    return seeds, record["normalisation"], (folder / "split.csv").read_text()


@pytest.mark.long
@pytest.mark.parametrize("poison", ["labels", "pixels"])
def test_poisoning_the_test_subjects_files_changes_nothing_of_an_honest_training(finished, tmp_path, poison):
    fold = ("samm", "006")
    # With two components, LDA's probabilities are not all 0 or 1.
    models = ({"name": "biwoof"}, {"name": "kernel", "in_channels": 2}, {"name": "lda", "in_channels": 2, "components": 2})
    fitted = {model["name"]: {"inherit": "biwoof", "method": model["name"], "model": model} for model in models}
    write_vit(tmp_path / "vit.safetensors")
    views = {"lof11": {"length": 5, "size": 64, "pretrained": str(tmp_path / "vit.safetensors")}}
    tokens = {"name": "slstt", "length": 5, "width": 128, "hidden": 16}
    seeing = {"lbp_top": {"inherit": "lbp_top"}, "slstt": {"inherit": "slstt", "model": tokens, "training": {"epochs": 3}}}
    episodes = {"episodes": 2, "support": 1, "queries": 2}
    seeing["meplan"] = {"inherit": "meplan_small", "model": episodes, "training": {"epochs": 3}}
    seeing |= {name: {"inherit": f"{name}_small", "training": {"epochs": 3}} for name in ("mfdan", "mersiamc3d")}
    names = ["merba", "ststnet", *fitted, *seeing]
    paths = {name: finished.joinpath("results", "folds", name, *fold, "predictions.parquet") for name in names}
    run = [*(str(path.relative_to(finished)) for path in paths.values()), "--rerun-triggers", "mtime"]
    # The rendered demo, read from disk like any data; nothing in it is new yet.
    experiments = yaml.safe_load(MICRO.read_text())["experiments"] | fitted | seeing
    config = configured(tmp_path, data="own", demo=None, experiments=experiments, views=views)
    snakemake(finished, *run, config=config)
    before = {name: honest_outcome(finished, name, *fold) for name in names}
    predicted = {name: pd.read_parquet(path) for name, path in paths.items()}
    assert "Nothing to be done" in snakemake(finished, *run, "-n", config=config)
    root = finished / "results" / "demo" / "samm"
    if poison == "labels":
        table = next(root.glob("*.xlsx"))
        book = openpyxl.load_workbook(table)
        for row in book.active.iter_rows():
            if row[0].value in (6, "6", "006"):
                row[9].value = {"Happiness": "Surprise", "Surprise": "Anger"}.get(row[9].value, "Happiness")
        book.save(table)
        snakemake(finished, *run, "--forcerun", *(f"results/labels/{name}.parquet" for name in before), config=config)
    else:
        for folder in (root / "SAMM" / "006").iterdir():
            frames = sorted(folder.iterdir())
            for path in frames[1:]:
                cv2.imwrite(str(path), np.roll(cv2.imread(str(path)), 9, axis=1))
        views_of_all = ("tim10", "lof11", "key8", "apex1_small")
        seen = [f"results/{kind}/samm/006.npz" for kind in ("flow", *(f"views/{view}" for view in views_of_all))]
        snakemake(finished, *run, "--forcerun", *seen, config=config)
    assert {name: honest_outcome(finished, name, *fold) for name in before} == before
    for name, path in paths.items():
        after = pd.read_parquet(path)
        changed = "true" if poison == "labels" else "p_positive"
        assert (after[changed] != predicted[name][changed]).any(), "the poison did not arrive"


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


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/faces/samm/nobody.parquet", "the sample sheet has no subject nobody in samm"),
        ("results/faces/sam/006.parquet", "the configuration has no dataset 'sam' (did you mean 'samm'?)"),
        ("results/folds/merba/samm/nobody/predictions.parquet", "nobody"),
    ],
)
def test_a_target_that_is_none_ends_with_its_message(tmp_path, target, message):
    output = snakemake(tmp_path, "--dry-run", target, fails=True)
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output


def test_values_of_the_command_line_are_taken_as_yaml_reads_them_and_named_where_they_are_wrong(tmp_path):
    given = ["--config", "keep_weights=true", "training={epochs: 1}"]
    assert "Nothing to be done" not in snakemake(tmp_path, "--dry-run", *given)
    output = snakemake(tmp_path, "--dry-run", "--config", "keep_weights=maybe", fails=True)
    assert output.splitlines()[-1].endswith("with --config keep_weights: keep_weights: 'maybe' is not of type boolean or null")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "merba_nono"}, "unknown model 'merba_nono'; known: merba_base, "),
        ({"name": "merba_nano", "in_chanels": 2}, "merba_nano has no argument 'in_chanels'; it has "),
    ],
)
def test_a_model_that_cannot_be_made_stops_the_run_while_it_preprocesses(tmp_path, model, message):
    config = configured(tmp_path, experiments={"a": {"method": "A", "model": model, "datasets": ["samm"]}})
    assert message in snakemake(tmp_path, config=config, fails=True)
    assert not list(tmp_path.glob("results/packed/*"))


def test_what_is_fitted_and_told_to_stop_by_validation_stops_the_run_while_it_preprocesses(tmp_path):
    config = configured(tmp_path, experiments={"a": {"method": "A", "model": {"name": "kernel"}, "datasets": ["samm"]}})
    output = snakemake(tmp_path, config=config, fails=True)
    assert "kernel is fitted, not trained" in output.splitlines()[-1], "the message stands behind Snakemake's own"
    assert "Traceback" not in output
    assert not list(tmp_path.glob("results/packed/*"))


def test_a_wrong_path_stops_before_any_job(tmp_path):
    datasets = {"samm": {"adapter": "samm", "root": str(tmp_path / "absent")}}
    output = snakemake(tmp_path, config=configured(tmp_path, data="3db", demo=None, datasets=datasets), fails=True)
    assert str(tmp_path / "absent") in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("cell", "value", "fault", "remedy"),
    [
        ("E1", "Peak", "no header row with column 'ApexFrame'; the nearest is row 1: ", "Give the column that name"),
        ("B3", "EP01_01f", "rows 2 and 3: sub01 EP01_01f is listed twice", "remove one"),
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
    message = output[output.index("merba: ") :]
    assert str(table) in message
    assert fault in message
    assert remedy in message
    assert "Traceback" not in output
    assert '  File "' not in output
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_merba_learns_the_demo_and_its_controls_do_not(tmp_path):
    """The default configuration with two additional negative controls: UF1 of the honest choice."""
    base = ROOT / "config" / "config.yaml"
    merba = yaml.safe_load(base.read_text())["experiments"]["merba"]
    controls = {name: merba | {"control": name} for name in ("shuffled_labels", "zero_flow")}
    snakemake(tmp_path, config=configured(tmp_path, base, experiments={"merba": merba} | controls))
    table = pd.read_csv(tmp_path / "results" / "table_5_3db.csv")
    uf1 = table[table["selection"] == "validation"].set_index("experiment")["combined_uf1"]
    assert uf1["merba"] >= 0.70
    assert uf1["shuffled_labels"] < 0.45
    assert uf1["zero_flow"] < 0.45
