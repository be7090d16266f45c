"""Take away what a killed Snakemake left (lock, old drafts), after checking that none works in the folder."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "merba unlock && snakemake --cores 8 --rerun-incomplete"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="the run's working folder (default: here)")


def run(options: argparse.Namespace) -> int:
    from merba.unlock import unlock

    print("stale lock removed" if unlock(options.folder) else "no lock")
    return 0
