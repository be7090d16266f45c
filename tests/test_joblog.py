"""The log of a job: how it ends, and its lines about progress."""

import logging
import os

import pytest

from merba.errors import MerbaError
from merba.joblog import counted, failures, job_log


def test_a_failed_job_leaves_its_message(tmp_path):
    with pytest.raises(SystemExit) as end, job_log(tmp_path / "a.log", "task"):
        raise MerbaError("file x: wrong; mend it")
    assert end.value.code == 1
    assert "failed: task: file x: wrong; mend it" in (tmp_path / "a.log").read_text()


def test_the_failures_of_a_run_are_the_last_entries_of_its_logs(tmp_path):
    for name in ("old", "bad"):
        with pytest.raises(SystemExit), job_log(tmp_path / name / "s01.log", "faces of s01"):
            raise MerbaError("file x: wrong; mend it")
    os.utime(tmp_path / "old" / "s01.log", (0, 0))
    with job_log(tmp_path / "good.log", "flow"):
        pass
    with pytest.raises(ZeroDivisionError), job_log(tmp_path / "worse.log", "flow"):
        _ = 1 / 0
    assert failures(tmp_path, since=1) == [
        f"{tmp_path}/bad/s01.log: faces of s01: file x: wrong; mend it",
        f"{tmp_path}/worse.log: flow: ZeroDivisionError: division by zero",
    ]


def test_counted_says_what_is_done_and_left(monkeypatch, caplog):
    """Five items of 4 s each, a line at least every 10 s: after 12 s, and no second one before the end."""
    clock = iter([0.0, 0.0, 4.0, 8.0, 12.0, 16.0])
    monkeypatch.setattr("merba.joblog.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        assert list(counted("abcde", 5, "clips")) == list("abcde")
    assert caplog.messages == ["3 of 5 clips, 0.25 a second, about 8 s left"]
