"""Write the sample sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merba.datasets import read_sheet
from merba.files import atomic
from merba.joblog import job_log


def run(config: Mapping[str, Any], output: str, *, log: str) -> None:
    """Write the sample sheet of a complete configuration from its datasets on disk."""
    with job_log(log, "sample sheet"):
        sheet = read_sheet(config, Path(output).parent)
        with atomic(Path(output)) as draft:
            sheet.to_parquet(draft, index=False)
