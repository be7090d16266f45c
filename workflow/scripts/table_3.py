from pathlib import Path

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.tables import table_3

with job_log(snakemake.log[0], "table 3"):
    table = table_3(pd.read_parquet(snakemake.input.samples), snakemake.params.data, Path(snakemake.input.published))
    with atomic(snakemake.output[0]) as draft:
        table.to_csv(draft, index=False)
