"""Machines die: the workflow killed at random moments, and brought to the same results."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from workflow_runs import MICRO, ROOT, snakemake

from merba.unlock import unlock

TABLES = ["table_3_3db_counts.csv", "table_4_dfme.csv", "table_5_3db.csv", "figures/figure_3_confusion_merba.csv"]


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_with_the_results_of_an_undisturbed_one(micro_demo, tmp_path):
    draw = random.Random(0)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    command += ["--configfile", MICRO, "--cores", "2", "--rerun-incomplete"]
    for _ in range(10):
        with (tmp_path / "output.txt").open("w") as output:
            run = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            time.sleep(draw.uniform(4, 25))
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        unlock(tmp_path)
    snakemake(tmp_path, "--rerun-incomplete")
    for name in TABLES:
        expected, found = (pd.read_csv(folder / "results" / name) for folder in (micro_demo, tmp_path))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert not list((tmp_path / "results").rglob(".*.tmp*"))
    assert "Nothing to be done" in snakemake(tmp_path, "-n")
