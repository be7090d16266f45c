"""Table I: sizes of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merba.evaluation.paper_tables import table_1
from merba.files import atomic
from merba.joblog import job_log


def run(models: Sequence[tuple[str | None, Mapping[str, Any], int]], output: str, *, log: str) -> None:
    """Write the table of models, each given as (name, arguments, classes)."""
    with job_log(log, "table 1"), atomic(Path(output)) as draft:
        table_1(models).to_csv(draft, index=False)
