from pathlib import Path

import pandas as pd

from merba import tables
from merba.files import atomic
from merba.joblog import job_log

name = snakemake.wildcards.table
with job_log(snakemake.log[0], name):
    ours = [
        tables.Reproduced(
            experiment,
            found["settings"],
            pd.concat([pd.read_parquet(path) for path in found["predictions"]], ignore_index=True),
        )
        for experiment, found in snakemake.params.experiments.items()
    ]
    make = {"table_4": tables.table_4, "table_5": tables.table_5, "table_6": tables.table_6, "table_7": tables.table_7}
    sheet = pd.read_parquet(snakemake.input.samples)
    table = make[name[:7]](ours, Path(snakemake.input.published), sheet, snakemake.params.data)
    with atomic(snakemake.output[0]) as draft:
        table.to_csv(draft, index=False)
