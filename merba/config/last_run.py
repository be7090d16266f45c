"""Who worked in a folder of results last: which configuration the results are of, and on which machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from merba.files import atomic

FILE = "last_run.json"
"""In the folder of results."""


def configuration_name(path: Path, base: Path) -> str:
    """A configuration's file as results name it: from the folder `base` if it lies there, so that both can move."""
    path = Path(path).resolve()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def last_run(results: Path) -> dict[str, str]:
    """`configuration` (file) and `machine` of the latest run in a folder of results; empty where none is known."""
    try:
        return json.loads((results / FILE).read_text())
    except (OSError, ValueError):
        return {}


def sign(results: Path, configuration: str) -> None:
    """Say in the folder of results that this configuration runs here now, on this machine."""
    with atomic(results / FILE) as draft:
        draft.write_text(json.dumps({"configuration": configuration, "machine": platform.node()}, indent=2))


def others_results(results: Path, configuration: str) -> str | None:
    """What to warn of where the folder holds another configuration's results, which this one would overwrite."""
    other = last_run(results).get("configuration", configuration)
    if other == configuration:
        return None
    return (
        f"{results} holds results of {other}, and this run is of {configuration}: where the two have names in common, the second "
        "overwrites the first. `snakemake --directory FOLDER` keeps runs side by side, each in a folder of its own"
    )
