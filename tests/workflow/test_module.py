"""The workflow as a module of another one, with a `prefix` before all its files."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from vit_files import write_vit
from workflow_runs import MICRO, ROOT, configured, planned, snakemake, written

IMPORTER = """
configfile: "importer.yaml"


module merba:
    snakefile:
        {snakefile!r}
    config:
        config["merba"]
    prefix:
        "faces/merba"


use rule * from merba as merba_*


rule mine:
    input:
        "faces/merba/results/folds/ststnet/samm/006/predictions.parquet",
    output:
        "mine.txt",
    shell:
        "wc -c {{input}} > {{output}}"
"""


def run(folder, config, *arguments):
    """Run Snakemake in `folder`, with a Snakefile that uses the workflow with `config`; returns its output."""
    (folder / "Snakefile").write_text(IMPORTER.format(snakefile=str(ROOT / "Snakefile")))
    (folder / "importer.yaml").write_text(yaml.safe_dump({"merba": config}))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_plan_of_a_module_is_the_workflows(tmp_path):
    write_vit(tmp_path / "vit.safetensors")  # the user's: it has no prefix
    experiments = yaml.safe_load(MICRO.read_text())["experiments"] | {"slstt": {"inherit": "slstt"}}
    config = configured(tmp_path, experiments=experiments, views={"lof11": {"pretrained": "vit.safetensors"}})
    alone = planned(snakemake(tmp_path, "-n", config=config))
    as_module = planned(run(tmp_path, yaml.safe_load(config.read_text()), "-n"))
    assert {name.removeprefix("merba_"): count for name, count in as_module.items()} == alone


def test_the_catalogs_snakefile_is_the_workflow(tmp_path):
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--snakefile",
        ROOT / "workflow/Snakefile",
        "--directory",
        tmp_path / "run",
    ]
    done = subprocess.run([*map(str, command), "--configfile", MICRO], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert planned(done.stdout + done.stderr) == planned(snakemake(tmp_path / "alone", "-n"))


@pytest.mark.long
def test_a_fold_of_a_module_is_trained_and_stays_below_its_prefix(tmp_path):
    demo = {"subjects": 2, "clips": 3, "dfme_subjects": 4, "dfme_clips": 7, "size": 0.5}
    samm = {"samm": {"adapter": "samm", "root": "results/demo/samm"}}
    model = {"name": "ststnet", "in_channels": 2}
    ststnet = {"method": "STSTNet", "stopping": "none", "model": model, "training": {"epochs": 2, "warmup": 1, "cooldown": 1}}
    run(tmp_path, {"data": "demo", "demo": demo, "datasets": samm, "experiments": {"ststnet": ststnet}}, "mine")
    fold = tmp_path / "faces/merba/results/folds/ststnet/samm/006"
    assert set(pd.read_parquet(fold / "predictions.parquet")["clip"]) == {"006_1_1", "006_1_2", "006_1_3"}
    assert json.loads((fold / "run.json").read_text())["configuration"]["file"] == "importer.yaml"
    top = {path.split("/")[0] for path in written(tmp_path)}
    assert top == {"Snakefile", "importer.yaml", "mine.txt", "faces"}
    assert (tmp_path / "faces/merba/logs/fold/ststnet/samm/006.log").exists()
