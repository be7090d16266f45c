"""Clone ready-made flow."""

from __future__ import annotations

from pathlib import Path

from merba.datasets.flow_images import clone
from merba.joblog import job_log


def run(repository: str, commit: str, folder: str, *, log: str) -> None:
    """Fetch one commit of a Git repository into `folder`."""
    with job_log(log, f"clone {repository} at {commit}"):
        clone(repository, commit, Path(folder))
