"""The record in a results folder: which configurations its results come from, and the machine of the latest run."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from merba.files import atomic

FILE = "last_run.json"
"""In the folder of results."""


def configuration_name(path: Path, *bases: Path) -> str:
    """A configuration's file as results name it: relative to the first of the folders `bases` that contains it."""
    path = Path(path).resolve()
    return next((str(path.relative_to(base)) for base in bases if path.is_relative_to(base)), str(path))


def last_run(results: Path) -> dict[str, Any]:
    """`configurations` (files, the latest last) and `machine` of the latest run in a folder of results; empty if unknown."""
    try:
        return json.loads((results / FILE).read_text())
    except (OSError, ValueError):
        return {}


def sign(results: Path, configuration: str) -> None:
    """Record in the folder of results that this configuration runs on this machine now."""
    others = [name for name in last_run(results).get("configurations", []) if name != configuration]
    with atomic(results / FILE) as draft:
        draft.write_text(json.dumps({"configurations": [*others, configuration], "machine": platform.node()}, indent=2))


def others_results(results: Path, configuration: str) -> str | None:
    """A warning if the folder holds another configuration's results, which this run would overwrite; otherwise None."""
    others = [name for name in last_run(results).get("configurations", []) if name != configuration]
    if not others:
        return None
    return (
        f"{results} holds results of {', '.join(others)}, but this run is of {configuration}. "
        "It overwrites results of the same name. "
        "`snakemake --directory FOLDER` keeps runs apart, each in a folder of its own"
    )
