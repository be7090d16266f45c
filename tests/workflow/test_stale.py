"""What reruns what, by dry runs in a folder in which the micro-demo seems to have run."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from workflow_runs import MICRO, ROOT, configured, planned, pretend, snakemake

pytestmark = pytest.mark.long

PARTS = ("Snakefile", "rules", "workflow", "merba", "config", "envs")
LOSO = {"merba": 6, "ststnet": 6}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A checkout, and the folder of a finished run of it."""
    folder = tmp_path_factory.mktemp("stale")
    root = folder / "checkout"
    root.mkdir()
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, root / name)
    (folder / "run").mkdir()
    pretend(folder / "run", root=root)
    return folder


@pytest.fixture
def moved(template, tmp_path):
    """The checkout and the run's folder, moved to another place, for a test to change."""
    shutil.copytree(template, tmp_path / "moved")
    return tmp_path / "moved" / "checkout", tmp_path / "moved" / "run"


def plan_of(moved, config=MICRO):
    root, run = moved
    return snakemake(run, "-n", config=config, root=root)


def trained(output):
    """How many folds of each experiment are planned."""
    names = re.findall(r"training: (\w+), fold", output)
    return {name: names.count(name) for name in names}


def add(path, text="\nCHANGED = 1\n"):
    path.write_text(path.read_text() + text)


def edited(folder, name, **changes):
    """The micro-demo's configuration with keys of one experiment replaced."""
    experiments = yaml.safe_load(MICRO.read_text())["experiments"]
    return configured(folder, experiments=experiments | {name: experiments[name] | changes})


def test_a_moved_checkout_with_other_comments_and_docstrings_reruns_nothing(moved):
    for path in (moved[0] / "merba").rglob("*.py"):
        path.write_text("# A comment.\n" + path.read_text().replace('"""', '"""Yes: ', 1) + "\n\n'An afterthought.'\n")
    assert "Nothing to be done" in plan_of(moved)


def test_a_change_that_concerns_every_stage_reruns_every_job(moved):
    everything = planned(snakemake(moved[1], "-n", "--forceall", root=moved[0]))
    add(moved[0] / "merba" / "errors.py")
    assert planned(plan_of(moved)) == everything
    assert set(everything) > {"render", "samples", "faces", "apex", "flow", "pack", "problems", "gate", "labels", "fold"}
    assert set(everything) > {"table_1", "table_2", "table_3", "results_table", "confusion", "samples_figure", "summary"}


def test_a_change_of_flow_reruns_flow_and_what_follows(moved):
    add(moved[0] / "merba" / "preprocessing" / "flow.py")
    jobs = planned(plan_of(moved))
    assert (jobs["flow"], jobs["pack"], jobs["gate"], jobs["fold"], jobs["samples_figure"]) == (10, 4, 4, 13, 4)
    assert not jobs.keys() & {"render", "faces", "apex", "samples", "labels", "table_1"}


def test_a_models_file_retrains_its_own_folds_and_a_new_model_nobodys(moved):
    models = moved[0] / "merba" / "models"
    (models / "new.py").write_text("SIZES = {'new': {}}\n")
    registry = models / "__init__.py"
    registry.write_text(registry.read_text().replace('    "ststnet":', '    "new": ("new", "New"),\n    "ststnet":'))
    assert "Nothing to be done" in plan_of(moved)
    add(models / "ststnet.py")
    output = plan_of(moved)
    assert trained(output) == {"ststnet": 6}
    # Table I has the model's size, and Table V its row.
    assert planned(output).items() >= {"labels": 1, "table_1": 1, "results_table": 1, "confusion": 1, "summary": 1}.items()


@pytest.mark.parametrize(("dataset", "folds"), [("dfme", {"merba_dgcm": 1}), ("smic_hs", LOSO)])
def test_new_flow_of_a_subject_retrains_the_experiments_of_its_dataset(moved, dataset, folds):
    flow = next((moved[1] / "results" / "flow" / dataset).iterdir())
    flow.write_text("other flow")  # Snakemake compares the content of small files: only a new time would change nothing
    output = plan_of(moved)
    assert trained(output) == folds
    assert planned(output).items() >= {"pack": 1, "problems": 1, "gate": 1}.items()


def test_settings_that_decide_no_result_rerun_only_the_report_which_names_them(moved, tmp_path):
    output = plan_of(moved, configured(tmp_path, on_problem="drop", threads=2, device="cpu"))
    assert planned(output) == {"summary": 1, "all": 1, "total": 2}
    assert re.search(rf"results holds results of \S*tests/micro.yaml, but this run is of {tmp_path}/config.yaml", output)


def test_more_seeds_and_other_names_retrain_one_experiment_or_none(moved, tmp_path):
    assert trained(plan_of(moved, edited(tmp_path, "ststnet", seeds=[0, 1]))) == {"ststnet": 6}
    renamed = planned(plan_of(moved, edited(tmp_path, "ststnet", method="Another name")))
    assert renamed == {"confusion": 1, "results_table": 1, "summary": 1, "all": 1, "total": 4}


def test_where_clips_were_dropped_the_gate_opens_anew_when_problems_are_to_stop_the_run(moved, tmp_path):
    (moved[1] / "results" / "packed" / "samm.checked").write_text("samm 006 c: no face\n")
    assert planned(plan_of(moved)) == {"gate": 1, "total": 1}
    assert "gate" not in planned(plan_of(moved, configured(tmp_path, on_problem="drop")))


def test_rendered_clips_that_are_gone_are_made_again_when_they_are_needed(moved):
    shutil.rmtree(moved[1] / "results" / "demo" / "samm")
    (moved[1] / "results" / "faces" / "samm" / "006.parquet").unlink()
    (moved[1] / "results" / "flow" / "samm" / "006.npz").unlink()
    (moved[1] / "results" / "packed" / "samm.npy").unlink()
    (moved[1] / "results" / "folds" / "merba" / "samm" / "006" / "predictions.parquet").unlink()
    assert planned(plan_of(moved)).items() >= {"render": 1, "faces": 2, "flow": 2, "pack": 1}.items()


def test_two_configurations_run_side_by_side_in_folders_of_their_own(moved, tmp_path):
    other = Path(configured(tmp_path, seed=2))
    assert "results holds" not in snakemake(tmp_path / "other", "-n", config=other, root=moved[0])


def test_a_fold_that_fails_to_train_again_leaves_no_earlier_result_behind(moved, tmp_path):
    fold = "results/folds/ststnet/samm/006/predictions.parquet"
    config = configured(tmp_path, training={"epochs": 2})
    snakemake(moved[1], fold, config=config, root=moved[0], fails=True)  # the packs are empty files
    assert planned(snakemake(moved[1], "-n", fold, config=config, root=moved[0])) == {"fold": 1, "total": 1}
