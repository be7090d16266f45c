"""Take away what a killed Snakemake left (lock, old drafts), after checking that none works in the folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from merba.errors import MerbaError
from merba.files import remove_drafts

EXAMPLE = "merba unlock && snakemake --cores 8 --rerun-incomplete"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="the run's working folder (default: here)")


def run(options: argparse.Namespace) -> int:
    print("stale lock removed" if unlock(options.folder) else "no lock")
    return 0


def unlock(folder: Path) -> bool:
    """Remove Snakemake's stale lock from a working folder, and old drafts from its results; whether there was a lock.

    Raises MerbaError where a Snakemake of this machine still works in that folder. Those of other machines on a shared
    file system can't be seen from here.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise MerbaError(f"{folder} is not a folder; name the one in which Snakemake ran")
    locks = sorted((folder / ".snakemake" / "locks").glob("*.lock"))
    if locks and (worker := _working_snakemake(folder)):
        raise MerbaError(
            f"{folder}: Snakemake works here (process {worker}); wait for it, or stop it (kill {worker}) and try again"
        )
    for lock in locks:
        lock.unlink(missing_ok=True)
    remove_drafts(folder / "results")
    return bool(locks)


def _working_snakemake(folder: Path) -> int | None:
    """The process id of a Snakemake with that working folder."""
    import psutil

    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            # As a program, or by `python -u -m snakemake`; jobs of a killed one are scripts and don't count.
            named = {Path(argument).name for argument in arguments[:4]}
            if "snakemake" in named and Path(process.cwd()) == folder and process.pid != os.getpid():
                return process.pid
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return None
