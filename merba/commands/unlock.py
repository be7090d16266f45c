"""Remove the lock and old drafts of a killed Snakemake, after checking that no Snakemake is running in the folder."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from merba.config.last_run import last_run
from merba.errors import MerbaError
from merba.files import remove_drafts

EXAMPLE = "merba unlock && snakemake --cores 8 --rerun-incomplete"
BY_HAND = "if you know that it has ended, `snakemake --unlock` removes the lock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="the run's working folder (default: here)")


def run(options: argparse.Namespace) -> int:
    said = f"lock removed. Only processes of this machine ({platform.node()}) were checked"
    print(said if unlock(options.folder) else "no lock")
    return 0


def unlock(folder: Path) -> bool:
    """Remove Snakemake's stale lock from a working folder, and old drafts from its results; returns whether there was a lock.

    Raises MerbaError and leaves the lock if a Snakemake of this machine is still running in that folder, or if that can't be
    known: the latest run was on another machine, or the folder of another user's process can't be seen.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise MerbaError(f"{folder} is not a folder; name the one in which Snakemake ran")
    locks = sorted((folder / ".snakemake" / "locks").glob("*.lock"))
    if locks:
        _check_nobody_works(folder)
    for lock in locks:
        lock.unlink(missing_ok=True)
    remove_drafts(folder / "results")
    return bool(locks)


def _check_nobody_works(folder: Path) -> None:
    machine = last_run(folder / "results").get("machine", platform.node())
    if machine != platform.node():
        raise MerbaError(
            f"{folder}: the latest run was on {machine}, and processes there can't be seen from {platform.node()}; {BY_HAND}, "
            "or run `merba unlock` there"
        )
    for worker, place in _snakemakes():
        if place is None:
            raise MerbaError(f"{folder}: process {worker} is another user's Snakemake, which may be running here; {BY_HAND}")
        if place == folder:
            raise MerbaError(
                f"{folder}: Snakemake is running here (process {worker}); wait for it, or stop it (kill {worker}) and try again"
            )


def _snakemakes() -> Iterator[tuple[int, Path | None]]:
    """Process id and working folder of every Snakemake of this machine; None if the folder can't be seen."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            # Started as a program or by `python -u -m snakemake`; jobs of a killed Snakemake are scripts and don't count.
            named = {Path(argument).name for argument in process.cmdline()[:4]}
            if "snakemake" not in named or process.pid == os.getpid():
                continue
            try:
                yield process.pid, Path(process.cwd())
            except psutil.AccessDenied:
                yield process.pid, None
