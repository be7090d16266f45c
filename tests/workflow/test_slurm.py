"""The workflow on a real Slurm, with profiles/slurm as a user would edit it."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from slurm_cluster import Slurm, missing_programs, most_at_once, wait_for
from workflow_runs import MICRO, ROOT, configured

pytestmark = pytest.mark.slow
THREE = {name: {"adapter": name, "root": f"results/demo/{name}"} for name in ("smic_hs", "casme2", "samm")}
ONE_FOLD = "results/folds/merba/samm/006/predictions.parquet"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(f"no Slurm on this machine ({', '.join(missing)}): apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("a node with process ids of its own needs root")
    plugin = tmp_path_factory.mktemp("plugin")
    # Not into the environment of the other tests: there it would slow every start of Snakemake.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", plugin, "-r", ROOT / "envs/slurm.txt"]
    if subprocess.run(install).returncode:
        pytest.skip("snakemake-executor-plugin-slurm can't be installed")
    # A socket's path must be short, and the paths of pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Slurm(Path(folder))
        cluster.environment["PYTHONPATH"] = os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])
        cluster.environment["OMP_NUM_THREADS"] = "1"
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
    wait_for(lambda: not processes_of(cluster), lambda: f"still there: {processes_of(cluster)}", 30)


def processes_of(cluster):
    """Every process of this machine that finds the cluster by its environment: daemons, jobs, and what they started."""
    mine = cluster.environment["SLURM_CONF"]
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_CONF") == mine:
                found.append(process.name())
    return found


def submit(slurm, folder, *targets, config=MICRO, jobs=3, fold_memory=None):
    """Start Snakemake with the profile, without what this cluster lacks: CUDA, accounting, minutes of waiting."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    profile |= {"config": ["device=cpu"], "jobs": jobs, "latency-wait": 5}
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 2}
    if fold_memory:
        profile["set-resources"]["fold"]["mem_mb"] = fold_memory
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += [*targets, "--profile", folder / "profile", "--configfile", config]
    output = (folder / "output.txt").open("w")
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=slurm.environment, stdout=output, stderr=output)


def finish(run, folder, slurm):
    assert run.wait(2400) == 0, (folder / "output.txt").read_text()[-5000:] + slurm.log()


def jobs_of(slurm, rule, folder):
    """The jobs of a rule, a group or (None) any, that were submitted from `folder`."""
    own = [job for job in slurm.jobs() if job["WorkDir"] == str(folder)]
    return [job for job in own if rule is None or job["Comment"].startswith(f"rule_{rule}_")]


def assert_same_predictions(folder, expected, paths):
    for path in paths:
        pd.testing.assert_frame_equal(pd.read_parquet(folder / path), pd.read_parquet(expected / path), check_exact=True)


def test_a_run_on_slurm_gives_what_a_local_run_gives(slurm, micro_demo, tmp_path):
    merba = yaml.safe_load(MICRO.read_text())["experiments"]["merba"] | {"folds": {"most_clips": 3}}
    config = configured(tmp_path, datasets=THREE, experiments={"merba": merba})
    finish(submit(slurm, tmp_path, "experiment_merba", config=config, jobs=2), tmp_path, slurm)

    for name in THREE:
        np.testing.assert_array_equal(*(np.load(folder / f"results/packed/{name}.npy") for folder in (tmp_path, micro_demo)))
    folds = [path.relative_to(tmp_path) for path in tmp_path.glob("results/folds/merba/*/*/predictions.parquet")]
    assert len(folds) == 3
    assert_same_predictions(tmp_path, micro_demo, folds)

    jobs = jobs_of(slurm, None, tmp_path)
    training = jobs_of(slurm, "fold", tmp_path)
    assert len(training) == 3
    assert {job["TresPerJob"] for job in training} == {"gres:gpu:1"}
    assert {job["Partition"] for job in training} == {"gpu"}
    assert {job["Partition"] for job in jobs if job not in training} == {"cpu"}
    assert not any("TresPerJob" in job for job in jobs if job not in training)
    (preprocessing,) = jobs_of(slurm, "preprocessing", tmp_path)  # of all six subjects, one after another
    assert (preprocessing["NumCPUs"], preprocessing["MinMemoryNode"]) == ("1", "2000M")
    assert most_at_once(jobs) == 2, "three trainings are ready at once, and two may be in the queue"


def test_a_job_over_its_memory_is_repeated_with_more(slurm, finished, micro_demo):
    (finished / ONE_FOLD).unlink()
    finish(submit(slurm, finished, ONE_FOLD, fold_memory="300 if attempt == 1 else 3000"), finished, slurm)
    attempts = {job["MinMemoryNode"]: job["JobState"] for job in jobs_of(slurm, "fold", finished)}
    assert attempts == {"300M": "FAILED", "3000M": "COMPLETED"}
    assert_same_predictions(finished, micro_demo, [ONE_FOLD])


def test_a_job_whose_node_dies_runs_again(slurm, finished, micro_demo):
    (finished / ONE_FOLD).unlink()
    log = finished / "logs/fold/merba/samm/006.log"
    log.unlink()
    run = submit(slurm, finished, ONE_FOLD)
    wait_for(log.exists, slurm.log, 300)
    slurm.kill_node()
    wait_for(lambda: jobs_of(slurm, "fold", finished)[0]["JobState"] == "PENDING", slurm.log)
    slurm.start_node()
    finish(run, finished, slurm)
    (job,) = jobs_of(slurm, "fold", finished)
    assert job["Restarts"] == "1"
    assert job["JobState"] == "COMPLETED"
    assert_same_predictions(finished, micro_demo, [ONE_FOLD])
