"""Tables IV to VII: scores of experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from merba.evaluation.paper_tables import table_4, table_5, table_6, table_7
from merba.evaluation.runs import runs_of
from merba.files import atomic
from merba.joblog import job_log

TABLES = {"table_4": table_4, "table_5": table_5, "table_6": table_6, "table_7": table_7}


def run(table: str, data: str, experiments: Mapping[str, Any], *, samples: str, output: str, log: str) -> None:
    """Write a table, such as table_5_3db, of `experiments` (see `merba.plan.Plan.runs`)."""
    with job_log(log, table):
        rows = TABLES[table[:7]](runs_of(experiments), pd.read_parquet(samples), data)
        with atomic(Path(output)) as draft:
            rows.round(4).to_csv(draft, index=False)
