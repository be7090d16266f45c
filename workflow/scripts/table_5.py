from pathlib import Path

import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.tables import result_rows, table_5

with job_log(snakemake.log[0], "table 5"):
    sheet = pd.read_parquet(snakemake.input.samples)
    rows = [
        result_rows(
            pd.concat([pd.read_parquet(path) for path in experiment["predictions"]], ignore_index=True),
            experiment["settings"],
            sheet,
            name=name,
            data=snakemake.params.data,
        )
        for name, experiment in snakemake.params.experiments.items()
    ]
    with atomic(snakemake.output[0]) as draft:
        table_5(rows, Path(snakemake.input.published)).to_csv(draft, index=False)
