"""Machines die: the workflow is killed at random moments, and still ends with the same results."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from workflow_runs import MICRO, ROOT, snakemake

from merba.commands.unlock import unlock
from merba.files import DRAFT, IDLE

TABLES = [
    "table_2_dfme_counts.csv",
    "table_3_3db_counts.csv",
    "table_4_dfme.csv",
    "table_5_3db.csv",
    "figures/figure_3_confusion_merba.csv",
]


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_with_the_results_of_an_undisturbed_one(micro_demo, tmp_path):
    draw = random.Random(0)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path]
    command += ["--configfile", MICRO, "--cores", "2", "--rerun-incomplete"]
    killed = 0
    while killed < 10:
        with (tmp_path / "output.txt").open("w") as output:
            run = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            time.sleep(draw.uniform(4, 25))
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                killed += 1
            else:  # it ended before it was killed: start again
                assert run.returncode == 0, (tmp_path / "output.txt").read_text()
                shutil.rmtree(tmp_path / "results")
            run.wait()
        unlock(tmp_path)
    snakemake(tmp_path, "--rerun-incomplete")
    for name in TABLES:
        expected, found = (pd.read_csv(folder / "results" / name) for folder in (micro_demo, tmp_path))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    for draft in (tmp_path / "results").rglob(f"{DRAFT}*"):  # drafts of killed writers; after an hour they would be removed
        os.utime(draft, (draft.stat().st_atime - 2 * IDLE, draft.stat().st_mtime - 2 * IDLE))
    unlock(tmp_path)
    assert not list((tmp_path / "results").rglob(f"{DRAFT}*"))
    assert "Nothing to be done" in snakemake(tmp_path, "-n")
