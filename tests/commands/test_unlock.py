"""A stale lock is removed; the lock of a running Snakemake is not."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from merba.cli import main
from merba.commands.unlock import unlock
from merba.config.last_run import sign
from merba.errors import MerbaError


@pytest.fixture
def locked(tmp_path):
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("results/samples.parquet\n")
    (locks / "0.output.lock").write_text("results/table_5_3db.csv\n")
    return tmp_path


def test_a_stale_lock_is_removed(locked):
    assert unlock(locked)
    assert not list((locked / ".snakemake" / "locks").iterdir())
    assert not unlock(locked), "there is none any more"


def test_what_killed_jobs_had_begun_to_write_goes_with_the_lock(locked):
    draft = locked / "results" / "flow" / ".draft-0-s01.npz"
    draft.parent.mkdir(parents=True)
    draft.touch()
    os.utime(draft, (0, 0))
    unlock(locked)
    assert not draft.exists()


def test_the_lock_of_a_working_snakemake_stays(locked):
    program = locked / "snakemake"
    program.write_text("import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, program], cwd=locked)
    try:
        with pytest.raises(MerbaError, match=f"Snakemake is running here \\(process {process.pid}\\)"):
            unlock(locked)
        assert len(list((locked / ".snakemake" / "locks").iterdir())) == 2
    finally:
        process.kill()
        process.wait()
    assert unlock(locked)


def test_a_snakemake_in_another_folder_does_not_count(locked, tmp_path_factory):
    program = locked / "snakemake"
    program.write_text("import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, program], cwd=tmp_path_factory.mktemp("other"))
    try:
        assert unlock(locked)
    finally:
        process.kill()
        process.wait()


def test_a_lock_of_another_machines_run_stays(locked):
    (locked / "results").mkdir()
    (locked / "results" / "last_run.json").write_text(json.dumps({"configuration": "a.yaml", "machine": "elsewhere"}))
    with pytest.raises(MerbaError, match="the latest run was on elsewhere, and processes there can't be seen from .*--unlock"):
        unlock(locked)
    assert len(list((locked / ".snakemake" / "locks").iterdir())) == 2
    sign(locked / "results", "a.yaml")
    assert unlock(locked)


def test_a_lock_stays_where_another_users_snakemake_hides_its_folder(locked, monkeypatch):
    class Hidden:
        pid = 12345

        def cmdline(self):
            return ["python", "-m", "snakemake"]

        def cwd(self):
            raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "process_iter", lambda: [Hidden()])
    with pytest.raises(MerbaError, match="process 12345 is another user's Snakemake, which may be running here"):
        unlock(locked)


def test_it_says_what_it_cannot_see(locked, capsys):
    assert main(["unlock", str(locked)]) == 0
    assert "Only processes of this machine" in capsys.readouterr().out
