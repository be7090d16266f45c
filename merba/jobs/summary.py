"""The report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from merba.evaluation.report import write_report
from merba.evaluation.report_cells import WORDS
from merba.evaluation.runs import runs_of
from merba.files import atomic
from merba.joblog import job_log


def run(
    data: str,
    configuration: Mapping[str, Any],
    experiments: Mapping[str, Any],
    *,
    tables: Sequence[str],
    matrices: Mapping[str, tuple[str, str | None]],
    figures: Sequence[str],
    problems: str,
    warnings: str,
    preprocessing: str,
    samples: str,
    times: Sequence[str],
    output: str,
    log: str,
) -> None:
    """Write the report of `experiments` (see `merba.plan.Plan.runs`); `matrices` are files with their method and test set."""
    with job_log(log, "summary of the run"), atomic(Path(output)) as draft:
        write_report(
            draft,
            data=data,
            configuration=configuration,
            tables=[Path(path) for path in tables],
            runs=runs_of(experiments),
            matrices={
                Path(path): f"{method}, test set {WORDS[split]}" if split else method
                for path, (method, split) in matrices.items()
            },
            samples=[Path(path) for path in figures],
            problems=Path(problems),
            warnings=Path(warnings),
            preprocessing=Path(preprocessing),
            sheet=pd.read_parquet(samples),
            times=[Path(path) for path in times],
        )
