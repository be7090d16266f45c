from pathlib import Path

import pandas as pd

from merba.counts import table_3
from merba.files import atomic
from merba.joblog import job_log

with job_log(snakemake.log[0], "table 3"):
    sheet = pd.read_parquet(snakemake.input.samples)
    rows = sheet[sheet["dataset"].isin(snakemake.params.datasets)]
    problems = pd.read_csv(snakemake.input.problems, dtype=str)
    with atomic(snakemake.output[0]) as draft:
        table_3(rows, snakemake.params.data, Path(snakemake.input.published), problems).to_csv(draft, index=False)
