"""Tables II and III: clips by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from merba.evaluation.clip_counts import table_2, table_3
from merba.files import atomic
from merba.joblog import job_log


def run(rule: str, data: str, datasets: Sequence[str], *, samples: str, problems: str, output: str, log: str) -> None:
    """Write the table of `rule` (table_2 or table_3) for some of the sheet's datasets."""
    with job_log(log, rule.replace("_", " ")):
        sheet = pd.read_parquet(samples)
        rows = sheet[sheet["dataset"].isin(datasets)]
        unusable = pd.read_csv(problems, dtype=str, keep_default_na=False)
        table = {"table_2": table_2, "table_3": table_3}[rule]
        with atomic(Path(output)) as draft:
            table(rows, data, unusable).to_csv(draft, index=False)
